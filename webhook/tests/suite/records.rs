//! Every decision leaves one span and one metric sample that say the same.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use axum::Router;
use mcp_gateway_webhook::{decision::Decider, metrics::Metrics, service};
use serde_json::{Value, json};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, registry::LookupSpan};

use crate::{
    memory::{self, Memory},
    table::{post, review},
};

/// Fields of the spans called `admission` that were closed, by the thread of the test that made them. There is one for the
/// process: a subscriber of a thread may come after another thread has found that nobody listens to a span.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(ThreadId, Fields)>>>);

impl Spans {
    fn installed() -> Self {
        let spans = Self::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        spans
    }

    /// Those of this thread since it asked last.
    fn taken(&self) -> Vec<Fields> {
        let mut all = self.0.lock().unwrap();
        let own = |(thread, _): &mut (ThreadId, Fields)| *thread == thread::current().id();
        all.extract_if(.., own).map(|(_, fields)| fields).collect()
    }
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        self.0.insert(field.name(), text.trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if attributes.metadata().name() == "admission" {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            context.span(id).unwrap().extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        if let Some(fields) = context.span(&id).unwrap().extensions().get::<Fields>() {
            let made = (thread::current().id(), fields.clone());
            self.0.lock().unwrap().push(made);
        }
    }
}

fn extension(name: &str, namespace: Option<&str>) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"namespace": "team-a", "name": name},
        "spec": {"targetRef": {"name": "gw", "namespace": namespace, "sectionName": "mcp"}}})
}

fn router(memory: &Memory, metrics: &Metrics, concurrent: usize) -> Router {
    let (_writer, world) = memory.world();
    let decider = Decider::new(memory.clone(), world.clone(), memory::now);
    service::router_with_limit(decider, metrics.clone(), concurrent)
        .merge(service::advisory(world, metrics.clone()))
}

fn deletion() -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
        "operation": "DELETE", "object": null, "oldObject": {"apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway", "metadata": {"namespace": "team-a", "name": "gw"}}}})
    .to_string()
}

/// Path and body of requests, and what is recorded about each: kind, operation, verdict, rule.
fn requests() -> Vec<(&'static str, String, &'static str)> {
    let (old, new) = (extension("e", Some("team-a")), extension("new", Some("team-a")));
    let (mut labelled, mut retargeted) = (old.clone(), old.clone());
    labelled["metadata"]["labels"] = json!({"a": "b"});
    retargeted["spec"]["targetRef"]["name"] = json!("other");
    let body = |old: Option<&Value>, new: &Value| review(old, new, true).to_string();
    let unfilled = body(None, &extension("x", None));
    let foreign = body(None, &new).replace("mcpgatewayextensions", "pods");
    let large = " ".repeat(service::MAX_BODY + 1);
    let created = "MCPGatewayExtension CREATE denied namespace";
    let exempt = "MCPGatewayExtension UPDATE exempt none";
    let changed = "MCPGatewayExtension UPDATE warned gateway";
    let complete = "MCPGatewayExtension MUTATE allowed defaults";
    let patched = "MCPGatewayExtension MUTATE patched defaults";
    vec![
        ("/validate", body(None, &new), created),
        ("/validate", body(Some(&old), &labelled), exempt),
        ("/validate", body(Some(&old), &retargeted), changed),
        ("/mutate", body(None, &new), complete),
        ("/mutate", unfilled, patched),
        ("/advise", deletion(), "Gateway DELETE warned gateway-in-use"),
        ("/advise", "{".to_owned(), "none none malformed none"),
        ("/validate", foreign, "none none foreign none"),
        ("/validate", "{".to_owned(), "none none malformed none"),
        ("/validate", large, "none none malformed none"),
    ]
}

/// Counts by `<kind> <operation> <verdict> <rule>`.
fn samples(metrics: &Metrics) -> BTreeMap<String, u32> {
    let text = metrics.text();
    let decisions = text
        .lines()
        .filter_map(|line| line.strip_prefix("mcp_gateway_admission_total{"));
    decisions
        .map(|line| {
            let (labels, count) = line.rsplit_once("} ").unwrap();
            let values: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
            (values.join(" "), count.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn every_decision_is_one_span_and_one_metric_sample() {
    let spans = Spans::installed();
    let (memory, metrics) = (
        Memory::with(&[extension("e", Some("team-a"))]),
        Metrics::default(),
    );
    let open = router(&memory, &metrics, 8);
    let mut expected = BTreeMap::new();
    for (path, body, record) in requests() {
        post(&open, path, body).await;
        *expected.entry(record.to_owned()).or_insert(0) += 1;
        let fields = spans.taken();
        assert_eq!(fields.len(), 1, "one span for {record}");
        let fields = &fields[0].0;
        let recorded = ["kind", "operation", "verdict", "rule"].map(|name| fields[name].as_str());
        assert_eq!(recorded.join(" "), record);
        assert!(fields["latency_us"].parse::<u64>().is_ok(), "{fields:?}");
        if record.contains("CREATE") {
            let about = ["ns", "name", "dry_run"].map(|name| fields[name].as_str());
            assert_eq!(about, ["team-a", "new", "true"]);
        }
        assert_eq!(samples(&metrics), expected, "one sample for {record}");
    }
    let full = router(&memory, &metrics, 0);
    assert_eq!(post(&full, "/validate", "{}").await.0, 503);
    assert_eq!(spans.taken()[0].0["verdict"], "shed");
    assert_eq!(samples(&metrics)["none none shed none"], 1);
    let text = metrics.text();
    assert!(text.contains("mcp_gateway_admission_seconds_count 11"), "{text}");
}
