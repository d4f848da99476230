//! From registrations to the config document and back to their status, on a real API server.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::time::Duration;

use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl, kubectl_with, next_second};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// The document of a namespace.
pub(crate) fn document(namespace: &str) -> anyhow::Result<String> {
    let template = "go-template={{index .data \"config.yaml\" | base64decode}}";
    kubectl_with(
        &[
            "get",
            "secret",
            "mcp-gateway-config",
            "-n",
            namespace,
            "-o",
            template,
        ],
        "",
    )
}

/// Waits until the document holds exactly these of the servers `names` (in the namespace `<site>-servers`).
async fn servers_are(site: &str, wanted: &[&str]) -> anyhow::Result<()> {
    eventually(SOON, "the servers in the document", async || {
        let document = document(site).map_err(|error| format!("{error:#}"))?;
        let prefix = format!("- name: {site}-servers/");
        let found: Vec<&str> = document
            .lines()
            .filter_map(|line| line.strip_prefix(prefix.as_str()))
            .collect();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    Ok(())
}

/// Waits until the status of an object contains `text`.
async fn status_says(line: &str, text: &str) -> anyhow::Result<()> {
    eventually(SOON, text, async || {
        let found = get(line).map_err(|error| format!("{error:#}"))?["status"].to_string();
        if found.contains(text) { Ok(()) } else { Err(found) }
    })
    .await?;
    Ok(())
}

async fn site_with(name: &str, servers: &[&str]) -> anyhow::Result<Site> {
    let site = Site::create(name)?;
    apply(&site.extension(name, "ext", "mcp", ""))?;
    for server in servers {
        site.server(server)?;
    }
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    Ok(site)
}

#[tokio::test]
async fn t39_the_loser_of_a_prefix_is_left_out_until_the_winner_goes() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("prefix", &["one", "two"]).await?;
    site.register("one", "same_")?;
    site.wait_ready("mcpsr/one -n prefix-servers")?;
    next_second().await?;
    site.register("two", "same_")?;
    let message = site
        .wait_not_ready("mcpsr/two -n prefix-servers", "PrefixConflict")
        .await?;
    assert_eq!(
        message,
        "conflict: prefix same_ is used by MCPServerRegistration prefix-servers/one"
    );
    servers_are("prefix", &["one"]).await?;
    delete("mcpsr one -n prefix-servers")?;
    site.wait_ready("mcpsr/two -n prefix-servers")?;
    servers_are("prefix", &["two"]).await
}

#[tokio::test]
async fn t38_t51_an_entry_goes_with_its_route_and_our_mark_with_its_registration() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("gone", &["one", "two"]).await?;
    site.register("one", "one_")?;
    site.register("two", "two_")?;
    site.wait_ready("mcpsr --all -n gone-servers")?;
    let parents = |server: &str| -> anyhow::Result<Vec<Value>> {
        let route = get(&format!("httproute {server} -n gone-servers"))?;
        Ok(route["status"]["parents"].as_array().cloned().unwrap_or_default())
    };
    assert_eq!(parents("one")?.len(), 2, "Istio's entry and ours");
    delete("mcpsr one -n gone-servers")?;
    servers_are("gone", &["two"]).await?;
    eventually(SOON, "our mark to go", async || match parents("one") {
        Ok(left) if left.len() == 1 && left[0]["controllerName"] == "istio.io/gateway-controller" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    delete("httproute two -n gone-servers")?;
    servers_are("gone", &[]).await?;
    let message = site
        .wait_not_ready("mcpsr/two -n gone-servers", "NotReady")
        .await?;
    assert!(
        message.contains("HTTPRoute gone-servers/two not found"),
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn t16_a_service_that_comes_later_makes_the_registration_ready() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("later", &["one"]).await?;
    delete("service one -n later-servers")?;
    site.register("one", "one_")?;
    let message = site
        .wait_not_ready("mcpsr/one -n later-servers", "NotReady")
        .await?;
    assert!(
        message.contains("service later-servers/one not found"),
        "{message}"
    );
    site.server("one")?;
    servers_are("later", &["one"]).await?;
    site.wait_ready("mcpsr/one -n later-servers")
}

#[tokio::test]
async fn t53_a_credential_is_taken_from_a_labelled_secret_only_and_is_seen_nowhere_else() -> anyhow::Result<()>
{
    let _cluster = Cluster::ready().await?;
    let site = site_with("cred", &["one"]).await?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, metadata: {name: one, namespace: cred-servers}, \
        spec: {targetRef: {name: one}, prefix: one_, credentialRef: {name: token}}}",
    )?;
    status_says("mcpsr one -n cred-servers", "secret cred-servers/token not found").await?;
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: cred-servers}, stringData: {token: Bearer abc}}",
    )?;
    status_says(
        "mcpsr one -n cred-servers",
        "missing required label mcp.kuadrant.io/secret=true",
    )
    .await?;
    kubectl("label secret token -n cred-servers mcp.kuadrant.io/secret=true")?;
    site.wait_ready("mcpsr/one -n cred-servers")?;
    assert!(document("cred")?.contains("credential: Bearer abc"));
    nowhere_else("Bearer abc", "cred").await
}

/// Fails when `credential` is in a status, an Event, a log or a metric (T53).
async fn nowhere_else(credential: &str, site: &str) -> anyhow::Result<()> {
    let operator = "-n mcp-system -l app.kubernetes.io/name=mcp-gateway-operator";
    let pods = get(&format!("pods {operator} --field-selector=status.phase=Running"))?;
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap_or_default();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let metrics = http
        .get(format!("http://{address}:8082/metrics"))
        .timeout(Duration::from_secs(5));
    let places = [
        (
            "log of the operator",
            kubectl(&format!("logs {operator} --tail=-1"))?,
        ),
        (
            "log of the broker",
            kubectl(&format!(
                "logs -n {site} -l app.kubernetes.io/name=mcp-gateway --tail=-1"
            ))?,
        ),
        ("metrics", metrics.send().await?.text().await?),
        ("Events", get("events -A")?.to_string()),
        (
            "status of registrations",
            get(&format!("mcpsr -n {site}-servers"))?.to_string(),
        ),
        (
            "status of extensions",
            get(&format!("mcpge -n {site}"))?.to_string(),
        ),
    ];
    for (place, text) in places {
        anyhow::ensure!(!text.is_empty(), "{place} is empty");
        anyhow::ensure!(!text.contains(credential), "the credential is in the {place}");
    }
    Ok(())
}

#[tokio::test]
async fn t45_virtual_servers_are_written_as_a_whole() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("virtual", &["one"]).await?;
    site.register("one", "one_")?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPVirtualServer, metadata: {name: some, namespace: virtual-servers}, \
        spec: {tools: [one_add, one_nothing], prompts: []}}",
    )?;
    site.wait_ready("mcpvs/some -n virtual-servers")?;
    let resolved = eventually(SOON, "the tools to be resolved", async || {
        let found = get("mcpvs some -n virtual-servers").map_err(|error| format!("{error:#}"))?;
        if found["status"]["resolvedTools"] == 1 {
            Ok(found)
        } else {
            Err(found["status"].to_string())
        }
    });
    let conditions = resolved.await?["status"]["conditions"].to_string();
    assert!(
        conditions.contains("nobody publishes: one_nothing"),
        "{conditions}"
    );
    assert!(document("virtual")?.contains("name: virtual-servers/some"));
    delete("mcpvs some -n virtual-servers")?;
    eventually(SOON, "the document without it", async || {
        match document("virtual") {
            Ok(found) if !found.contains("virtual-servers/some") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn t32_a_foreign_config_secret_is_named_and_one_of_an_older_install_is_adopted() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("adopt")?;
    let secret = "secret mcp-gateway-config -n adopt";
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: mcp-gateway-config, namespace: adopt}, stringData: {config.yaml: mine}}",
    )?;
    let before = get(secret)?;
    apply(&site.extension("adopt", "ext", "mcp", ""))?;
    let message = site
        .wait_not_ready("mcpge/ext -n adopt", "InvalidMCPGatewayExtension")
        .await?;
    assert!(
        message.contains("conflict: Secret adopt/mcp-gateway-config exists and is not controlled"),
        "{message}"
    );
    assert_eq!(get(secret)?, before);
    kubectl("label secret mcp-gateway-config -n adopt mcp.kuadrant.io/aggregated=true")?;
    site.wait_ready("mcpge/ext -n adopt")?;
    let adopted = get(secret)?;
    assert_eq!(adopted["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["name"], "ext");
    assert!(document("adopt")?.contains("servers: []"));
    Ok(())
}

/// What the brokers of a namespace have loaded, and which processes they are.
async fn brokers_report(namespace: &str, secret_hash: &str) -> anyhow::Result<Vec<String>> {
    let line = format!("pods -n {namespace} -l app.kubernetes.io/name=mcp-gateway");
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut processes = Vec::new();
    for pod in get(&line)?["items"].as_array().cloned().unwrap_or_default() {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let request = http
            .get(format!("http://{address}:8080/status"))
            .timeout(Duration::from_secs(3));
        let status: Value = request.send().await?.json().await?;
        anyhow::ensure!(status["config"]["hash"] == secret_hash, "{}", status["config"]);
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        processes.push(format!("{} {restarts}", pod["metadata"]["uid"]));
    }
    Ok(processes)
}

fn hash_of(namespace: &str) -> anyhow::Result<String> {
    let document = document(namespace)?;
    let hash = document.lines().find_map(|line| line.strip_prefix("hash: "));
    Ok(hash.unwrap_or_default().trim_matches(['"', '\'']).to_owned())
}

#[tokio::test]
async fn t43_every_edit_reaches_the_running_broker() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("edits", &["one"]).await?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n edits-servers")?;
    let authority = rcgen::generate_simple_self_signed(vec!["one.edits.example".to_owned()])?;
    for (secret, key, value) in [
        ("first", "token", "a"),
        ("second", "token", "b"),
        ("authority", "ca.crt", authority.cert.pem().as_str()),
    ] {
        let labels = json!({"mcp.kuadrant.io/secret": "true"});
        let object = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {key: value},
            "metadata": {"name": secret, "namespace": "edits-servers", "labels": labels}});
        apply(&object.to_string())?;
    }
    let processes = brokers_report("edits", &hash_of("edits")?).await?;
    let spec = |edit: Value| ("mcpsr/one", json!({"spec": edit}));
    let edits = [
        spec(json!({"category": ["weather"]})),
        spec(json!({"hint": "rain"})),
        spec(json!({"tags": ["wet"]})),
        spec(json!({"credentialRef": {"name": "first"}})),
        spec(json!({"credentialRef": {"name": "second"}})),
        ("secret/second", json!({"stringData": {"token": "c"}})),
        spec(json!({"caCertSecretRef": {"name": "authority"}})),
        spec(json!({"state": "Disabled"})),
        spec(json!({"state": "Enabled"})),
    ];
    for (what, edit) in edits {
        let before = hash_of("edits")?;
        let patch = edit.to_string();
        kubectl_with(
            &[
                "patch",
                what,
                "-n",
                "edits-servers",
                "--type",
                "merge",
                "-p",
                &patch,
            ],
            "",
        )?;
        let served = eventually(SOON, &patch, async || {
            let hash = hash_of("edits").map_err(|error| format!("{error:#}"))?;
            if hash == before {
                return Err("the document is not written yet".to_owned());
            }
            brokers_report("edits", &hash)
                .await
                .map_err(|error| format!("{error:#}"))
        });
        assert_eq!(served.await?, processes, "{edit}: no pod was restarted");
    }
    Ok(())
}

#[tokio::test]
async fn t44_a_deleted_extension_takes_its_config_along_and_its_namespace_is_left_alone() -> anyhow::Result<()>
{
    let _cluster = Cluster::ready().await?;
    let site = site_with("left", &["one", "two"]).await?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n left-servers")?;
    delete("mcpge ext -n left")?;
    eventually(SOON, "the children to be collected", async || {
        let left = kubectl("get secret,deployment,service,httproute -n left -o name");
        let left = left.map_err(|error| format!("{error:#}"))?;
        if left.contains("mcp-gateway") {
            Err(left)
        } else {
            Ok(())
        }
    })
    .await?;
    let kit = Kit::from_env()?;
    let mark = kit.audit_mark()?;
    site.register("two", "two_")?;
    delete("mcpsr one -n left-servers")?;
    status_says(
        "mcpsr two -n left-servers",
        "no valid mcpgatewayextensions configured for gateway left-gw/gw",
    )
    .await?;
    let writes = kit.writes_since(mark)?;
    let here: Vec<_> = writes
        .iter()
        .filter(|write| write.namespace == "left" && write.user.ends_with(":mcp-gateway-controller"))
        .collect();
    assert!(here.is_empty(), "{here:?}");
    Ok(())
}

#[tokio::test]
async fn t49_no_object_is_without_a_verdict_and_every_column_has_a_value() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = site_with("columns", &["one", "two"]).await?;
    apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: token, namespace: columns-servers, labels: {mcp.kuadrant.io/secret: 'true'}}, stringData: {token: a}}",
    )?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, metadata: {name: one, namespace: columns-servers}, \
        spec: {targetRef: {name: one}, prefix: one_, credentialRef: {name: token}}}",
    )?;
    apply(
        "{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPVirtualServer, metadata: {name: some, namespace: columns-servers}, \
        spec: {tools: [one_add]}}",
    )?;
    site.wait_ready("mcpsr/one -n columns-servers")?;
    site.wait_ready("mcpvs/some -n columns-servers")?;
    status_says("mcpvs some -n columns-servers", "\"resolvedTools\":1").await?;
    for what in [
        "mcpge ext -n columns",
        "mcpsr one -n columns-servers",
        "mcpvs some -n columns-servers",
    ] {
        let table = kubectl(&format!("get {what} -o wide"))?;
        let mut lines = table.lines().map(|line| line.split_whitespace().count());
        let (columns, values) = (lines.next(), lines.next());
        assert!(columns == values && !table.contains("<none>"), "{table}");
    }
    kubectl(
        "patch httproute two -n columns-servers --type=json -p=[{\"op\":\"replace\",\"path\":\"/spec/parentRefs/0/sectionName\",\"value\":\"other\"},{\"op\":\"replace\",\"path\":\"/spec/hostnames/0\",\"value\":\"two.columns.other\"}]",
    )?;
    site.register("two", "two_")?;
    status_says(
        "mcpsr two -n columns-servers",
        "no matching mcpgatewayextensions for attached listener",
    )
    .await
}
