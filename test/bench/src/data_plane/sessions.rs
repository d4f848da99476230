//! Sessions: the first call of one (P7), what thousands of them weigh (P8), and thousands that call with think time (P9).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    Plan,
    load::{Connection, Pace, Shot},
    session,
    stage::{Setting, Stage},
};
use crate::report::{Quantity, Row, Target};

/// Clients at once in the scenario of the first call.
const CLIENTS: usize = 16;
/// First calls of each client in one round.
const FIRST_CALLS: usize = 20;
/// Sessions of the think-time scenario.
const THINKERS: usize = 4_096;

fn call() -> Value {
    json!({"name": "s0_tool_1", "arguments": {"query": "weather"}})
}

/// P7: initialise, and the call that opens the session with the server.
pub(super) async fn first_call(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting::default()).await?;
    let mut rows = Vec::new();
    for (name, to, limit) in [
        ("ExtProc", stage.at.gateway, 12),
        ("Direct", stage.at.direct, 4),
        ("standalone", stage.at.front, 2),
    ] {
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        for _ in 0..plan.rounds {
            let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(first_calls(to))).collect();
            for client in clients {
                for latency in client.await?? {
                    latencies.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))?;
                }
            }
        }
        let quantile =
            |quantile| Quantity::Time(Duration::from_micros(latencies.value_at_quantile(quantile)));
        rows.push(Row {
            what: format!("P7 first call of a session, {CLIENTS} clients, {name}"),
            values: format!("p50 {}, p99 {}", quantile(0.5), quantile(0.99)),
            target: Some(Target::below(
                quantile(0.5),
                Quantity::Time(Duration::from_millis(limit)),
            )),
        });
    }
    Ok(rows)
}

async fn first_calls(to: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(to).await?;
    let mut latencies = Vec::with_capacity(FIRST_CALLS);
    for _ in 0..FIRST_CALLS {
        let begun = Instant::now();
        let session = session::open(&mut connection, to, None).await?;
        connection
            .shoot(&session::request(to, &session, None, ("tools/call", &call())))
            .await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// P8: the process idle, and with many sessions that have each called once.
pub(super) async fn memory(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting::default()).await?;
    let mut rows = Vec::new();
    for (name, program, to) in [
        ("router and broker", "router", stage.at.gateway),
        ("front", "front", stage.at.front),
    ] {
        let program = stage.program(program)?;
        let idle = program.memory()?;
        let opened = many(to, plan.sessions).await?;
        let full = program.memory()?;
        let each = full.saturating_sub(idle) / u64::try_from(opened.len()).unwrap_or(1).max(1);
        let row = |what: String, measured, below| Row {
            what,
            values: String::new(),
            target: Some(Target::below(Quantity::Bytes(measured), Quantity::Bytes(below))),
        };
        rows.push(row(format!("P8 memory of {name}, idle"), idle, 20 << 20));
        rows.push(row(
            format!("P8 memory of a session, {name}, {} sessions", opened.len()),
            each,
            3 << 10,
        ));
        rows.push(row(
            format!("P8 memory of {name} with {} sessions", opened.len()),
            full,
            60 << 20,
        ));
    }
    Ok(rows)
}

/// Opens so many sessions, a few at a time, each with one call.
async fn many(to: SocketAddr, count: usize) -> anyhow::Result<Vec<Shot>> {
    let each = count.div_ceil(CLIENTS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(async move { session::requests(to, each, None, ("tools/call", &call())).await })
        })
        .collect();
    let mut shots = Vec::with_capacity(count);
    for client in clients {
        shots.extend(client.await??);
    }
    Ok(shots)
}

/// P9: each session calls every few seconds, on a connection of its own.
pub(super) async fn think_time(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let thinkers = THINKERS.min(plan.sessions);
    let stage = Stage::set(Setting::default()).await?;
    let mut rows = Vec::new();
    for (name, to) in [("ExtProc", stage.at.gateway), ("standalone", stage.at.front)] {
        let shots = many(to, thinkers).await?;
        let (load, _) = stage
            .load(shots, plan.think, Pace::Open(Duration::from_secs(5)))
            .await?;
        ensure!(
            load.latencies.len() as usize >= thinkers,
            "fewer calls than sessions"
        );
        let failure = load
            .failure
            .clone()
            .map(|failure| format!(", first failure: {failure}"))
            .unwrap_or_default();
        rows.push(Row {
            what: format!("P9 failed calls, {thinkers} sessions with think time, {name}"),
            values: format!(
                "{} calls in {} s, p50 {}, p99 {}{failure}",
                load.latencies.len(),
                plan.think.as_secs(),
                Quantity::Time(load.quantile(0.5)),
                Quantity::Time(load.quantile(0.99))
            ),
            target: Some(Target::below(Quantity::Count(load.failed), Quantity::Count(1))),
        });
    }
    Ok(rows)
}
