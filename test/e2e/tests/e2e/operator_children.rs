//! Children of an extension on a real API server: foreign objects, user patches, repairs, and no write that is not needed.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::time::Duration;

use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl, kubectl_with};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

/// Long enough for the operator to see a change and answer it.
const SOON: Duration = Duration::from_secs(20);

/// Waits until `check` accepts the object that `line` names.
async fn until(line: &str, what: &str, check: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let object = eventually(SOON, what, async || {
        let object = get(line).map_err(|error| format!("{error:#}"))?;
        if check(&object) {
            Ok(object)
        } else {
            Err(object.to_string())
        }
    });
    Ok(object.await?)
}

async fn ready_site(name: &str) -> anyhow::Result<Site> {
    let site = Site::create(name)?;
    apply(&site.extension(name, "ext", "mcp", ""))?;
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    Ok(site)
}

fn patch(what: &str, kind: &str, patch: &Value) -> anyhow::Result<String> {
    let mut words = vec!["patch"];
    words.extend(what.split_whitespace());
    let patch = patch.to_string();
    words.extend(["--type", kind, "-p", &patch]);
    kubectl_with(&words, "")
}

fn container<'a>(deployment: &'a Value, name: &str) -> &'a Value {
    let containers = deployment["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("containers");
    containers
        .iter()
        .find(|container| container["name"] == name)
        .expect("the container")
}

#[tokio::test]
async fn t17_a_foreign_object_is_left_unchanged_and_named_until_it_goes() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("foreign")?;
    apply(
        "{apiVersion: v1, kind: Service, metadata: {name: mcp-gateway, namespace: foreign}, \
        spec: {selector: {app: mine}, ports: [{port: 80}]}}",
    )?;
    let before = get("service mcp-gateway -n foreign")?;
    apply(&site.extension("foreign", "ext", "mcp", ""))?;
    let message = site
        .wait_not_ready("mcpge/ext -n foreign", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict: Service foreign/mcp-gateway exists and is not controlled"),
        "{message}"
    );
    assert_eq!(get("service mcp-gateway -n foreign")?, before);
    delete("service mcp-gateway -n foreign")?;
    site.wait_ready("mcpge/ext -n foreign")
}

#[tokio::test]
async fn t18_t20_t24_a_users_patches_survive_a_spec_change() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("patches").await?;
    let sidecar = json!({"name": "sidecar", "image": "ghcr.io/mcp-gateway-operator/sample-python:2.3.0", "command": ["sleep", "3600"]});
    let changes = json!([
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/metadata/labels/team", "value": "blue"},
        {"op": "add", "path": "/spec/template/spec/tolerations", "value": [{"key": "gpu", "operator": "Exists"}]},
        {"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": "--log-format"},
        {"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": "json"},
        {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "CACHE_CONNECTION_STRING", "value": ""}},
        {"op": "add", "path": "/spec/template/spec/containers/0/resources", "value": {"limits": {"memory": "256Mi"}}},
        {"op": "add", "path": "/spec/template/spec/containers/0/readinessProbe/periodSeconds", "value": 3},
    ]);
    patch("deployment mcp-gateway -n patches", "json", &changes)?;
    let first = json!([{"op": "add", "path": "/spec/template/spec/containers/0", "value": sidecar}]);
    patch("deployment mcp-gateway -n patches", "json", &first)?;
    patch(
        "mcpge ext -n patches",
        "merge",
        &json!({"spec": {"backendPingIntervalSeconds": 30, "logLevel": "warn"}}),
    )?;
    let changed = until(
        "deployment mcp-gateway -n patches",
        "the change in the Deployment",
        |deployment| {
            container(deployment, "mcp-gateway")["command"]
                .to_string()
                .contains("--mcp-check-interval=30")
        },
    );
    let deployment = changed.await?;
    let ours = container(&deployment, "mcp-gateway");
    let command = ours["command"].to_string();
    assert!(
        command.contains(r#""--log-level=4""#) && command.ends_with(r#""--log-format","json"]"#),
        "{command}"
    );
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["labels"]["team"], "blue");
    assert_eq!(
        deployment["spec"]["template"]["spec"]["tolerations"][0]["key"],
        "gpu"
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["name"],
        "sidecar"
    );
    assert_eq!(
        container(&deployment, "sidecar")["command"],
        json!(["sleep", "3600"])
    );
    assert_eq!(ours["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(ours["readinessProbe"]["periodSeconds"], 3);
    assert!(
        ours["env"].to_string().contains("CACHE_CONNECTION_STRING"),
        "{ours}"
    );
    Ok(())
}

#[tokio::test]
async fn t23_setting_and_unsetting_a_field_removes_only_our_flag() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("unset").await?;
    let set = json!({"spec": {"maxBodyBytes": 8_388_608, "urlElicitation": "Enabled"}});
    patch("mcpge ext -n unset", "merge", &set)?;
    let has = |deployment: &Value, flag: &str| {
        container(deployment, "mcp-gateway")["command"]
            .to_string()
            .contains(flag)
    };
    until("deployment mcp-gateway -n unset", "the flags", |found| {
        has(found, "--max-request-body-size=8388608") && has(found, "--enable-url-elicitation")
    })
    .await?;
    until(
        "httproute mcp-gateway-tokens-route -n unset",
        "the token route",
        |_| true,
    )
    .await?;
    until(
        "envoyfilter mcp-ext-proc-unset-gateway -n unset-gw",
        "the buffer",
        |filter| filter["spec"]["configPatches"].to_string().contains("8454144"),
    )
    .await?;
    patch(
        "mcpge ext -n unset",
        "merge",
        &json!({"spec": {"maxBodyBytes": null, "urlElicitation": "Disabled"}}),
    )?;
    until("deployment mcp-gateway -n unset", "the flags to go", |found| {
        !has(found, "--max-request-body-size") && !has(found, "--enable-url-elicitation")
    })
    .await?;
    eventually(SOON, "the token route to go", async || {
        match get("httproute mcp-gateway-tokens-route -n unset") {
            Ok(route) => Err(route.to_string()),
            Err(_) => Ok(()),
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t26_a_converged_namespace_is_never_written_whatever_is_evaluated() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("still").await?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n still-servers")?;
    patch(
        "service mcp-gateway -n still",
        "merge",
        &json!({"spec": {"type": "NodePort"}}),
    )?;
    let mut quiet = Kit::from_env()?.audit_mark()?;
    eventually(
        Duration::from_secs(60),
        "five seconds without a write",
        async || {
            tokio::time::timeout(Duration::from_secs(5), std::future::pending::<()>())
                .await
                .ok();
            let writes = ours("still", quiet).map_err(|error| format!("{error:#}"))?;
            quiet = Kit::from_env()
                .and_then(|kit| kit.audit_mark())
                .map_err(|error| error.to_string())?;
            if writes.is_empty() {
                Ok(())
            } else {
                Err(writes.join(", "))
            }
        },
    )
    .await?;
    for turn in 0..10 {
        for what in [
            "mcpge/ext -n still",
            "mcpsr/one -n still-servers",
            "service/mcp-gateway -n still",
        ] {
            kubectl(&format!("annotate --overwrite {what} turn={turn}"))?;
        }
        tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>())
            .await
            .ok();
    }
    let writes = ours("still", quiet)?;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(
        get("service mcp-gateway -n still")?["spec"]["type"],
        "NodePort",
        "t25"
    );
    Ok(())
}

/// Writes of the operator since `mark` into the namespaces of a site.
fn ours(site: &str, mark: mcp_gateway_kit::AuditMark) -> anyhow::Result<Vec<String>> {
    let writes = Kit::from_env()?.writes_since(mark)?;
    let controller = writes
        .iter()
        .filter(|write| write.user.ends_with(":mcp-gateway-controller"));
    let here = controller.filter(|write| write.namespace.starts_with(site));
    Ok(here
        .map(|write| {
            format!(
                "{} {} {}/{}",
                write.verb, write.resource, write.namespace, write.name
            )
        })
        .collect())
}

#[tokio::test]
async fn t28_deleted_and_edited_children_are_restored() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("repair").await?;
    let filter = "envoyfilter mcp-ext-proc-repair-gateway -n repair-gw";
    let wanted = get(filter)?["spec"].clone();
    let edit = json!({
        "metadata": {"annotations": {"mine": "yes"}, "labels": {"also": "mine"}},
        "spec": {"priority": 1, "workloadSelector": {"labels": {"app": "else"}}},
    });
    patch(filter, "merge", &edit)?;
    let repaired = until(filter, "the EnvoyFilter to be repaired", |found| {
        found["spec"] == wanted
    })
    .await?;
    assert_eq!(repaired["metadata"]["annotations"]["mine"], "yes");
    assert_eq!(repaired["metadata"]["labels"]["also"], "mine");
    patch(
        "role mcp-gateway -n repair",
        "json",
        &json!([{"op": "remove", "path": "/rules"}]),
    )?;
    until("role mcp-gateway -n repair", "the Role's rules", |role| {
        !role["rules"].is_null()
    })
    .await?;
    for child in [
        "service",
        "serviceaccount",
        "role",
        "rolebinding",
        "networkpolicy",
        "deployment",
    ] {
        let line = format!("{child} mcp-gateway -n repair");
        let uid = get(&line)?["metadata"]["uid"].clone();
        delete(&line)?;
        until(&line, &format!("{child} to be restored"), |found| {
            found["metadata"]["uid"] != uid
        })
        .await?;
    }
    for line in [
        "httproute mcp-gateway-route -n repair",
        filter,
        "secret mcp-gateway-config -n repair",
    ] {
        delete(line)?;
        until(line, &format!("{line} to be restored"), |_| true).await?;
    }
    Ok(())
}

#[tokio::test]
async fn t31_deleting_the_signing_key_gives_one_new_key_and_one_rollout() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("signing").await?;
    let line = "secret mcp-gateway-session-signing-key -n signing";
    let old = get(line)?["data"]["key"].clone();
    let generation = get("deployment mcp-gateway -n signing")?["metadata"]["generation"].clone();
    delete(line)?;
    let new = until(line, "a new key", |secret| secret["data"]["key"] != old).await?;
    assert_eq!(
        new["data"]["key"].as_str().map(str::len),
        Some(88),
        "64 hex digits in base64"
    );
    let rolled = until("deployment mcp-gateway -n signing", "a rollout", |found| {
        found["metadata"]["generation"] != generation
    });
    let rolled = rolled.await?["metadata"]["generation"].as_i64();
    assert_eq!(rolled, generation.as_i64().map(|generation| generation + 1));
    kubectl("rollout status deployment/mcp-gateway -n signing --timeout=90s")?;
    site.wait_ready("mcpge/ext -n signing")?;
    assert_eq!(get(line)?["data"], new["data"]);
    assert_eq!(
        get("deployment mcp-gateway -n signing")?["metadata"]["generation"].as_i64(),
        rolled
    );
    Ok(())
}

#[tokio::test]
async fn t33_unmanaged_routes_stay_and_are_managed_again() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("unmanaged").await?;
    let line = "httproute mcp-gateway-route -n unmanaged";
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"httpRouteManagement": "Disabled"}}),
    )?;
    until("mcpge ext -n unmanaged", "the change to be seen", |found| {
        found["status"]["conditions"][0]["observedGeneration"] == found["metadata"]["generation"]
    })
    .await?;
    patch(line, "merge", &json!({"spec": {"hostnames": ["other.example"]}}))?;
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"backendPingIntervalSeconds": 30}}),
    )?;
    until(
        "deployment mcp-gateway -n unmanaged",
        "another evaluation",
        |found| found.to_string().contains("--mcp-check-interval=30"),
    )
    .await?;
    assert_eq!(get(line)?["spec"]["hostnames"], json!(["other.example"]));
    patch(
        "mcpge ext -n unmanaged",
        "merge",
        &json!({"spec": {"httpRouteManagement": "Enabled"}}),
    )?;
    until(line, "the route to be managed again", |route| {
        route["spec"]["hostnames"] == json!(["mcp.unmanaged.example"])
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t29_a_users_secret_is_never_changed_by_key_generation() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("pair")?;
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: trusted, namespace: pair}, stringData: {key: mine}}",
    )?;
    let before = get("secret trusted -n pair")?;
    let more = "trustedHeadersKey: {secretName: trusted, generate: Enabled}";
    apply(&site.extension("pair", "ext", "mcp", more))?;
    let message = site
        .wait_not_ready("mcpge/ext -n pair", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict: Secret pair/trusted exists"),
        "{message}"
    );
    assert_eq!(get("secret trusted -n pair")?, before);
    delete("secret trusted -n pair")?;
    site.wait_ready("mcpge/ext -n pair")?;
    let public = get("secret trusted -n pair")?;
    delete("secret trusted -n pair")?;
    let again = until("secret trusted -n pair", "the public half", |_| true).await?;
    assert_eq!(
        again["data"], public["data"],
        "derived again from the private half"
    );
    Ok(())
}

#[tokio::test]
async fn t27_no_patch_is_lost_between_our_read_and_our_write() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("race").await?;
    for turn in 0..10 {
        let flag = json!([{"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": format!("--log-format=json{turn}")}]);
        let interval = json!({"spec": {"backendPingIntervalSeconds": 30 + turn}});
        let users =
            tokio::task::spawn_blocking(move || patch("deployment mcp-gateway -n race", "json", &flag));
        let spec = tokio::task::spawn_blocking(move || patch("mcpge ext -n race", "merge", &interval));
        users.await??;
        spec.await??;
    }
    let last = until(
        "deployment mcp-gateway -n race",
        "the last interval",
        |deployment| {
            container(deployment, "mcp-gateway")["command"]
                .to_string()
                .contains("--mcp-check-interval=39")
        },
    );
    let command = container(&last.await?, "mcp-gateway")["command"].to_string();
    for turn in 0..10 {
        assert!(
            command.contains(&format!("--log-format=json{turn}\"")),
            "{turn}: {command}"
        );
    }
    Ok(())
}

/// Two public keys on P-256.
const PUBLIC_KEYS: [&str; 2] = [
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJdqnMnB+iPMbv9iqhvZT0l5jBStn\nsSbD6y7RkU9AtXqbfiYKv9wQiLrqU23U22YYoPwHuqEBoDk2ghNMpCNaCA==\n-----END PUBLIC KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4xz9uhYJWB4uZqscAcAsg16Sum28\nM3mHLlue36CZSukly4w8YZNWPcFsLvlmmGP3Lb3kpledBsS5iMR3G4ahfg==\n-----END PUBLIC KEY-----\n",
];

#[tokio::test]
async fn t30_a_named_secret_is_waited_for_and_an_edit_rolls_the_pods_once() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("named")?;
    apply(&site.extension("named", "ext", "mcp", "trustedHeadersKey: {secretName: trusted}"))?;
    let message = site
        .wait_not_ready("mcpge/ext -n named", "SecretNotFound")
        .await?;
    assert!(
        message.contains("secret named/trusted not found (spec.trustedHeadersKey.secretName)"),
        "{message}"
    );
    let secret = |key: &str| {
        let data = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trusted", "namespace": "named"},
            "stringData": {"key": key}});
        apply(&data.to_string())
    };
    secret(PUBLIC_KEYS[0])?;
    site.wait_ready("mcpge/ext -n named")?;
    let generation = get("deployment mcp-gateway -n named")?["metadata"]["generation"].as_i64();
    secret(PUBLIC_KEYS[1])?;
    let rolled = until("deployment mcp-gateway -n named", "a rollout", |found| {
        found["metadata"]["generation"].as_i64() != generation
    });
    assert_eq!(
        rolled.await?["metadata"]["generation"].as_i64(),
        generation.map(|generation| generation + 1)
    );
    delete("secret trusted -n named")?;
    site.wait_not_ready("mcpge/ext -n named", "SecretNotFound")
        .await?;
    assert!(
        get("envoyfilter mcp-ext-proc-named-gateway -n named-gw").is_ok(),
        "what runs is not removed"
    );
    Ok(())
}

#[tokio::test]
async fn t47_a_rolling_update_flips_no_condition() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = ready_site("rolling").await?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n rolling-servers")?;
    let flips = json!({"spec": {"backendPingIntervalSeconds": 31}});
    patch("mcpge ext -n rolling", "merge", &flips)?;
    let ready = |what: &str| -> anyhow::Result<Value> {
        let conditions = get(what)?["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(conditions
            .into_iter()
            .find(|condition| condition["type"] == "Ready")
            .unwrap_or_default())
    };
    let rolled = eventually(
        Duration::from_secs(90),
        "the rollout to be complete",
        async || {
            let registration = ready("mcpsr one -n rolling-servers").map_err(|error| format!("{error:#}"))?;
            let extension = ready("mcpge ext -n rolling").map_err(|error| format!("{error:#}"))?;
            if registration["status"] != "True" || extension["status"] != "True" {
                return Ok(Err(format!("{registration} {extension}")));
            }
            if extension["observedGeneration"] == 2 {
                Ok(Ok(()))
            } else {
                Err(extension.to_string())
            }
        },
    );
    rolled
        .await?
        .map_err(|flipped| anyhow::anyhow!("flipped: {flipped}"))
}

#[tokio::test]
async fn the_network_policy_goes_and_comes_with_its_field() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    ready_site("policed").await?;
    let manage = |management: &str| {
        let spec = json!({"spec": {"networkPolicyManagement": management}});
        patch("mcpge ext -n policed", "merge", &spec)
    };
    let line = "networkpolicy mcp-gateway -n policed";
    let policy = get(line)?;
    assert_eq!(
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"],
        "mcp-gateway"
    );
    manage("Disabled")?;
    eventually(SOON, "the NetworkPolicy to go", async || match get(line) {
        Ok(found) => Err(found["metadata"].to_string()),
        Err(_) => Ok(()),
    })
    .await?;
    manage("Enabled")?;
    until(line, "the NetworkPolicy to come back", |_| true).await?;
    Ok(())
}

#[tokio::test]
async fn t55_finalizers_of_an_older_install_are_taken_off() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    apply("{apiVersion: v1, kind: Namespace, metadata: {name: finals}}")?;
    let object = |kind: &str, spec: &str| {
        apply(&format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: {kind}, spec: {{{spec}}}, \
            metadata: {{name: old, namespace: finals, finalizers: [mcp.kuadrant.io/finalizer, example.com/mine]}}}}"
        ))
    };
    object("MCPServerRegistration", "targetRef: {name: none}")?;
    object("MCPVirtualServer", "tools: [a]")?;
    object("MCPAuthPolicy", "targetRefs: [{name: none}]")?;
    for kind in ["mcpsr", "mcpvs", "mcpap"] {
        let line = format!("{kind} old -n finals");
        until(&line, "our finalizer to be off", |found| {
            found["metadata"]["finalizers"] == json!(["example.com/mine"])
        })
        .await?;
        patch(&line, "merge", &json!({"metadata": {"finalizers": null}}))?;
        delete(&line)?;
    }
    Ok(())
}
