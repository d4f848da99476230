//! Manners of the endpoints: the uid always, limits, defaults, metrics.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    http::Request,
};
use futures::stream::unfold;
use mcp_gateway_api::intake::Watched;
use mcp_gateway_webhook::{
    cache::{Snapshot, WorldReader},
    decision::Decider,
    health::{self, Readiness},
    metrics::Metrics,
    service,
    tls::Reloader,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use crate::{
    memory::{self, Memory},
    table::{post, review},
    tls::TestPair,
};

fn extension(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"targetRef": {"name": "gw", "sectionName": "mcp"}}})
}

fn router(memory: &Memory, metrics: &Metrics) -> Router {
    let (_writer, world) = memory.world();
    service::router(Decider::new(memory.clone(), world, memory::now), metrics.clone())
}

#[tokio::test]
async fn o2_undecodable_bodies_get_their_uid_back() {
    let router = router(&Memory::default(), &Metrics::default());
    for path in ["/validate", "/mutate?timeout=3s"] {
        let (status, answer) = post(&router, path, r#"{"request": {"uid": "u-1", "#).await;
        assert_eq!((status, &answer["response"]["uid"]), (200, &json!("u-1")));
        assert_eq!(
            (
                &answer["response"]["allowed"],
                &answer["response"]["status"]["code"]
            ),
            (&json!(false), &json!(400))
        );
        assert_eq!(post(&router, path, vec![0xff_u8; 10]).await.0, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_without_being_read() {
    let router = router(&Memory::default(), &Metrics::default());
    assert_eq!(
        post(&router, "/validate", vec![b' '; service::MAX_BODY + 1])
            .await
            .0,
        413
    );
}

#[tokio::test]
async fn beyond_the_limit_of_concurrency_requests_are_shed_at_once() {
    let memory = Memory::default();
    let (_writer, world) = memory.world();
    let decider = Decider::new(memory, world, memory::now);
    let router = service::router_with_limit(decider, Metrics::default(), 1);
    // The one place is taken by a request whose body is still on its way.
    let (rest, body) = mpsc::channel(1);
    let body = Body::from_stream(unfold(body, async |mut body: mpsc::Receiver<Bytes>| {
        Some((Ok::<_, Infallible>(body.recv().await?), body))
    }));
    rest.send("{\"request\": {\"uid\": \"first\"".into())
        .await
        .unwrap();
    let first = tokio::spawn(
        router
            .clone()
            .oneshot(Request::post("/validate").body(body).unwrap()),
    );
    // The body was asked for: the request is inside.
    rest.reserve().await.unwrap().send(", \"kind\"".into());
    rest.reserve().await.unwrap().send(": {}}}".into());
    let second = Request::post("/validate").body(Body::from("{}")).unwrap();
    let second = router.clone().oneshot(second).await.unwrap();
    assert_eq!(second.status(), 503);
    assert_eq!(second.headers()["retry-after"], "1");
    drop(rest);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        post(&router, "/validate", "{}").await.0,
        200,
        "its place is free again"
    );
}

#[tokio::test]
async fn a_replica_is_ready_once_every_kind_was_listed_and_its_pair_is_there() {
    let (writer, world) = WorldReader::new(Snapshot::default());
    let folder = tempfile::tempdir().unwrap();
    let reloader = Reloader::new(Some(folder.path().to_owned())).polling(Duration::from_millis(20));
    let (pair, mut config) = (reloader.pair(), reloader.config());
    let readiness = Readiness::new(world, pair);
    let probes = health::probes(readiness.clone());
    let ready = async || {
        let request = Request::get("/readyz").body(Body::empty()).unwrap();
        probes.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(
        (readiness.missing(), ready().await),
        (Some("no valid serving certificate yet"), 503)
    );
    TestPair::new().write(folder.path());
    tokio::spawn(reloader.run());
    config.wait_for(Option::is_some).await.unwrap();
    for kind in Watched::ALL {
        assert_eq!(
            (readiness.missing(), ready().await),
            (Some("caches are not synced yet"), 503)
        );
        writer.send_modify(|snapshot| {
            snapshot.synced.insert(kind);
        });
    }
    assert_eq!((readiness.missing(), ready().await), (None, 200));
    readiness.drain();
    assert_eq!((readiness.missing(), ready().await), (Some("stopping"), 503));
}

#[tokio::test]
async fn absent_target_namespaces_are_filled_in_and_nothing_else() {
    let router = router(&Memory::default(), &Metrics::default());
    let object = extension("team-a", "e");
    let (_, answer) = post(&router, "/mutate", review(None, &object, false).to_string()).await;
    let response = &answer["response"];
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch = base64_json(response["patch"].as_str().unwrap());
    assert_eq!(patch[0]["op"], "test");
    assert_eq!(
        patch[1],
        json!({"op": "add", "path": "/spec/targetRef/namespace", "value": "team-a"})
    );

    let mut complete = object;
    complete["spec"]["targetRef"]["namespace"] = json!("infra");
    let (_, answer) = post(&router, "/mutate", review(None, &complete, false).to_string()).await;
    assert_eq!(answer["response"]["patch"], Value::Null);
}

fn base64_json(text: &str) -> Value {
    use base64::{Engine, prelude::BASE64_STANDARD};
    serde_json::from_slice(&BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn o2_without_the_claim_store_creates_are_refused_and_dry_runs_are_not() {
    let memory = Memory::default();
    memory.break_down();
    let router = router(&memory, &Metrics::default());
    let object = extension("team-a", "e");
    let (_, answer) = post(&router, "/validate", review(None, &object, false).to_string()).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("cannot decide exclusivity now"), "{message}");
    let (_, answer) = post(&router, "/validate", review(None, &object, true).to_string()).await;
    assert_eq!(answer["response"]["allowed"], true);
}

#[tokio::test]
async fn t61_the_operators_finalizer_passes_while_the_claim_store_is_away() {
    let memory = Memory::default();
    memory.break_down();
    let router = router(&memory, &Metrics::default());
    let old = extension("team-a", "e");
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["mcp.kuadrant.io/finalizer"]);
    let (_, answer) = post(&router, "/validate", review(Some(&old), &new, false).to_string()).await;
    assert_eq!(answer["response"]["allowed"], true);
    assert!(memory.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn o2_a_short_deadline_is_kept() {
    let memory = Memory::default();
    memory.hang();
    let router = router(&memory, &Metrics::default());
    let started = tokio::time::Instant::now();
    let body = review(None, &extension("team-a", "e"), false).to_string();
    let (_, answer) = post(&router, "/validate?timeout=1s", body).await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(answer["response"]["allowed"], false);
}

#[tokio::test]
async fn deleting_what_an_extension_needs_is_warned_about_and_never_refused() {
    let memory = Memory::with(&[extension("team-a", "e")]);
    let (_writer, world) = memory.world();
    let router = service::advisory(world, Metrics::default());
    let gateway = |namespace: &str| {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
            "operation": "DELETE", "object": null, "oldObject": {"apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway", "metadata": {"namespace": namespace, "name": "gw"}}}})
        .to_string()
    };
    let (_, answer) = post(&router, "/advise?timeout=1s", gateway("team-a")).await;
    let expected = json!({"uid": "u-1", "allowed": true,
        "warnings": ["metadata.name: MCPGatewayExtension team-a/e stops serving"]});
    assert_eq!(answer["response"], expected);
    let (_, answer) = post(&router, "/advise", gateway("infra")).await;
    assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}));
    let (_, answer) = post(&router, "/advise", "{\"uid\": \"u-2\",").await;
    assert_eq!(answer["response"], json!({"uid": "u-2", "allowed": true}));
}

#[tokio::test]
async fn an_envoy_filter_kind_that_has_come_since_is_not_missed() {
    let memory = Memory::with(&[
        json!({"kind": "CustomResourceDefinition", "metadata": {"name": "networking.istio.io"}, "served": false}),
    ]);
    let (writer, world) = memory.world();
    writer.send_modify(|snapshot| snapshot.envoy_filter_served = Some(false));
    let router = service::router(
        Decider::new(memory.clone(), world, memory::now),
        Metrics::default(),
    );
    let warned = async || {
        let body = review(None, &extension("team-a", "e"), true).to_string();
        let (_, answer) = post(&router, "/validate", body).await;
        answer["response"]["warnings"]
            .to_string()
            .contains("EnvoyFilter (networking.istio.io) is not installed")
    };
    assert!(warned().await);
    memory.store(
        json!({"kind": "CustomResourceDefinition", "metadata": {"name": "networking.istio.io"}, "served": true}),
    );
    assert!(!warned().await, "what the watch knew is older");
}

#[tokio::test]
async fn connections_are_given_up_while_the_replica_leaves() {
    let (_writer, world) = Memory::default().world();
    let readiness = Readiness::new(world, Reloader::new(Some("/nowhere".into())).pair());
    let served = router(&Memory::default(), &Metrics::default());
    let served = health::giving_up(served, readiness.clone());
    let connection = async || {
        let request = Request::post("/validate").body(Body::from("{}")).unwrap();
        let answer = served.clone().oneshot(request).await.unwrap();
        answer.headers().get("connection").cloned()
    };
    assert_eq!(connection().await, None);
    readiness.drain();
    assert_eq!(connection().await.unwrap(), "close");
}
