//! What the custom resources' own schema and CEL rules say and cost, without any webhook; and that admission never
//! makes a second apply of the same manifest differ.

use std::time::Duration;

use anyhow::ensure;
use mcp_gateway_e2e::{Cluster, Site, apply, dry_run, get, kubectl, kubectl_with, without_admission};
use mcp_gateway_kit::eventually;
use serde_json::{Value, json};

use crate::cases;

const SOON: Duration = Duration::from_secs(30);
const CRDS: [&str; 4] = [
    "mcpauthpolicies.mcp.kuadrant.io",
    "mcpgatewayextensions.mcp.kuadrant.io",
    "mcpserverregistrations.mcp.kuadrant.io",
    "mcpvirtualservers.mcp.kuadrant.io",
];

/// A text of `length` characters that begins with `n`, so that members of a set differ.
fn text(n: usize, length: usize) -> String {
    format!("{n:a>length$}")
}

fn texts(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| text(n, length)).collect()
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": kind,
        "metadata": {"name": "largest", "namespace": "largest"}, "spec": spec})
}

fn largest_extension() -> Value {
    let uri = |n: usize| format!("https://{}", text(n, 2040));
    let host = [text(0, 63), text(1, 63), text(2, 63), text(3, 61)].join(".");
    object(
        "MCPGatewayExtension",
        &json!({
            "targetRef": {"name": text(0, 253), "namespace": text(0, 63), "sectionName": text(0, 253)},
            "publicHost": host,
            "trustedHeadersKey": {"secretName": text(0, 253)},
            "sessionStore": {"secretName": text(1, 253)},
            "caCertBundleRef": {"name": text(2, 253), "key": text(2, 253)},
            "forwardHeadersFrom": texts(16, 63),
            "allowedOrigins": (0..64).map(|n| format!("https://{}", text(n, 63))).collect::<Vec<_>>(),
            "oauthProtectedResource": {
                "authorizationServers": (0..10).map(uri).collect::<Vec<_>>(),
                "resourceName": text(0, 253), "resource": uri(0),
                "bearerMethodsSupported": texts(10, 63), "scopesSupported": texts(50, 253),
            },
        }),
    )
}

fn largest_registration() -> Value {
    object(
        "MCPServerRegistration",
        &json!({
            "targetRef": {"name": text(0, 253), "namespace": text(0, 63)},
            "prefix": text(0, 64), "path": format!("/{}", text(0, 1023)),
            "credentialRef": {"name": text(0, 253), "key": text(0, 253)},
            "caCertSecretRef": {"name": text(0, 253), "key": text(0, 253)},
            "tokenURLElicitation": {"url": format!("https://{}", text(0, 2040))},
            "userSpecificList": "Enabled", "category": texts(3, 128), "hint": text(0, 256), "tags": texts(10, 128),
            "forwardHeaders": texts(16, 64),
        }),
    )
}

fn largest_virtual_server() -> Value {
    object(
        "MCPVirtualServer",
        &json!({"description": text(0, 1024), "tools": texts(1024, 128), "prompts": texts(1024, 128)}),
    )
}

/// As many members as every list takes; texts short of their bounds, because etcd takes 1.5 MiB.
fn largest_policy() -> Value {
    let target = |n: usize| json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": text(n, 253), "sectionName": text(n, 253)});
    let algorithms = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ];
    let provider = |n: usize| {
        json!({"name": text(n, 63), "issuer": text(n, 2048), "audiences": texts(16, 253), "algorithms": algorithms,
        "requiredScopes": texts(16, 63), "jwks": {"remote": {"url": format!("https://{}", text(n, 2040)), "caCertSecretRef": {"name": "ca"}}}})
    };
    let claim = |n: usize| json!({"jwt": {"claim": text(n, 16), "values": texts(64, 4)}});
    let rule = |n: usize| {
        json!({"name": text(n, 63), "resource": {"kind": "tool", "name": text(n, 128)},
        "matches": (0..16).map(claim).collect::<Vec<_>>()})
    };
    object(
        "MCPAuthPolicy",
        &json!({
            "targetRefs": (0..16).map(target).collect::<Vec<_>>(),
            "authentication": {"jwt": {"providers": (0..16).map(provider).collect::<Vec<_>>()}},
            "rules": (0..64).map(rule).collect::<Vec<_>>(),
        }),
    )
}

/// Runs `check` once the API server has no webhook configuration of ours any more.
async fn unseen(what: &str, check: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let attempt = async || check().map_err(|error| format!("{error:#}"));
    Ok(eventually(SOON, what, attempt).await?)
}

#[tokio::test]
async fn the_largest_objects_stay_within_the_cost_budget_of_cel_without_a_webhook() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: largest}}")?;
    for crd in CRDS {
        let conditions = get(&format!("crd {crd}"))?["status"]["conditions"].clone();
        let holds = |kind: &str, status: &str| {
            conditions.as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == kind && one["status"] == status)
            })
        };
        ensure!(holds("Established", "True"), "{crd}: {conditions}");
        ensure!(!holds("NonStructuralSchema", "True"), "{crd}: {conditions}");
    }
    without_admission()?;
    for largest in [
        largest_extension(),
        largest_registration(),
        largest_virtual_server(),
        largest_policy(),
    ] {
        let kind = largest["kind"].as_str().unwrap_or_default().to_owned();
        unseen(&kind, || dry_run(&largest.to_string()).map(drop)).await?;
    }
    // The budget is really held: the same schema with a rule that costs too much is refused.
    let mut crd = get(&format!("crd {}", CRDS[0]))?;
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["rules"]
        .as_object_mut()
        .unwrap()
        .remove("maxItems");
    spec["x-kubernetes-validations"] = json!([{"rule":
        "!has(self.rules) || self.rules.all(a, self.rules.all(b, self.rules.all(c, a.resource.name != b.resource.name || b == c)))"}]);
    let error = kubectl_with(&["replace", "--dry-run=server", "-f", "-"], &crd.to_string());
    let error = error.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains("budget"), "{error}");
    Ok(())
}

#[tokio::test]
async fn schema_and_cel_refuse_what_they_can_without_a_webhook() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| case.schema && case.old.is_none())
        .collect();
    ensure!(cases.len() >= 20, "{} cases", cases.len());
    without_admission()?;
    for case in &cases {
        let mut write = case.write.clone();
        write["metadata"]["namespace"] = json!("default");
        unseen(&case.name, || {
            let error = dry_run(&write.to_string())
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            ensure!(
                error.contains("is invalid") || error.contains("unknown field"),
                "{error}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Applies twice and asks `kubectl diff`, which ends with 1 when there is a difference; in both modes of apply.
fn applied_twice_is_the_same(manifest: &str) -> anyhow::Result<()> {
    let server_side: [&[&str]; 2] = [
        &[],
        &["--server-side", "--field-manager=gitops", "--force-conflicts"],
    ];
    for mode in server_side {
        let run = |verb: &str| kubectl_with(&[&[verb], mode, &["-f", "-"]].concat(), manifest);
        run("apply")?;
        run("diff")?;
        let kept = |object: &str| anyhow::Ok(get(object)?["metadata"]["resourceVersion"].clone());
        let name = "mcpsr same -n gitops-servers";
        let before = kept(name)?;
        run("apply")?;
        ensure!(kept(name)? == before, "the second apply wrote");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_apply_of_the_same_manifest_is_no_change() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("gitops")?;
    // Without the namespaces that the mutating webhook fills in.
    let ours = |kind: &str, name: &str, namespace: &str, spec: &Value| {
        json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        .to_string()
    };
    let manifest = [
        ours(
            "MCPGatewayExtension",
            "same",
            "gitops-gw",
            &json!({"targetRef": {"name": "gw", "sectionName": "mcp"}}),
        ),
        ours(
            "MCPServerRegistration",
            "same",
            "gitops-servers",
            &json!({"targetRef": {"name": "weather"}, "prefix": "w_"}),
        ),
        ours(
            "MCPVirtualServer",
            "same",
            "gitops-servers",
            &json!({"tools": ["w_forecast"]}),
        ),
        ours(
            "MCPAuthPolicy",
            "same",
            "gitops-gw",
            &json!({"targetRefs": [{"group": "mcp.kuadrant.io",
            "kind": "MCPGatewayExtension", "name": "same"}], "rules": []}),
        ),
    ]
    .join("\n---\n");
    apply(&manifest)?;
    // The operator's finalizer and status, too, are no difference.
    site.wait_ready("mcpge/same -n gitops-gw")?;
    let filled = get("mcpsr same -n gitops-servers")?["spec"]["targetRef"]["namespace"].clone();
    ensure!(
        filled == "gitops-servers",
        "the default was not filled in: {filled}"
    );
    applied_twice_is_the_same(&manifest)
}

#[tokio::test]
async fn t60_a_prefix_that_is_set_is_neither_taken_off_nor_changed_with_and_without_webhooks()
-> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: fixed}}")?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, metadata: {name: one, namespace: fixed},\
        spec: {targetRef: {name: one}, prefix: first_}}",
    )?;
    let patch = |prefix: &str| {
        format!("patch mcpsr one -n fixed --type=merge -p {{\"spec\":{{\"prefix\":{prefix}}}}}")
    };
    let keeps = |prefix: &str| {
        let error = kubectl(&patch(prefix)).err().map(|error| format!("{error:#}"));
        let error = error.unwrap_or_default();
        ensure!(
            error.contains("prefix is immutable once set"),
            "{prefix}: {error:?}"
        );
        Ok(())
    };
    let others = ["null", "\"\"", "\"second_\""];
    for prefix in others {
        keeps(prefix)?;
    }
    without_admission()?;
    for prefix in others {
        unseen("the prefix to be kept without a webhook", || keeps(prefix)).await?;
    }
    ensure!(get("mcpsr one -n fixed")?["spec"]["prefix"] == "first_");
    Ok(())
}
