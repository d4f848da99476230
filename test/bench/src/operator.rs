//! The operator at scale (issue C): many namespaces with an extension and its registrations. Deployments, pods, Gateways
//! and brokers are played, so that only the operator and the API server work; kube-controller-manager and istiod are
//! stopped meanwhile.

mod brokers;
mod objects;
mod process;
mod propagation;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use mcp_gateway_kit::{Component, Kit, eventually};
use serde_json::{Value, json};

use crate::{
    profile::Recording,
    report::{Quantity, Row, Target},
};
use objects::Scale;
use process::Operator;

const LIMIT: Duration = Duration::from_secs(900);
/// How long the steady state is watched.
const STEADY: Duration = Duration::from_secs(60);

/// How large.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Namespaces, each with one Gateway and one extension.
    #[arg(long, default_value_t = 500)]
    namespaces: usize,
    /// Registrations in each namespace.
    #[arg(long, default_value_t = 4)]
    registrations: usize,
    /// Registrations whose way to `tools/list` is measured.
    #[arg(long, default_value_t = 100)]
    propagations: usize,
    /// Draws a flame graph of the cold start into this folder.
    #[arg(long)]
    profile: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// When the control plane does not do what is asked, or the operator does not get through.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let kit = Kit::from_env()?;
    let scale = Scale {
        namespaces: arguments.namespaces,
        registrations: arguments.registrations,
        client: kit.client().await?,
    };
    let token = objects::install(&scale).await?;
    // Istio would take the played routes' acceptance away.
    let _stopped = (
        kit.stop_component(Component::KubeControllerManager).await?,
        kit.stop_component(Component::Istiod).await?,
    );
    objects::create(&scale).await?;
    brokers::play(&scale).await?;
    let operator = Operator::start(&kit, &token)?;
    let recording = match &arguments.profile {
        Some(folder) => Some(Recording::start(operator.id()?, folder, "operator")?),
        None => None,
    };
    let begun = Instant::now();
    all_ready(&scale).await?;
    let (cold, wall, cold_memory) = (operator.cpu()?, begun.elapsed(), operator.memory()?);
    let mut rows = match recording {
        Some(recording) => recording.finish().await?,
        None => Vec::new(),
    };
    let (steady, writes) = steady(&kit, &operator).await?;
    let calls = one_change(&kit, &scale).await?;
    let rested = operator.memory()?;
    let propagation = propagation::run(&kit, &scale, arguments.propagations).await?;
    let measured = Measured {
        cold,
        wall,
        cold_memory,
        steady,
        writes,
        calls,
        rested,
        in_the_end: operator.memory()?,
    };
    rows.extend(measured.rows(arguments));
    rows.push(propagation);
    Ok(rows)
}

/// What one run gave, beside the way of registrations.
struct Measured {
    /// CPU time, wall time and memory of the cold start.
    cold: Duration,
    wall: Duration,
    cold_memory: u64,
    /// CPU time and writes of the steady state.
    steady: Duration,
    writes: usize,
    /// Requests for one change.
    calls: Vec<String>,
    /// Memory before and after the registrations that came later.
    rested: u64,
    in_the_end: u64,
}

impl Measured {
    fn rows(&self, arguments: &Arguments) -> [Row; 5] {
        let objects = arguments.namespaces * (1 + arguments.registrations);
        let size = format!("{} × (1 + {})", arguments.namespaces, arguments.registrations);
        let grown = self.in_the_end.saturating_sub(self.rested) as f64 / self.rested.max(1) as f64;
        [
            judged(
                format!("operator, cold start of {size}: CPU"),
                format!("wall {:.0} s", self.wall.as_secs_f64()),
                (Quantity::Time(self.cold), Quantity::Time(Duration::from_secs(60))),
            ),
            judged(
                "operator, steady: part of a core".to_owned(),
                format!("{} writes in {} s", self.writes, STEADY.as_secs()),
                (
                    Quantity::Ratio(self.steady.as_secs_f64() / STEADY.as_secs_f64()),
                    Quantity::Ratio(0.01),
                ),
            ),
            judged(
                "operator, memory".to_owned(),
                format!(
                    "{} per object",
                    Quantity::Bytes(self.cold_memory / objects.max(1) as u64)
                ),
                (Quantity::Bytes(self.rested), Quantity::Bytes(120 << 20)),
            ),
            judged(
                format!(
                    "operator, growth of memory by {} more registrations",
                    arguments.propagations
                ),
                format!(
                    "{} to {}",
                    Quantity::Bytes(self.rested),
                    Quantity::Bytes(self.in_the_end)
                ),
                (Quantity::Ratio(grown), Quantity::Ratio(0.1)),
            ),
            Row {
                what: "operator, API calls for one changed registration".to_owned(),
                values: self.calls.join(", "),
                target: None,
            },
        ]
    }
}

async fn all_ready(scale: &Scale) -> anyhow::Result<()> {
    eventually(LIMIT, "every registration to be ready", async || {
        let ready = objects::ready(scale)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let wanted = scale.namespaces * scale.registrations;
        if ready == wanted {
            Ok(())
        } else {
            Err(format!("{ready} of {wanted}"))
        }
    })
    .await?;
    Ok(())
}

fn judged(what: String, values: String, (measured, below): (Quantity, Quantity)) -> Row {
    Row {
        what,
        values,
        target: Some(Target::below(measured, below)),
    }
}

/// CPU time, and writes but for the Lease, while nothing changes.
async fn steady(kit: &Kit, operator: &Operator) -> anyhow::Result<(Duration, usize)> {
    // What the last changes still cause ends first.
    pause(Duration::from_secs(15)).await;
    let (cpu, mark) = (operator.cpu()?, kit.audit_mark()?);
    pause(STEADY).await;
    let writes = kit.writes_since(mark)?;
    let writes = writes
        .iter()
        .filter(|write| write.user.ends_with(process::ACCOUNT) && write.resource != "leases");
    Ok((operator.cpu()?.saturating_sub(cpu), writes.count()))
}

/// Changes one registration; the operator's requests until it rests, all of which must be about its namespace.
async fn one_change(kit: &Kit, scale: &Scale) -> anyhow::Result<Vec<String>> {
    let mark = kit.audit_mark()?;
    objects::change(scale, json!({"spec": {"hint": "changed"}})).await?;
    pause(Duration::from_secs(8)).await;
    let requests = kit.requests_since(mark)?;
    let ours = requests.iter().filter(|request| {
        // Leases are renewed and claims swept at all times.
        request.user.ends_with(process::ACCOUNT) && request.resource != "leases" && request.verb != "watch"
    });
    let mut calls = std::collections::BTreeMap::<String, usize>::new();
    for request in ours {
        ensure!(
            request.namespace == objects::namespace(0),
            "one change made the operator work elsewhere: {request:?}"
        );
        *calls
            .entry(format!("{} {}", request.verb, request.resource))
            .or_default() += 1;
    }
    ensure!(!calls.is_empty(), "the change had no effect");
    Ok(calls
        .into_iter()
        .map(|(call, count)| format!("{count} {call}"))
        .collect())
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A member of an object as text.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
