//! The guides, followed literally, one after the other in one installation.

use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, GUIDE_HOST, McpClient, PUBLIC_PORT, Reader, delete, publish_host};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use crate::tls::Authority;

/// Held by the test that uses the namespaces of guides and samples.
static NAMES: Mutex<()> = Mutex::const_new(());

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

#[tokio::test]
async fn guides_hold_as_they_stand_one_after_the_other() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let _names = NAMES.lock().await;
    let reader = Reader::new("guides")?;
    let printed = reader.follow("docs/guides/install.md").await?;
    ensure!(printed.contains("protocolVersion"), "{printed}");
    let printed = reader.follow("docs/guides/first-server.md").await?;
    ensure!(
        printed.contains("weather_add") && printed.trim_end().ends_with("\n42"),
        "{printed}"
    );
    let printed = reader.follow("README.md").await?;
    ensure!(printed.contains("team-a/mcp-gateway"), "{printed}");
    let printed = reader.follow("docs/guides/cli.md").await?;
    ensure!(printed.contains("team-a/mcp-gateway"), "{printed}");
    let printed = reader.follow("docs/guides/oauth.md").await?;
    ensure!(
        printed.contains("https://idp.example.com/realms/mcp"),
        "{printed}"
    );
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
