use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_api::webhooks;
use serde_json::{Value, json};

use super::{certificate, reconcile};
use crate::{
    certificates::issue,
    fixtures::{Objects, context},
};

/// An API server that keeps what is applied, by path; it notes each apply.
#[derive(Clone, Default)]
struct Store {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    applies: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Store {
    fn client(&self) -> kube::Client {
        let store = self.clone();
        let answer = move |method: Method, uri: Uri, body: Bytes| {
            let answer = store.answer(&method, uri.path(), &body);
            async move { answer }
        };
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Json<Value>) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let resource = path.rsplit('/').nth(1).unwrap_or_default();
        let key = format!("{resource}/{name}");
        if name == "endpointslices" {
            return (StatusCode::OK, Json(json!({"metadata": {}, "items": []})));
        }
        if *method == Method::PATCH {
            let object: Value = serde_json::from_slice(body).expect("JSON");
            self.objects
                .lock()
                .expect("free")
                .insert(key.clone(), object.clone());
            self.applies.lock().expect("free").push((key, object.clone()));
            return (StatusCode::OK, Json(object));
        }
        match self.objects.lock().expect("free").get(&key) {
            Some(object) => (StatusCode::OK, Json(object.clone())),
            None => (
                StatusCode::NOT_FOUND,
                Json(
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "no such object"}),
                ),
            ),
        }
    }

    /// A configuration that somebody installed, so that the operator may write it although no replica is ready.
    fn installed(self, bundle: &str) -> Self {
        for resource in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
            let object = json!({"metadata": {"name": webhooks::NAME}, "webhooks": [
                {"name": "w", "clientConfig": {"caBundle": STANDARD.encode(bundle)}}]});
            let key = format!("{resource}/{}", webhooks::NAME);
            self.objects.lock().expect("free").insert(key, object);
        }
        self
    }

    fn applies(&self) -> Vec<(String, Value)> {
        self.applies.lock().expect("free").clone()
    }
}

fn decoded(object: &Value, pointer: &str) -> String {
    let text = object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default();
    String::from_utf8(STANDARD.decode(text).expect("base64")).expect("text")
}

#[tokio::test(start_paused = true)]
async fn o3_a_new_authority_is_trusted_before_the_secret_has_its_pair_and_beside_the_former_one() {
    let former = issue(&["old".to_owned()], certificate::now()).expect("a pair").ca;
    let store = Store::default().installed(&former);
    let context = context(store.client(), Objects::default());
    reconcile(&context).await.expect("a first run");

    let applies = store.applies();
    let order: Vec<&str> = applies.iter().map(|(key, _)| key.as_str()).collect();
    let expected = [
        "validatingwebhookconfigurations/mcp-gateway-webhook",
        "mutatingwebhookconfigurations/mcp-gateway-webhook",
        "secrets/mcp-gateway-webhook-cert",
    ];
    assert_eq!(order, expected);
    let secret = &applies[2].1;
    let (ca, kept) = (
        decoded(secret, "/data/ca.crt"),
        decoded(secret, "/data/former-ca.crt"),
    );
    assert_eq!(kept.trim(), former.trim());
    assert_ne!(ca, kept);
    for (_, configuration) in &applies[..2] {
        let bundle = decoded(configuration, "/webhooks/0/clientConfig/caBundle");
        assert_eq!(bundle, format!("{ca}{kept}"));
    }

    // No replica has proven to serve the new pair, so the former authority stays.
    reconcile(&context).await.expect("a second run");
    assert_eq!(store.applies().len(), 3, "{:?}", store.applies());
}

#[tokio::test(start_paused = true)]
async fn a_first_install_trusts_one_authority_only() {
    let store = Store::default();
    let context = context(store.client(), Objects::default());
    reconcile(&context).await.expect("a first run");
    let applies = store.applies();
    assert_eq!(
        applies.len(),
        1,
        "no configuration before a replica is ready: {applies:?}"
    );
    assert_eq!(applies[0].1.pointer("/data/former-ca.crt"), None);
}

#[tokio::test(start_paused = true)]
async fn t55_no_configuration_is_made_for_a_release_that_is_going() {
    let store = Store::default().installed("");
    let mut context = context(store.client(), Objects::default());
    let mut settings = (*context.settings).clone();
    settings.webhook_configuration_owner = Some("the-release".to_owned());
    context.settings = Arc::new(settings);
    reconcile(&context).await.expect("a run");
    let applies = store.applies();
    let configured = applies
        .iter()
        .any(|(key, _)| key.contains("webhookconfigurations"));
    assert!(!configured, "its ClusterRole is gone: {applies:?}");
}
