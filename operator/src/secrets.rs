//! Secrets that a spec names: read on demand, judged by the rules of operator.md 5.5. Contents have no `Debug`,
//! `Display` or `Serialize`; messages name Secret and key only.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Resource, core::NamespaceResourceScope};
use mcp_gateway_api::{conditions::ExtensionReason, names, object_key::ObjectKey};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{context::Context, kinds::Kind};

/// Most requests for Secrets at once, per reconcile.
const PARALLEL: usize = 8;
/// Largest CA bundle of an extension in bytes.
pub(crate) const MAX_BUNDLE: usize = 262_144;
/// Largest CA of a registration in bytes.
pub(crate) const MAX_SERVER_CA: usize = 65_536;

/// What a Secret holds.
#[derive(Clone, Default)]
pub(crate) struct SecretContent {
    data: BTreeMap<String, Vec<u8>>,
    labelled: bool,
    /// UID of the controlling object.
    pub(crate) controller: Option<String>,
    /// The whole object, when one of our extensions controls it.
    kept: Option<Arc<Value>>,
}

impl SecretContent {
    pub(crate) fn of(secret: Secret) -> Self {
        let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners
            .iter()
            .find(|owner| owner.controller == Some(true))
            .cloned();
        let kept = controller
            .as_ref()
            .filter(|owner| owner.kind == Kind::Extension.name())
            .and_then(|_| serde_json::to_value(&secret).ok())
            .map(Arc::new);
        let labels = secret.metadata.labels.unwrap_or_default();
        Self {
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, value.0))
                .collect(),
            labelled: labels
                .get(names::SECRET_LABEL)
                .is_some_and(|value| value == "true"),
            kept,
            controller: controller.map(|owner| owner.uid),
        }
    }

    /// The text members of a ConfigMap.
    fn of_config_map(config_map: ConfigMap) -> Self {
        let data = config_map.data.unwrap_or_default();
        Self {
            data: data
                .into_iter()
                .map(|(key, value)| (key, value.into_bytes()))
                .collect(),
            ..Self::default()
        }
    }

    /// The value of a key; nothing when it is empty.
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.data
            .get(key)
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    #[cfg(test)]
    pub(crate) fn for_test(data: &[(&str, &[u8])], labelled: bool) -> Self {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
            .collect();
        Self {
            data,
            labelled,
            controller: None,
            kept: None,
        }
    }
}

/// The outcome of reading one Secret.
#[derive(Clone)]
pub(crate) enum Reading {
    /// There it is.
    Present(SecretContent),
    /// The API server says that there is none.
    Absent,
    /// The API server could not say: never read as absence (T42).
    Unknown,
}

/// Secrets by key.
pub(crate) type Readings = BTreeMap<ObjectKey, Reading>;

/// The Secret `key` as it was read, when one of our extensions controls it.
pub(crate) fn kept(readings: &Readings, key: &ObjectKey) -> Option<Arc<Value>> {
    match readings.get(key)? {
        Reading::Present(content) => content.kept.clone(),
        Reading::Absent | Reading::Unknown => None,
    }
}

/// Reads Secrets, a few at a time.
pub(crate) async fn read_all(context: &Context, keys: impl IntoIterator<Item = ObjectKey>) -> Readings {
    read_kind(context, keys, SecretContent::of).await
}

/// Reads ConfigMaps, a few at a time.
pub(crate) async fn read_config_maps(
    context: &Context,
    keys: impl IntoIterator<Item = ObjectKey>,
) -> Readings {
    read_kind(context, keys, SecretContent::of_config_map).await
}

async fn read_kind<K>(
    context: &Context,
    keys: impl IntoIterator<Item = ObjectKey>,
    content: fn(K) -> SecretContent,
) -> Readings
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let reads = keys.into_iter().map(|key| async move {
        let api: Api<K> = Api::namespaced(context.client.clone(), &key.namespace);
        let reading = match api.get_opt(&key.name).await {
            Ok(Some(object)) => Reading::Present(content(object)),
            Ok(None) => Reading::Absent,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), object = %key, %error, "Object cannot be read");
                Reading::Unknown
            }
        };
        (key, reading)
    });
    stream::iter(reads).buffer_unordered(PARALLEL).collect().await
}

/// What is wrong with a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretProblem {
    /// Reason on an extension.
    pub(crate) reason: ExtensionReason,
    /// Message, with what to do where the Secret itself does not say it.
    pub(crate) message: String,
    /// True when the API server could not be asked: a former value stays in use.
    pub(crate) inconclusive: bool,
}

/// A requirement on one key of a Secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand<'a> {
    /// The Secret.
    pub(crate) secret: &'a ObjectKey,
    /// The key in it.
    pub(crate) key: &'a str,
    /// The field that names it, for messages.
    pub(crate) field: &'a str,
    /// Whether the label `mcp.kuadrant.io/secret=true` is asked for.
    pub(crate) label: bool,
}

/// The value that `demand` is about.
pub(crate) fn value_for<'r>(readings: &'r Readings, demand: &Demand<'_>) -> Result<&'r [u8], SecretProblem> {
    let invalid = |what: &str| {
        problem(
            ExtensionReason::SecretInvalid,
            format!("secret {}: {what}", demand.secret),
        )
    };
    let name = demand.secret.name.as_str();
    if name == names::CONFIG_SECRET || name == names::SIGNING_KEY_SECRET {
        return Err(invalid("is invalid: the operator owns it; name another one"));
    }
    let content = match readings.get(demand.secret) {
        Some(Reading::Present(content)) => content,
        Some(Reading::Absent) => {
            let message = format!(
                "secret {} not found (spec.{}); create it",
                demand.secret, demand.field
            );
            return Err(problem(ExtensionReason::SecretNotFound, message));
        }
        Some(Reading::Unknown) | None => {
            let message = format!(
                "secret {} cannot be read now (spec.{}); retrying",
                demand.secret, demand.field
            );
            return Err(SecretProblem {
                inconclusive: true,
                ..problem(ExtensionReason::SecretNotFound, message)
            });
        }
    };
    if content.kept.is_some() {
        return Err(invalid("is invalid: the operator owns it; name another one"));
    }
    if demand.label && !content.labelled {
        return Err(invalid("missing required label mcp.kuadrant.io/secret=true"));
    }
    content
        .value(demand.key)
        .ok_or_else(|| invalid(&format!("missing key {}", demand.key)))
}

/// The certificates that `demand` is about, as PEM text of at most `max` bytes.
pub(crate) fn certificates_for<'r>(
    readings: &'r Readings,
    demand: &Demand<'_>,
    max: usize,
) -> Result<&'r str, SecretProblem> {
    let value = value_for(readings, demand)?;
    let invalid = |what: &str| {
        problem(
            ExtensionReason::SecretInvalid,
            format!("secret {}: {what}", demand.secret),
        )
    };
    if value.len() > max {
        return Err(invalid(&format!(
            "exceeds maximum size of {max} bytes (key {})",
            demand.key
        )));
    }
    let text = std::str::from_utf8(value).map_err(|_| invalid("is invalid: not PEM text"))?;
    let foreign = text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim() != "-----BEGIN CERTIFICATE-----");
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(value).collect();
    match certificates {
        Ok(found) if !found.is_empty() && !foreign => Ok(text),
        _ => Err(invalid(
            "is invalid: only CERTIFICATE blocks are accepted, at least one",
        )),
    }
}

fn problem(reason: ExtensionReason, message: String) -> SecretProblem {
    SecretProblem {
        reason,
        message,
        inconclusive: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(content: SecretContent) -> (ObjectKey, Readings) {
        let key = ObjectKey::new("ns", "s");
        (key.clone(), Readings::from([(key, Reading::Present(content))]))
    }

    fn message(content: SecretContent) -> String {
        let (key, readings) = readings(content);
        let demand = Demand {
            secret: &key,
            key: "ca.crt",
            field: "caCertBundleRef",
            label: true,
        };
        match certificates_for(&readings, &demand, 100) {
            Ok(_) => "accepted".to_owned(),
            Err(problem) => problem.message,
        }
    }

    #[test]
    fn each_defect_of_a_secret_has_its_message() {
        assert!(message(SecretContent::for_test(&[], false)).contains("missing required label"));
        assert!(message(SecretContent::for_test(&[], true)).contains("missing key ca.crt"));
        assert!(message(SecretContent::for_test(&[("ca.crt", b"")], true)).contains("missing key ca.crt"));
        let long = [b'x'; 101];
        assert!(
            message(SecretContent::for_test(&[("ca.crt", &long)], true)).contains("exceeds maximum size")
        );
        assert!(message(SecretContent::for_test(&[("ca.crt", b"no pem")], true)).contains("is invalid"));
    }

    #[test]
    fn t42_an_unreadable_secret_is_not_an_absent_one() {
        let key = ObjectKey::new("ns", "s");
        let readings = Readings::from([(key.clone(), Reading::Unknown)]);
        let demand = Demand {
            secret: &key,
            key: "token",
            field: "credentialRef",
            label: true,
        };
        assert!(value_for(&readings, &demand).is_err_and(|problem| problem.inconclusive));
    }
}
