//! From the start of the standalone gateway to the first answered call (P14).

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Plan,
    load::Connection,
    session,
    stage::{PUBLIC_HOST, Program, free, listening},
};
use crate::report::{Quantity, Row, Sample, Target};

const SERVERS: usize = 3;
const LIMIT: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(30);
/// Starts of one round.
const STARTS: usize = 4;

/// P14. A call counts, and not only `initialize`: it needs the list of the server.
pub(super) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let mock = free()?;
    let flags = ["mock", "--listen", &mock.to_string(), "--tools", "50"].map(str::to_owned);
    let _servers = Program::own(folder.path(), "mock", &flags)?;
    listening(mock).await?;
    let server = |number| json!({"name": format!("s{number}"), "prefix": format!("s{number}_"), "url": format!("http://{mock}/s/{number}/mcp")});
    let servers: Vec<_> = (0..SERVERS).map(server).collect();
    std::fs::write(
        folder.path().join("config.yaml"),
        json!({"servers": servers}).to_string(),
    )?;
    let mut times = Vec::new();
    for _ in 0..plan.rounds * STARTS {
        times.push(started(folder.path()).await?);
    }
    let times = Sample::new(times);
    Ok(vec![Row {
        what: format!("P14 start to first answered call, standalone, {SERVERS} servers"),
        values: times.summary(),
        target: Some(Target::below(
            Quantity::Time(times.percentile(50)),
            Quantity::Time(LIMIT),
        )),
    }])
}

async fn started(folder: &Path) -> anyhow::Result<Duration> {
    let at = free()?;
    let flags = [
        "broker".to_owned(),
        "--".to_owned(),
        "run".to_owned(),
        format!("--config={}", folder.join("config.yaml").display()),
        format!("--mcp-broker-public-address={at}"),
        format!("--mcp-gateway-public-host={PUBLIC_HOST}"),
        "--metrics-addr=127.0.0.1:0".to_owned(),
    ];
    let begun = Instant::now();
    let _gateway = Program::own(folder, "gateway", &flags)?;
    while let Err(error) = called(at).await {
        if begun.elapsed() > SOON {
            return Err(error.context("no call was answered in time"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(begun.elapsed())
}

/// A session and one call of the last server's tool.
async fn called(at: SocketAddr) -> anyhow::Result<()> {
    let mut connection = Connection::open(at).await?;
    let session = session::open(&mut connection, at, None).await?;
    let call = json!({"name": format!("s{}_tool_1", SERVERS - 1), "arguments": {"query": "x"}});
    let call = session::request(at, &session, None, ("tools/call", &call));
    connection.shoot(&call).await?;
    Ok(())
}
