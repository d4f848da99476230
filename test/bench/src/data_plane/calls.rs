//! tools/call: throughput, CPU and latency on every path, against every baseline (P1 to P5).

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    Plan,
    load::{Connection, Pace, Shot, copies},
    session,
    stage::{Setting, Stage},
};
use crate::report::{Quantity, Row, Target};

const DIRECT_TO_MOCK: &str = "generator → server";
const PLAIN: &str = "Envoy, plain route";
const NO_OP: &str = "Envoy, no-op ext_proc";
const HOP: &str = "bare hop";
const EXT_PROC: &str = "gateway, ExtProc path";
const DIRECT: &str = "gateway, Direct path";
const STANDALONE: &str = "gateway, standalone front";
const STATELESS: &str = "gateway, ExtProc path, stateless client";

/// A way that calls take.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) shots: Vec<Shot>,
}

/// What the rounds of one case gave.
pub(super) struct Measured {
    pub(super) name: &'static str,
    /// Calls in a second, by round.
    pub(super) rates: Vec<f64>,
    latencies: Histogram<u64>,
    cpu: BTreeMap<&'static str, Duration>,
    failed: u64,
    failure: Option<String>,
}

/// A call of a tool.
pub(super) fn call(name: &str) -> Value {
    json!({"name": name, "arguments": {"query": "weather in Prague tomorrow", "region": "cz", "limit": 3}})
}

/// Every baseline and every path, with so many connections.
async fn cases(stage: &Stage, connections: usize) -> anyhow::Result<Vec<Case>> {
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call("tool_1")});
    let at = &stage.at;
    let base = |name, to, path: &str| Case {
        name,
        shots: copies(&Shot::new(to, path, &message), connections),
    };
    let mut cases = vec![
        base(DIRECT_TO_MOCK, at.mock, "/s/0/mcp"),
        base(PLAIN, at.plain, "/s/0/mcp"),
        base(NO_OP, at.no_op, "/s/0/mcp"),
        base(HOP, stage.hop, "/"),
    ];
    for (name, to) in [
        (EXT_PROC, at.gateway),
        (DIRECT, at.direct),
        (STANDALONE, at.front),
    ] {
        let shots = session::requests(to, connections, None, ("tools/call", &call("s0_tool_1"))).await?;
        cases.push(Case { name, shots });
    }
    let mut connection = Connection::open(at.gateway).await?;
    let stateless = stateless_call(at.gateway);
    // The first one opens the pooled session with the server.
    connection.shoot(&stateless).await?;
    cases.push(Case {
        name: STATELESS,
        shots: copies(&stateless, connections),
    });
    Ok(cases)
}

/// The same call as a client of revision 2026-07-28 makes it: no session, method and name in headers too. It says who it
/// is: the server has sessions, and nobody in particular shares one with nobody else, so that each call would open its own.
fn stateless_call(to: std::net::SocketAddr) -> Shot {
    const REVISION: &str = "2026-07-28";
    let mut params = call("s0_tool_1");
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    if let Some(members) = params.as_object_mut() {
        members.insert("_meta".to_owned(), meta);
    }
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    Shot::new(to, "/mcp", &message)
        .with("authorization", "Bearer bench")
        .with("mcp-protocol-version", REVISION)
        .with("mcp-method", "tools/call")
        .with("mcp-name", "s0_tool_1")
}

/// Runs the cases in turn, `plan.rounds` times.
pub(super) async fn measure(stage: &Stage, cases: &[Case], plan: Plan) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::with_capacity(cases.len());
    for case in cases {
        measured.push(Measured {
            name: case.name,
            rates: Vec::new(),
            latencies: Histogram::new_with_bounds(1, 60_000_000, 3)?,
            cpu: BTreeMap::new(),
            failed: 0,
            failure: None,
        });
    }
    for _ in 0..plan.rounds {
        for (case, measured) in cases.iter().zip(&mut measured) {
            let (load, cpu) = stage.load(case.shots.clone(), plan.load, Pace::Closed).await?;
            measured.rates.push(load.rate());
            measured.latencies.add(&load.latencies)?;
            measured.failed += load.failed;
            measured.failure = measured.failure.take().or(load.failure);
            for (name, spent) in cpu {
                *measured.cpu.entry(name).or_default() += spent;
            }
        }
    }
    Ok(measured)
}

impl Measured {
    /// CPU time of one program for one call.
    fn cpu_per_call(&self, program: &str) -> Duration {
        let calls = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX).max(1);
        self.cpu.get(program).copied().unwrap_or_default() / calls
    }

    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latencies.value_at_quantile(quantile))
    }

    /// Rate, latencies and the CPU of whoever spent some.
    fn row(&self, connections: usize) -> Row {
        let spent: Vec<String> = self
            .cpu
            .keys()
            .map(|name| (*name, self.cpu_per_call(name)))
            .filter(|(_, spent)| *spent > Duration::from_micros(2))
            .map(|(name, spent)| format!("{name} {} µs", spent.as_micros()))
            .collect();
        let mut values = format!(
            "{:.0} calls/s, p50 {}, p99 {}, CPU a call: {}",
            median(&self.rates),
            Quantity::Time(self.quantile(0.5)),
            Quantity::Time(self.quantile(0.99)),
            spent.join(", ")
        );
        if self.failed > 0 {
            values.push_str(&format!(
                "; {} FAILED: {}",
                self.failed,
                self.failure.as_deref().unwrap_or_default()
            ));
        }
        Row {
            what: format!("tools/call, {connections} connections, {}", self.name),
            values,
            target: None,
        }
    }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn named<'a>(all: &'a [Measured], name: &str) -> Option<&'a Measured> {
    all.iter().find(|one| one.name == name)
}

/// Median over the rounds of the ratio of two rates: the rounds took turns, so that each ratio is of one moment.
fn ratio(all: &[Measured], part: &str, whole: &str) -> Quantity {
    let ratios: Vec<f64> = match (named(all, part), named(all, whole)) {
        (Some(part), Some(whole)) => part
            .rates
            .iter()
            .zip(&whole.rates)
            .map(|(part, whole)| part / whole.max(f64::MIN_POSITIVE))
            .collect(),
        _ => Vec::new(),
    };
    Quantity::Ratio(median(&ratios))
}

pub(super) fn judged(what: &str, target: Target) -> Row {
    Row {
        what: what.to_owned(),
        values: String::new(),
        target: Some(target),
    }
}

/// P1 to P4.
pub(super) async fn throughput(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting::default()).await?;
    let mut rows = Vec::new();
    for connections in [16, 64] {
        let all = measure(&stage, &cases(&stage, connections).await?, plan).await?;
        rows.extend(all.iter().map(|one| one.row(connections)));
        rows.extend(verdicts(&all, connections));
    }
    Ok(rows)
}

fn verdicts(all: &[Measured], connections: usize) -> Vec<Row> {
    let of_plain = if connections == 16 { 0.27 } else { 0.32 };
    let ratios = [
        ("P1 ExtProc / no-op ext_proc", EXT_PROC, NO_OP, 0.92),
        ("P1 ExtProc / plain Envoy", EXT_PROC, PLAIN, of_plain),
        ("P2 stateless client / P1", STATELESS, EXT_PROC, 1.0),
        ("P3 Direct / plain Envoy", DIRECT, PLAIN, 0.55),
        ("P3 Direct / ExtProc", DIRECT, EXT_PROC, 1.6),
        ("P4 standalone / plain Envoy", STANDALONE, PLAIN, 1.3),
        ("P4 standalone / bare hop", STANDALONE, HOP, 0.85),
    ]
    .map(|(what, part, whole, least)| {
        let what = format!("{what}, {connections} connections");
        let target = Target::at_least(ratio(all, part, whole), Quantity::Ratio(least));
        judged(&what, target)
    });
    let cpu = [
        ("P1 CPU of the router, a call", EXT_PROC, "router", 81),
        ("P4 CPU of the front, a call", STANDALONE, "front", 46),
    ]
    .map(|(what, case, program, micros)| {
        let spent = named(all, case).map_or(Duration::ZERO, |one| one.cpu_per_call(program));
        let limit = Quantity::Time(Duration::from_micros(micros));
        let what = format!("{what}, {connections} connections");
        judged(&what, Target::below(Quantity::Time(spent), limit))
    });
    ratios.into_iter().chain(cpu).collect()
}

/// P5.
pub(super) async fn latency(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting::default()).await?;
    let all = measure(&stage, &cases(&stage, 1).await?, plan).await?;
    let mut rows: Vec<Row> = all.iter().map(|one| one.row(1)).collect();
    let middle = |name: &str| named(&all, name).map_or(Duration::ZERO, |one| one.quantile(0.5));
    for (what, case, baseline, limit) in [
        ("P5 added p50, ExtProc over plain Envoy", EXT_PROC, PLAIN, 550),
        ("P5 added p50, Direct over plain Envoy", DIRECT, PLAIN, 150),
        (
            "P5 added p50, standalone over the server alone",
            STANDALONE,
            DIRECT_TO_MOCK,
            90,
        ),
    ] {
        let added = middle(case).saturating_sub(middle(baseline));
        rows.push(judged(
            what,
            Target::below(
                Quantity::Time(added),
                Quantity::Time(Duration::from_micros(limit + 1)),
            ),
        ));
    }
    Ok(rows)
}
