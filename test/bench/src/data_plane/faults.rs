//! Calls of one server beside another that misbehaves, in each of six ways, against the same calls beside it while it does not
//! (P13). The other one is called all the time, too, as often in both cases.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;

use super::{
    Plan,
    calls::{call, judged, median},
    load::{self, Connection, Pace, Shot},
    mock::Fault,
    session,
    stage::{Setting, Stage},
};
use crate::report::{Quantity, Row, Target};

/// Connections of the one server's callers, and of the other's.
const CONNECTIONS: usize = 8;
/// Between two calls of the other server on one connection.
const EVERY: Duration = Duration::from_millis(20);

/// What the neighbour does.
const FAULTS: [(Fault, &str); 6] = [
    (Fault::Hung, "that never answers"),
    (Fault::Reset, "that resets connections"),
    (Fault::Garbage, "that answers garbage"),
    (Fault::Flood, "whose lists have no end"),
    (Fault::Flap, "that flaps once a second"),
    (Fault::Change, "that changes its tools 100 times a second"),
];

/// P13.
pub(super) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (fault, words) in FAULTS {
        let setting = Setting {
            servers: 2,
            ..Setting::default()
        };
        let stage = Stage::set(setting).await?;
        for (path, to) in [("ExtProc", stage.at.gateway), ("standalone", stage.at.front)] {
            let what = format!("P13 p99 beside a server {words} / without, {path}");
            rows.push(beside(&stage, fault, (what, to), plan).await?);
        }
    }
    Ok(rows)
}

async fn beside(
    stage: &Stage,
    fault: Fault,
    (what, to): (String, SocketAddr),
    plan: Plan,
) -> anyhow::Result<Row> {
    let calls = |tool: &'static str| async move {
        session::requests(to, CONNECTIONS, None, ("tools/call", &call(tool))).await
    };
    let (calls, others) = (calls("s0_tool_1").await?, calls("s1_tool_1").await?);
    let (mut ratios, mut highest) = (Vec::new(), Duration::ZERO);
    for _ in 0..plan.rounds {
        let without = high(stage, Fault::None, (&calls, &others), plan).await?;
        let with = high(stage, fault, (&calls, &others), plan).await?;
        highest = highest.max(with);
        ratios.push(with.as_secs_f64() / without.as_secs_f64().max(f64::MIN_POSITIVE));
    }
    set(stage, Fault::None).await?;
    // The gateway finds out by itself that it is well again.
    stage.served(2).await?;
    let ratio = Quantity::Ratio(median(&ratios));
    let row = judged(&what, Target::below(ratio, Quantity::Ratio(1.2)));
    let values = format!("highest p99 {}", Quantity::Time(highest));
    Ok(Row { values, ..row })
}

/// The p99 of the one server's calls while the other one behaves like this.
async fn high(
    stage: &Stage,
    fault: Fault,
    (calls, others): (&[Shot], &[Shot]),
    plan: Plan,
) -> anyhow::Result<Duration> {
    set(stage, fault).await?;
    let beside = tokio::spawn(load::run(others.to_vec(), plan.load, Pace::Open(EVERY)));
    let (load, _) = stage.load(calls.to_vec(), plan.load, Pace::Closed).await?;
    // Lets go of those that wait.
    set(stage, Fault::None).await?;
    beside.await??;
    let failure = load.failure.as_deref().unwrap_or_default();
    ensure!(
        load.failed == 0,
        "a call of the server in good health failed: {failure}"
    );
    Ok(load.quantile(0.99))
}

async fn set(stage: &Stage, fault: Fault) -> anyhow::Result<()> {
    let path = format!("/fault/1/{}", fault.name());
    let shot = Shot::new(stage.at.mock, &path, &serde_json::Value::Null);
    let answer = Connection::open(stage.at.mock).await?.send(&shot).await?;
    ensure!(answer.status.is_success(), "{path}: {}", answer.status);
    Ok(())
}
