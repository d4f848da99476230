//! The Secret with the webhook's serving pair: `tls.crt`, `tls.key`, `ca.crt`, and `former-ca.crt` while some replica may
//! still serve a pair of before. The authorities in it are those that the API server trusts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::api::Patch;
use mcp_gateway_api::{object_key::ObjectKey, webhooks};
use serde_json::{Map, Value, json};

use crate::{
    apply::{apply_params, raw},
    certificates::{Pair, issue, not_after, runs_out, still_valid},
    context::Context,
    kinds::Kind,
    reconcile::ReconcileError,
};

const CA: &str = "ca.crt";
const FORMER_CA: &str = "former-ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Whom the API server trusts to be the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    /// The authority of the pair in the Secret, in PEM.
    pub(super) ca: String,
    /// Authorities of pairs that replicas may still serve, in PEM; may be empty.
    pub(super) former: String,
}

impl Trust {
    /// Trust in the authority of `pair`, and in what is trusted now, a text in PEM, as far as it is valid at `now`.
    pub(super) fn moving(pair: &Pair, trusted: &str, now: Duration) -> Self {
        Self {
            ca: pair.ca.clone(),
            former: still_valid(trusted, &pair.ca, now),
        }
    }

    /// All authorities, in PEM.
    pub(super) fn bundle(&self) -> Vec<u8> {
        [self.ca.as_str(), self.former.as_str()].concat().into_bytes()
    }
}

/// Time since the epoch.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The Secret as it is.
pub(super) async fn read(context: &Context) -> Result<Option<Value>, ReconcileError> {
    let api = context.api(Kind::Secret, &context.settings.namespace);
    let found = api.get_opt(webhooks::CERT_SECRET).await;
    let found = found.map_err(ReconcileError::request("read webhook certificate"))?;
    Ok(found.map(raw))
}

/// The trust that goes with a Secret whose pair is complete and does not run out.
pub(super) fn usable(secret: &Value, now: Duration) -> Option<Trust> {
    let (ca, certificate) = (value(secret, CA)?, value(secret, CERTIFICATE)?);
    value(secret, KEY)?;
    let lasts = |pem: &str| not_after(pem.as_bytes()).is_some_and(|end| !runs_out(end, now));
    (lasts(&ca) && lasts(&certificate)).then(|| Trust {
        ca,
        former: value(secret, FORMER_CA).unwrap_or_default(),
    })
}

/// The authorities in a Secret, in PEM, whatever else is wrong with it.
pub(super) fn authorities(secret: &Value) -> String {
    [CA, FORMER_CA]
        .iter()
        .filter_map(|name| value(secret, name))
        .collect()
}

/// A text in a Secret that is not empty.
fn value(secret: &Value, name: &str) -> Option<String> {
    let text = secret.get("data")?.get(name)?.as_str()?;
    let value = STANDARD.decode(text).ok()?;
    String::from_utf8(value).ok().filter(|value| !value.is_empty())
}

/// A new pair for the webhook's Service.
pub(super) fn new_pair(context: &Context, now: Duration) -> Result<Pair, ReconcileError> {
    let names = dns_names(&context.settings.namespace, &context.settings.cluster_domain);
    issue(&names, now).map_err(|error| ReconcileError::Key(error.to_string()))
}

/// Writes `pair` in place of `live`, in exactly the version that was read.
pub(super) async fn replace(
    context: &Context,
    live: Option<&Value>,
    pair: &Pair,
    former: &str,
) -> Result<(), ReconcileError> {
    let mut data = Map::new();
    for (name, text) in [(CA, &pair.ca), (CERTIFICATE, &pair.certificate), (KEY, &pair.key)] {
        data.insert(name.to_owned(), json!(STANDARD.encode(text)));
    }
    if !former.is_empty() {
        data.insert(FORMER_CA.to_owned(), json!(STANDARD.encode(former)));
    }
    write(context, live, data).await?;
    tracing::info!("Webhook certificate issued");
    Ok(())
}

/// Takes the former authorities out of `live`.
pub(super) async fn forget_former(context: &Context, live: &Value) -> Result<(), ReconcileError> {
    let mut data = live
        .get("data")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    data.retain(|name, _| [CA, CERTIFICATE, KEY].contains(&name.as_str()));
    write(context, Some(live), data).await?;
    tracing::info!(
        "Every replica of the webhook serves the new certificate; the former one is not trusted any more"
    );
    Ok(())
}

async fn write(
    context: &Context,
    live: Option<&Value>,
    data: Map<String, Value>,
) -> Result<(), ReconcileError> {
    let key = ObjectKey::new(context.settings.namespace.as_str(), webhooks::CERT_SECRET);
    let mut metadata = json!({
        "name": key.name,
        "namespace": key.namespace,
        "labels": {"app.kubernetes.io/name": webhooks::NAME},
    });
    let version = live.and_then(|live| live.pointer("/metadata/resourceVersion"));
    if let (Some(version), Value::Object(metadata)) = (version, &mut metadata) {
        metadata.insert("resourceVersion".to_owned(), version.clone());
    }
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
    let api = context.api(Kind::Secret, &key.namespace);
    let written = api.patch(&key.name, &apply_params(), &Patch::Apply(&body)).await;
    written.map_err(ReconcileError::request("write webhook certificate"))?;
    Ok(())
}

/// Names of the webhook's Service; the first one is the one that the API server verifies.
pub(super) fn dns_names(namespace: &str, cluster_domain: &str) -> Vec<String> {
    let short = format!("{}.{namespace}.svc", webhooks::NAME);
    let long = format!("{short}.{cluster_domain}");
    vec![short, long]
}
