//! `mcpgw` as a user types it: tools through the Gateway, status, and a doctor that finds what was broken on purpose.

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, OPERATOR_NAMESPACE, Site, apply, delete, kubectl};
use mcp_gateway_kit::eventually;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

fn mcpgw(words: &[&str]) -> anyhow::Result<Output> {
    let programs =
        std::env::var("MCPGW_BIN_DIR").context("MCPGW_BIN_DIR is not set: run this by make e2e")?;
    let program = PathBuf::from(programs).join("mcpgw");
    Command::new(program).args(words).output().context("mcpgw")
}

fn printed(words: &[&str]) -> anyhow::Result<String> {
    let output = mcpgw(words)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{words:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

#[tokio::test]
async fn tools_are_listed_described_and_called_with_nothing_but_the_kubeconfig() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("cli")?;
    apply(&site.extension("cli", "ext", "mcp", ""))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpge/ext -n cli")?;
    site.wait_ready("mcpsr/one -n cli-servers")?;
    site.client().await?;
    let here = ["--extension", "cli/ext"];
    let with = |words: &[&'static str]| printed(&[words, &here].concat());

    let listed = with(&["tools", "list"])?;
    ensure!(
        listed.starts_with("NAME") && listed.contains("one_add"),
        "{listed}"
    );
    let described = with(&["tools", "describe", "one_add"])?;
    ensure!(described.contains("inputSchema:"), "{described}");
    let sum = with(&["tools", "call", "one_add", "a=19", "b=23"])?;
    ensure!(sum.starts_with("42\n"), "{sum}");
    let json: Value = serde_json::from_str(&with(&["tools", "list", "-o", "json"])?)?;
    ensure!(
        json.as_array()
            .is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "one_add")),
        "{json}"
    );
    let unknown = mcpgw(&["tools", "call", "nope", "--extension", "cli/ext"])?;
    ensure!(
        unknown.status.code() == Some(2)
            && String::from_utf8_lossy(&unknown.stderr).contains("Unknown tool: nope"),
        "{unknown:?}"
    );

    let status = printed(&["status", "-n", "cli"])?;
    ensure!(
        status.contains("cli/ext") && status.contains("http://mcp.cli.example:8080/mcp"),
        "{status}"
    );
    let spoken = kubectl("get mcpsr one -n cli-servers -o jsonpath={.status.era}/{.status.protocolVersion}")?;
    let servers = printed(&["status", "-n", "cli-servers"])?;
    ensure!(
        spoken.trim() == "modern/2026-07-28" && servers.contains("2026-07-28"),
        "{spoken}: {servers}"
    );
    let path =
        "{.status.discoveredPrompts}/{.status.discoveredResources}/{.status.discoveredResourceTemplates}";
    let counted = kubectl(&format!("get mcpsr one -n cli-servers -o jsonpath={path}"))?;
    ensure!(counted.trim() == "1/1/0", "{counted}");
    let exported = printed(&["export", "--to", "standalone", "--extension", "cli/ext"])?;
    ensure!(
        exported.contains("name: cli-servers/one") && exported.contains("prefix: one_"),
        "{exported}"
    );
    Ok(())
}

/// What is broken, what the doctor must say, and how it is mended.
struct Fault {
    name: &'static str,
    plant: fn(&Site) -> anyhow::Result<()>,
    check: &'static str,
    fix: &'static str,
    mend: fn(&Site) -> anyhow::Result<()>,
}

fn run(line: &str) -> anyhow::Result<()> {
    kubectl(line).map(drop)
}

fn patch(what: &str, patch: &str) -> anyhow::Result<()> {
    run(&format!("patch {what} --type=json -p {patch}"))
}

fn replace(what: &str, path: &str, value: &str) -> anyhow::Result<()> {
    patch(
        what,
        &format!("[{{\"op\":\"replace\",\"path\":\"{path}\",\"value\":{value}}}]"),
    )
}

const EXTENSION: &str = "mcpge ext -n doctor";
const ROUTE: &str = "httproute one -n doctor-servers";

/// A grant for every Gateway, from this group.
fn grant(name: &str, group: &str) -> anyhow::Result<()> {
    apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{name: {name}, namespace: doctor-gw}}, \
        spec: {{from: [{{group: {group}, kind: MCPGatewayExtension, namespace: doctor}}], \
        to: [{{group: gateway.networking.k8s.io, kind: Gateway}}]}}}}"
    ))
    .map(drop)
}

const AROUND_THE_GATEWAY: [Fault; 6] = [
    Fault {
        name: "a listener that does not exist",
        plant: |_| replace(EXTENSION, "/spec/targetRef/sectionName", "\"nope\""),
        check: "listener",
        fix: "set spec.targetRef.sectionName of doctor/ext",
        mend: |_| replace(EXTENSION, "/spec/targetRef/sectionName", "\"mcp\""),
    },
    Fault {
        name: "a Gateway that does not exist",
        plant: |_| {
            grant("any", "mcp.kuadrant.io")?;
            replace(EXTENSION, "/spec/targetRef/name", "\"gone\"")
        },
        check: "gateway",
        fix: "create Gateway doctor-gw/gone, or name one that exists",
        mend: |_| {
            replace(EXTENSION, "/spec/targetRef/name", "\"gw\"")?;
            delete("referencegrant any -n doctor-gw").map(drop)
        },
    },
    Fault {
        name: "no grant",
        plant: |_| delete("referencegrant allow-doctor -n doctor-gw").map(drop),
        check: "grant",
        fix: "the owner of namespace doctor-gw creates a ReferenceGrant there",
        mend: |site| site.grant("doctor"),
    },
    Fault {
        name: "a grant of the retired group",
        plant: |_| grant("allow-doctor", "mcp.kagenti.com"),
        check: "grant",
        fix: "group: mcp.kuadrant.io",
        mend: |site| site.grant("doctor"),
    },
    Fault {
        name: "an unknown scope",
        plant: |_| run("annotate gateway gw -n doctor-gw mcp.kuadrant.io/extension-scope=port"),
        check: "gateway",
        fix: "set it to Gateway or Listener",
        mend: |_| run("annotate gateway gw -n doctor-gw mcp.kuadrant.io/extension-scope-"),
    },
    Fault {
        name: "a listener closed to the namespace",
        plant: |_| {
            replace(
                "gateway gw -n doctor-gw",
                "/spec/listeners/0/allowedRoutes/namespaces/from",
                "\"Same\"",
            )
        },
        check: "listener",
        fix: "let the listener's allowedRoutes.namespaces admit namespace doctor",
        mend: |_| {
            replace(
                "gateway gw -n doctor-gw",
                "/spec/listeners/0/allowedRoutes/namespaces/from",
                "\"All\"",
            )
        },
    },
];

const AROUND_THE_SERVERS: [Fault; 7] = [
    Fault {
        name: "a registration without route",
        plant: |site| site.register("lost", "lost_"),
        check: "route",
        fix: "create HTTPRoute doctor-servers/lost",
        mend: |_| delete("mcpsr lost -n doctor-servers").map(drop),
    },
    Fault {
        name: "a route on a listener that does not take it",
        plant: |_| replace(ROUTE, "/spec/parentRefs/0/sectionName", "\"other\""),
        check: "route",
        fix: "HTTPRoute doctor-servers/one",
        mend: |_| replace(ROUTE, "/spec/parentRefs/0/sectionName", "\"mcps\""),
    },
    Fault {
        name: "a Service that does not exist",
        plant: |_| replace(ROUTE, "/spec/rules/0/backendRefs/0/name", "\"gone\""),
        check: "backend",
        fix: "create the Service, or correct backendRefs",
        mend: |_| replace(ROUTE, "/spec/rules/0/backendRefs/0/name", "\"one\""),
    },
    Fault {
        name: "a server without pods",
        plant: |_| run("scale deployment one -n doctor-servers --replicas=0"),
        check: "backend",
        fix: "start the server's pods",
        mend: |_| run("scale deployment one -n doctor-servers --replicas=1"),
    },
    Fault {
        name: "a prefix that is taken",
        plant: |site| site.register("twin", "one_"),
        check: "names",
        fix: "delete doctor-servers/twin and create it with a prefix that nobody uses",
        mend: |_| delete("mcpsr twin -n doctor-servers").map(drop),
    },
    Fault {
        name: "a virtual server with a tool that nobody has",
        plant: |_| {
            apply(
                "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPVirtualServer, metadata: {name: few, namespace: doctor}, \
                spec: {tools: [one_nothing]}}",
            )
            .map(drop)
        },
        check: "names",
        fix: "mcpgw tools list says which names are published",
        mend: |_| delete("mcpvs few -n doctor").map(drop),
    },
    Fault {
        name: "a credential without the label",
        plant: |_| {
            run("create secret generic token -n doctor-servers --from-literal=token=x")?;
            patch(
                "mcpsr one -n doctor-servers",
                r#"[{"op":"add","path":"/spec/credentialRef","value":{"name":"token"}}]"#,
            )
        },
        check: "secret",
        fix: "kubectl label secret",
        mend: |_| {
            patch(
                "mcpsr one -n doctor-servers",
                r#"[{"op":"remove","path":"/spec/credentialRef"}]"#,
            )?;
            delete("secret token -n doctor-servers").map(drop)
        },
    },
];

const CA: &str = "/webhooks/0/clientConfig/caBundle";

/// The last ones need an operator that is away, or it would mend them itself; one installation mends them all.
const AROUND_THE_INSTALLATION: [Fault; 8] = [
    Fault {
        name: "no replica of the broker",
        plant: |_| run("scale deployment mcp-gateway -n doctor --replicas=0"),
        check: "broker",
        fix: "kubectl scale deployment/mcp-gateway -n doctor --replicas=1",
        mend: |_| run("scale deployment mcp-gateway -n doctor --replicas=1"),
    },
    Fault {
        name: "two brokers that know nothing of each other",
        plant: |_| run("scale deployment mcp-gateway -n doctor --replicas=2"),
        check: "broker",
        fix: "set spec.sessionStore",
        mend: |_| run("scale deployment mcp-gateway -n doctor --replicas=1"),
    },
    Fault {
        name: "no operator",
        plant: |_| run("scale deployment mcp-gateway-controller -n mcp-system --replicas=0"),
        check: "operator",
        fix: "kubectl scale deployment/mcp-gateway-controller -n mcp-system --replicas=1",
        // One that is still ending would mend what is broken next, or be refused and recorded.
        mend: |_| {
            run(
                "wait --for=delete pod -l app.kubernetes.io/name=mcp-gateway-operator -n mcp-system --timeout=60s",
            )
        },
    },
    Fault {
        name: "no Envoy filter",
        plant: |_| delete("envoyfilter --all -n doctor-gw").map(drop),
        check: "filter",
        fix: "start the operator",
        mend: |_| Ok(()),
    },
    Fault {
        name: "no permissions",
        plant: |_| delete("clusterrolebinding mcp-gateway-controller").map(drop),
        check: "rbac",
        fix: "kubectl apply -k config/rbac",
        mend: |_| Ok(()),
    },
    Fault {
        name: "a webhook that cannot be verified",
        plant: |_| replace("mutatingwebhookconfiguration mcp-gateway-webhook", CA, "\"\""),
        check: "certificate",
        fix: "restart the operator",
        mend: |_| Ok(()),
    },
    Fault {
        name: "no webhook",
        plant: |_| run("scale deployment mcp-gateway-webhook -n mcp-system --replicas=0"),
        check: "webhook",
        fix: "kubectl scale deployment/mcp-gateway-webhook -n mcp-system --replicas=1",
        mend: |_| Ok(()),
    },
    Fault {
        name: "nobody who decides",
        plant: |_| delete("validatingwebhookconfiguration mcp-gateway-webhook").map(drop),
        check: "webhook",
        fix: "apply it again: kubectl apply -k config/install",
        mend: |_| Ok(()),
    },
];

fn findings() -> anyhow::Result<Vec<Value>> {
    let output = mcpgw(&["doctor", "-o", "json"])?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("doctor: {}", String::from_utf8_lossy(&output.stderr)))
}

fn text<'a>(finding: &'a Value, member: &str) -> &'a str {
    finding[member].as_str().unwrap_or_default()
}

/// Whether something is wrong with this site or the installation; other tests have sites, too.
fn is_trouble_here(finding: &Value) -> bool {
    let object = text(finding, "object");
    let theirs = object.contains('/') && !object.contains(" doctor") && !object.contains(" mcp-system");
    ["problem", "warning"].contains(&text(finding, "verdict")) && !theirs
}

/// Waits until the doctor says what it should say of a fault, or no longer says it.
async fn said(fault: &Fault, wanted: bool) -> anyhow::Result<()> {
    let awaited = format!("the doctor to find: {} ({wanted})", fault.name);
    let seen = async || {
        let all = findings().map_err(|error| format!("{error:#}"))?;
        let known = all.iter().any(|finding| {
            is_trouble_here(finding)
                && text(finding, "check") == fault.check
                && text(finding, "fix").contains(fault.fix)
        });
        (known == wanted)
            .then_some(())
            .ok_or_else(|| Value::from(all).to_string())
    };
    Ok(eventually(LIMIT, &awaited, seen).await?)
}

/// Nothing that concerns this site or the installation is wrong.
async fn healthy() -> anyhow::Result<()> {
    let quiet = async || {
        let all = findings().map_err(|error| format!("{error:#}"))?;
        let wrong: Vec<Value> = all.into_iter().filter(is_trouble_here).collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Value::from(wrong).to_string())
        }
    };
    Ok(eventually(LIMIT, "the doctor to find nothing", quiet).await?)
}

async fn each(site: &Site, faults: &[Fault]) -> anyhow::Result<()> {
    for fault in faults {
        // Or the finding would be about something else.
        said(fault, false).await?;
        (fault.plant)(site).context(fault.name)?;
        said(fault, true).await?;
        (fault.mend)(site).context(fault.name)?;
    }
    Ok(())
}

/// One route more, for a second registration.
fn twin() -> anyhow::Result<()> {
    apply(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: twin, namespace: doctor-servers}, spec: {\
        parentRefs: [{name: gw, namespace: doctor-gw, sectionName: mcps}], hostnames: [twin.doctor.local], \
        rules: [{backendRefs: [{name: one, port: 8000}]}]}}",
    )
    .map(drop)
}

#[tokio::test]
async fn the_doctor_finds_each_planted_fault_and_names_the_fix() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("doctor")?;
    apply(&site.extension("doctor", "ext", "mcp", ""))?;
    site.server("one")?;
    twin()?;
    site.register("one", "one_")?;
    site.wait_ready("mcpge/ext -n doctor")?;
    site.wait_ready("mcpsr/one -n doctor-servers")?;
    healthy().await?;
    each(&site, &AROUND_THE_GATEWAY).await?;
    each(&site, &AROUND_THE_SERVERS).await?;
    healthy().await?;
    each(&site, &AROUND_THE_INSTALLATION).await?;
    run(&format!(
        "apply -k {}/../../config/install",
        env!("CARGO_MANIFEST_DIR")
    ))?;
    run(&format!(
        "wait --for=condition=Available deployment --all -n {OPERATOR_NAMESPACE} --timeout=90s"
    ))?;
    healthy().await
}
