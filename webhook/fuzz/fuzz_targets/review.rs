//! Any bytes as an AdmissionReview, through every endpoint: always an answer, the uid echoed, no panic. The cluster is
//! empty and knows no claims.

#![no_main]

use std::{cell::LazyCell, time::Duration};

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use libfuzzer_sys::fuzz_target;
use mcp_gateway_api::{
    admission::ObjectFact,
    claims::{Claim, ClaimKey},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    object_key::ObjectKey,
};
use mcp_gateway_webhook::{
    cache::{Snapshot, WorldReader},
    cluster::{Cluster, ClusterError},
    decision::Decider,
    metrics::Metrics,
    service,
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

struct Empty;

impl Cluster for Empty {
    async fn extension(&self, _: &ObjectKey) -> Result<Option<MCPGatewayExtension>, ClusterError> {
        Ok(None)
    }
    async fn gateway(&self, _: &ObjectKey) -> Result<Option<Gateway>, ClusterError> {
        Ok(None)
    }
    async fn secret(&self, _: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        Ok(ObjectFact::Missing)
    }
    async fn config_map(&self, _: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        Ok(ObjectFact::Missing)
    }
    async fn envoy_filter_served(&self) -> Result<bool, ClusterError> {
        Ok(true)
    }
    async fn claim(&self, _: &ClaimKey) -> Result<Option<Claim>, ClusterError> {
        Ok(None)
    }
    async fn write_claim(&self, _: Lease) -> Result<Option<String>, ClusterError> {
        Ok(Some("1".to_owned()))
    }
    async fn delete_claim(&self, _: &ClaimKey, _: &str) -> Result<(), ClusterError> {
        Ok(())
    }
    fn claims_namespace(&self) -> &str {
        "mcp-system"
    }
}

thread_local! {
    static SERVICE: LazyCell<(Runtime, Router)> = const { LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (_, world) = WorldReader::new(Snapshot::default());
        let advisory = service::advisory(world.clone(), Metrics::default());
        let router = service::router(Decider::new(Empty, world, Timestamp::now), Metrics::default()).merge(advisory);
        (runtime, router)
    }) };
}

fuzz_target!(|body: &[u8]| {
    SERVICE.with(|service| {
        let (runtime, router) = &**service;
        for path in ["/validate?timeout=2s", "/mutate", "/advise"] {
            let answer = runtime.block_on(async {
                let request = Request::post(path).body(Body::from(body.to_vec())).expect("a request");
                let response = router.clone().oneshot(request).await.expect("an answer");
                assert!(response.status() == 200, "{}", response.status());
                let bytes = tokio::time::timeout(Duration::from_secs(5), response.into_body().collect());
                bytes.await.expect("in time").expect("a body").to_bytes()
            });
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            let uid = |review: &Value| review.pointer("/request/uid").and_then(Value::as_str).map(str::to_owned);
            if let Some(uid) = serde_json::from_slice::<Value>(body).ok().as_ref().and_then(uid) {
                let expected: String = uid.chars().take(128).collect();
                assert_eq!(answer["response"]["uid"], expected);
            }
            assert!(answer["response"]["allowed"].is_boolean());
            assert_ne!(answer["response"]["status"]["code"], 500, "the judgement panicked");
        }
    });
});
