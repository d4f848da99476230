use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_api::webhooks;
use serde_json::{Value, json};

use super::{WAITING, certificate, reconcile};
use crate::{
    certificates::issue,
    fixtures::{Objects, context},
    queue::Outcome,
};

/// An API server that keeps what is applied, by path; it notes each apply, and refuses some.
#[derive(Clone, Default)]
struct Store {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    applies: Arc<Mutex<Vec<(String, Value)>>>,
    /// So many writes of Secrets are still refused.
    refusals: Arc<Mutex<usize>>,
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
            let mut refusals = self.refusals.lock().expect("free");
            if resource == "secrets" && *refusals > 0 {
                *refusals -= 1;
                return failure(500, "InternalError", "not now");
            }
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
            None => failure(404, "NotFound", "no such object"),
        }
    }

    /// Refuses the next writes of Secrets.
    fn refuse(&self, count: usize) {
        *self.refusals.lock().expect("free") = count;
    }

    fn put(&self, key: &str, object: Value) {
        self.objects.lock().expect("free").insert(key.to_owned(), object);
    }

    /// What the API server trusts now.
    fn bundle(&self) -> String {
        let key = format!("validatingwebhookconfigurations/{}", webhooks::NAME);
        let objects = self.objects.lock().expect("free");
        decoded(&objects[&key], "/webhooks/0/clientConfig/caBundle")
    }

    /// A configuration that somebody installed, so that the operator may write it although no replica is ready.
    fn installed(self, bundle: &str) -> Self {
        for resource in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
            let object = json!({"metadata": {"name": webhooks::NAME}, "webhooks": [
                {"name": "w", "clientConfig": {"caBundle": STANDARD.encode(bundle)}}]});
            self.put(&format!("{resource}/{}", webhooks::NAME), object);
        }
        self
    }

    /// Whether some configuration was written.
    fn is_configured(&self) -> bool {
        let applies = self.applies();
        applies
            .iter()
            .any(|(key, _)| key.contains("webhookconfigurations"))
    }

    fn applies(&self) -> Vec<(String, Value)> {
        self.applies.lock().expect("free").clone()
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (StatusCode, Json<Value>) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": message});
    (StatusCode::from_u16(code).expect("a code"), Json(status))
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
async fn o3_an_authority_in_use_stays_trusted_however_often_the_secret_is_refused() {
    let former = issue(&["old".to_owned()], certificate::now()).expect("a pair").ca;
    let store = Store::default().installed(&former);
    let context = context(store.client(), Objects::default());
    store.refuse(5);
    for turn in 0..5 {
        let refused = reconcile(&context).await;
        assert!(refused.is_err(), "{turn}: {refused:?}");
        assert!(store.bundle().contains(former.trim()), "after {turn} tries");
    }
    reconcile(&context).await.expect("the Secret is written");
    let (_, secret) = store.applies().pop().expect("an apply");
    let ca = decoded(&secret, "/data/ca.crt");
    assert_eq!(
        store.bundle(),
        format!("{ca}{}\n", former.trim()),
        "one pair, tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn o3_the_authority_of_the_secret_stays_trusted_when_operators_come_and_go() {
    // Issued so long ago that it is renewed.
    let long_ago = certificate::now() - Duration::from_secs(300 * 24 * 3600);
    let pair = issue(&["old".to_owned()], long_ago).expect("a pair");
    let store = Store::default().installed(&pair.ca);
    let data = [
        ("ca.crt", &pair.ca),
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
    ];
    let data: Value = data
        .iter()
        .map(|(name, text)| ((*name).to_owned(), json!(STANDARD.encode(text))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let key = format!("secrets/{}", webhooks::CERT_SECRET);
    store.put(
        &key,
        json!({"metadata": {"name": webhooks::CERT_SECRET}, "data": data}),
    );
    store.refuse(5);
    for turn in 0..5 {
        let another = context(store.client(), Objects::default());
        let refused = reconcile(&another).await;
        assert!(refused.is_err(), "{turn}: {refused:?}");
        assert!(store.bundle().contains(pair.ca.trim()), "after {turn} operators");
    }
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
    assert!(!store.is_configured(), "its ClusterRole is gone");
    // The answer may be older than the release: it is asked for again.
    let outcome = reconcile(&context).await.expect("another run");
    assert_eq!(outcome, Outcome::After(WAITING));
}

#[tokio::test(start_paused = true)]
async fn t55_no_configuration_is_made_while_the_lease_says_that_the_operator_is_going() {
    let store = Store::default().installed("");
    let context = context(store.client(), Objects::default());
    context.uninstalling.store(true, Ordering::Relaxed);
    reconcile(&context).await.expect("a run");
    assert!(!store.is_configured());
    context.uninstalling.store(false, Ordering::Relaxed);
    reconcile(&context).await.expect("a run");
    assert!(store.is_configured(), "the operator stays");
}
