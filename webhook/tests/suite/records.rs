//! Every decision leaves one span and one metric sample that say the same.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
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

/// Fields of the spans called `admission` that were closed.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Fields>>>);

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
            self.0.lock().unwrap().push(fields.clone());
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

#[tokio::test]
async fn every_decision_is_one_span_and_one_metric_sample() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let (memory, metrics) = (
        Memory::with(&[extension("e", Some("team-a"))]),
        Metrics::default(),
    );
    let (open, full) = (router(&memory, &metrics, 8), router(&memory, &metrics, 0));
    let new = extension("new", Some("team-a"));
    let mut labelled = extension("e", Some("team-a"));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let mut retargeted = extension("e", Some("team-a"));
    retargeted["spec"]["targetRef"]["name"] = json!("other");
    let foreign = review(None, &new, true)
        .to_string()
        .replace("mcpgatewayextensions", "pods");
    let old = extension("e", Some("team-a"));
    let kind = "MCPGatewayExtension";
    // Router, path, body, and what is recorded: kind, operation, verdict, rule.
    let requests = [
        (
            &open,
            "/validate",
            review(None, &new, true).to_string(),
            [kind, "CREATE", "denied", "namespace"],
        ),
        (
            &open,
            "/validate",
            review(Some(&old), &labelled, false).to_string(),
            [kind, "UPDATE", "exempt", "none"],
        ),
        (
            &open,
            "/validate",
            review(Some(&old), &retargeted, true).to_string(),
            [kind, "UPDATE", "warned", "gateway"],
        ),
        (
            &open,
            "/mutate",
            review(None, &new, false).to_string(),
            [kind, "MUTATE", "allowed", "defaults"],
        ),
        (
            &open,
            "/mutate",
            review(None, &extension("x", None), false).to_string(),
            [kind, "MUTATE", "patched", "defaults"],
        ),
        (
            &open,
            "/advise",
            deletion(),
            ["Gateway", "DELETE", "warned", "gateway-in-use"],
        ),
        (&open, "/validate", foreign, ["none", "none", "foreign", "none"]),
        (
            &open,
            "/validate",
            "{".to_owned(),
            ["none", "none", "malformed", "none"],
        ),
        (
            &open,
            "/validate",
            " ".repeat(service::MAX_BODY + 1),
            ["none", "none", "malformed", "none"],
        ),
        (
            &full,
            "/validate",
            "{}".to_owned(),
            ["none", "none", "shed", "none"],
        ),
    ];
    let mut expected = BTreeMap::new();
    for (n, (router, path, body, [kind, operation, verdict, rule])) in requests.into_iter().enumerate() {
        post(router, path, body).await;
        let spans = spans.0.lock().unwrap();
        assert_eq!(spans.len(), n + 1, "one span for each request");
        let fields = &spans[n].0;
        let recorded = ["kind", "operation", "verdict", "rule"].map(|name| fields[name].as_str());
        assert_eq!(recorded, [kind, operation, verdict, rule]);
        assert!(fields["latency_us"].parse::<u64>().is_ok(), "{fields:?}");
        if operation == "CREATE" {
            let about = ["ns", "name", "dry_run"].map(|name| fields[name].as_str());
            assert_eq!(about, ["team-a", "new", "true"]);
        }
        let labels = format!(
            "mcp_gateway_admission_total{{kind=\"{kind}\",operation=\"{operation}\",verdict=\"{verdict}\",rule=\"{rule}\"}}"
        );
        *expected.entry(labels).or_insert(0) += 1;
    }
    let text = metrics.text();
    let samples: BTreeMap<String, i32> = text
        .lines()
        .filter(|line| line.starts_with("mcp_gateway_admission_total"))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(labels, count)| (labels.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(samples, expected);
    assert!(text.contains("mcp_gateway_admission_seconds_count 10"), "{text}");
}
