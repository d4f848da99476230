//! The guides, followed literally, one after the other in one installation.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{
    Block, Cluster, GUIDE_HOST, McpClient, PUBLIC_PORT, Reader, apply, delete, kubectl, publish_address,
    publish_host,
};
use mcp_gateway_kit::{Program, eventually};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use crate::{monitors, tls::Authority};

/// Held by the test that uses the namespaces of guides and samples.
static NAMES: Mutex<()> = Mutex::const_new(());

/// How long a route may take from the API server to Envoy.
const IN_FORCE: Duration = Duration::from_secs(30);

/// Leaves nothing of the guides to other tests: their Gateway takes every host of `*.mcp.local`.
fn clean_up() -> anyhow::Result<()> {
    delete("namespace team-a mcp-servers gateway-system").map(drop)
}

/// How many keys the store of the guide has.
async fn stored_keys() -> anyhow::Result<u64> {
    let asked = async {
        let mut store = TcpStream::connect(("redis.team-a.svc.cluster.local", 6379)).await?;
        store.write_all(b"DBSIZE\r\n").await?;
        let mut answer = [0; 32];
        let length = store.read(&mut answer).await?;
        let text = std::str::from_utf8(answer.get(..length).unwrap_or_default())?;
        let number = text.trim().strip_prefix(':').context("no number")?;
        anyhow::Ok(number.parse()?)
    };
    timeout(Duration::from_secs(10), asked).await?
}

/// What the guide of sessions promises: what replicas remember of a session is in the store.
async fn sessions_are_shared() -> anyhow::Result<()> {
    publish_host(GUIDE_HOST, "mcp-gateway -n gateway-system").await?;
    let mut client = McpClient::new(&format!("http://{GUIDE_HOST}:{PUBLIC_PORT}/mcp"), GUIDE_HOST)?;
    let before = stored_keys().await?;
    client.initialize().await?;
    client
        .call("select_tools", json!({"tools": ["weather_add"]}))
        .await?;
    ensure!(
        stored_keys().await? > before,
        "the store knows no more than before"
    );
    for _ in 0..6 {
        // Whichever replica answers.
        let tools = client.server_tools().await?;
        ensure!(tools == ["weather_add"], "{tools:?}");
    }
    Ok(())
}

/// What a page of a browser sees once the routes of the guide are in force: each reply lets it read.
async fn pages_may_read(reader: &Reader) -> anyhow::Result<()> {
    let lines = r#"ask() { curl -si --fail --max-time 20 -H 'Origin: https://chat.example.com' -H 'Content-Type: application/json' \
             -H 'Accept: application/json, text/event-stream' "$@" http://mcp.example.com:8080/mcp; }
           opened=$(ask -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"page","version":"1"}}}')
           session=$(sed -n 's/^mcp-session-id: *\([^\r]*\).*/\1/Ip' <<<"$opened")
           called=$(ask -H "Mcp-Session-Id: $session" -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"weather_add","arguments":{"a":19,"b":23}}}')
           grep -i '^access-control-allow-origin: https://chat.example.com' <<<"$opened"
           grep -i '^access-control-allow-origin: https://chat.example.com' <<<"$called"
           grep -oE '"text": ?"42"' <<<"$called""#;
    let seen = async || reader.shell(lines).map_err(|error| format!("{error:#}"));
    eventually(IN_FORCE, "a page to read both replies", seen).await?;
    Ok(())
}

/// The guide of listeners, with a look at the moment when the browser's preflight is answered.
async fn listeners(reader: &Reader) -> anyhow::Result<()> {
    publish_host(GUIDE_HOST, "mcp-gateway -n gateway-system").await?;
    for block in Reader::blocks("docs/guides/gateway-listeners.md")? {
        if !matches!(&block, Block::Shell(lines) if lines.contains("OPTIONS")) {
            reader.run(&block)?;
            continue;
        }
        // The routes reach Envoy one after the other.
        let asked = async || {
            let printed = reader.run(&block).map_err(|error| format!("{error:#}"))?;
            let allowed = "access-control-allow-methods: get, post";
            if printed.to_lowercase().contains(allowed) {
                Ok(())
            } else {
                Err(printed)
            }
        };
        eventually(
            IN_FORCE,
            "the preflight to be answered by the guide's route",
            asked,
        )
        .await?;
        pages_may_read(reader).await?;
    }
    Ok(())
}

#[tokio::test]
async fn guides_hold_as_they_stand_one_after_the_other() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let _names = NAMES.lock().await;
    let reader = Reader::new("guides")?;
    for (page, expected) in [
        ("docs/guides/install.md", "protocolVersion"),
        ("docs/guides/first-server.md", "\n42\n"),
        ("README.md", "team-a/mcp-gateway"),
        ("docs/guides/cli.md", "team-a/mcp-gateway"),
        ("docs/guides/revisions.md", "modern 2026-07-28"),
        ("docs/guides/oauth.md", "https://idp.example.com/realms/mcp"),
    ] {
        let printed = reader.follow(page).await?;
        ensure!(printed.contains(expected), "{page}: {printed}");
    }
    listeners(&reader).await?;
    for page in [
        "direct",
        "external-servers",
        "observability",
        "upgrade",
        "sessions",
    ] {
        reader.follow(&format!("docs/guides/{page}.md")).await?;
    }
    sessions_are_shared().await?;
    monitors::lead_to_metrics("team-a").await?;
    let authority = Authority::new()?.pem();
    reader.shell(&format!("cat > ~/ca.pem <<'END'\n{authority}END"))?;
    reader.follow("docs/guides/tls.md").await?;
    clean_up()
}

#[tokio::test]
async fn the_example_of_access_control_lets_in_whom_it_names() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let _names = NAMES.lock().await;
    let printed = Reader::new("access")?.shell("test/demo/oauth.sh kit")?;
    ensure!(
        printed.contains("https://sso.example.com/realms/mcp") && printed.contains("\n42\n"),
        "{printed}"
    );
    clean_up()
}

#[tokio::test]
async fn guides_without_a_cluster_hold_as_they_stand() -> anyhow::Result<()> {
    let envoy = Program::Envoy.path().context("no Envoy: kit build envoy")?;
    let reader = Reader::new("without")?.with_programs(envoy.parent().context("no folder")?.to_owned());
    let printed = reader.follow("docs/guides/standalone.md").await?;
    ensure!(
        printed.contains("Hello, you!") && printed.contains("\n42\n"),
        "{printed}"
    );
    // The MCP server of the page: a pod is a machine with an address of its own.
    apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: elsewhere}}\n---\n\
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: weather, namespace: elsewhere}, spec: {\
        selector: {matchLabels: {app: weather}}, template: {metadata: {labels: {app: weather}}, spec: {containers: [{name: server, \
        image: 'ghcr.io/mcp-gateway-operator/sample-python:2.3.0', env: [{name: PORT, value: '8080'}], \
        ports: [{name: http, containerPort: 8080}], readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}}]}}}}",
    )?;
    kubectl("rollout status deployment/weather -n elsewhere --timeout=60s")?;
    let address = kubectl("get pods -n elsewhere -o jsonpath={.items[0].status.podIP}")?;
    publish_address("weather.example.com", address.trim().parse()?).await?;
    publish_address("mcp.127-0-0-1.sslip.io", [127, 0, 0, 1].into()).await?;
    let printed = reader.follow("docs/guides/envoy.md").await?;
    ensure!(
        printed.contains("weather_add") && printed.contains("\n42\n"),
        "{printed}"
    );
    delete("namespace elsewhere").map(drop)
}
