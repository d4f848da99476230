//! The handler in process, without network: 2,000 extensions and 10,000 registrations in the cache.

use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::{Router, body::Body, http::Request};
use mcp_gateway_webhook::{decision::Decider, metrics::Metrics, service};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    memory,
    objects::{EXTENSIONS, REGISTRATIONS, extension, registration, world},
};
use crate::{
    clock::thread_cpu,
    report::{Quantity, Row, Sample, Target},
};

const DECISIONS: usize = 5_000;
const TARGET: Duration = Duration::from_millis(1);

/// Measures decisions that need no claim: a changed extension and a changed registration; and new extensions, with
/// claims in memory.
pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    // One thread, so that its CPU time is that of the decisions.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let router = router();
        let changed_extension = |n: usize| {
            let n = n % EXTENSIONS;
            let (old, new) = (extension(n, "info"), extension(n, "debug"));
            review("mcpgatewayextensions", Some(&old), &new)
        };
        let new_registration = |n: usize| {
            review(
                "mcpserverregistrations",
                None,
                &registration(REGISTRATIONS + n, ""),
            )
        };
        let new_extension =
            |n: usize| review("mcpgatewayextensions", None, &extension(EXTENSIONS + n, "info"));
        let mut rows = Vec::new();
        rows.extend(series(&router, "handler: extension changed", changed_extension, true).await?);
        rows.extend(
            series(
                &router,
                "handler: registration changed",
                changed_registration,
                true,
            )
            .await?,
        );
        rows.extend(series(&router, "handler: registration created", new_registration, true).await?);
        rows.extend(
            series(
                &router,
                "handler: extension created, claims in memory",
                new_extension,
                false,
            )
            .await?,
        );
        Ok(rows)
    })
}

/// The handler, with 2,000 extensions and 10,000 registrations in its cache.
pub(crate) fn router() -> Router {
    let memory = memory::Memory::with(&world());
    let (_writer, world) = memory.world();
    service::router(Decider::new(memory, world, memory::now), Metrics::default())
}

/// The review of a registration whose hint changes.
pub(crate) fn changed_registration(n: usize) -> String {
    let n = n % REGISTRATIONS;
    let (old, new) = (registration(n, "old"), registration(n, "new"));
    review("mcpserverregistrations", Some(&old), &new)
}

fn review(plural: &str, old: Option<&Value>, new: &Value) -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
        "namespace": new.pointer("/metadata/namespace"),
        "resource": {"group": "mcp.kuadrant.io", "version": "v1alpha1", "resource": plural},
        "object": new, "oldObject": old}})
    .to_string()
}

async fn series(
    router: &Router,
    what: &str,
    body: impl Fn(usize) -> String,
    has_target: bool,
) -> anyhow::Result<[Row; 2]> {
    let (mut times, mut cpu) = (Vec::with_capacity(DECISIONS), Vec::with_capacity(DECISIONS));
    for n in 0..DECISIONS {
        let request = Request::post("/validate?timeout=5s").body(Body::from(body(n)))?;
        let (begun, worked) = (Instant::now(), thread_cpu());
        let response = router.clone().oneshot(request).await?;
        cpu.push(thread_cpu().saturating_sub(worked));
        times.push(begun.elapsed());
        ensure!(response.status() == 200, "{what}: {}", response.status());
    }
    let (times, cpu) = (Sample::new(times), Sample::new(cpu));
    let rate = 1.0 / times.mean().as_secs_f64().max(f64::MIN_POSITIVE);
    let measured = Quantity::Time(times.percentile(99));
    let target = has_target.then_some(Target::below(measured, Quantity::Time(TARGET)));
    Ok([
        Row {
            what: what.to_owned(),
            values: format!("{rate:.0} decisions/s, {}", times.summary()),
            target,
        },
        Row {
            what: String::new(),
            values: format!("CPU of it: {}", cpu.summary()),
            target: None,
        },
    ])
}
