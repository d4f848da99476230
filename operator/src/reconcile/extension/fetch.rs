//! First call: everything that the verdict on an extension needs and that is not in the cache. Secrets are read here,
//! and only here; what cannot be read is marked as unknown, never as absent.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    config::{GatewayConfig, parse},
    extension::MCPGatewayExtension,
    names,
    object_key::ObjectKey,
};
use rand::RngCore;
use serde_json::Value;

use crate::{
    children::trusted_headers,
    context::Context,
    document::secrets_of,
    kinds::Kind,
    secrets::{Reading, Readings, read_all},
    snapshot::Snapshot,
};

/// What was read. Only [`fetch`] makes it.
pub(crate) struct Fetched {
    pub(super) key: ObjectKey,
    pub(super) extension: Arc<MCPGatewayExtension>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) secrets: Readings,
    /// The config document as it is now, when it can be read.
    pub(super) former: Option<GatewayConfig>,
    /// The broker's Deployment as last seen.
    pub(super) deployment: Option<Arc<Value>>,
    /// Labels of the Gateway's namespace.
    pub(super) random: [u8; 32],
    /// A fresh private half for trusted headers, made only when it may be needed.
    pub(super) fresh_pair: Option<String>,
}

pub(crate) async fn fetch(
    context: &Context,
    snapshot: Arc<Snapshot>,
    extension: Arc<MCPGatewayExtension>,
) -> Fetched {
    let key = ObjectKey::of(&extension.metadata);
    let secrets = read_all(context, wanted_secrets(&snapshot, &extension, &key)).await;
    let former = match secrets.get(&beside(&key, names::CONFIG_SECRET)) {
        Some(Reading::Present(content)) => content
            .value(names::CONFIG_KEY)
            .and_then(|yaml| std::str::from_utf8(yaml).ok())
            .and_then(|yaml| parse(yaml).ok()),
        _ => None,
    };
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let generates = extension
        .spec
        .trusted_headers_key
        .as_ref()
        .is_some_and(|key| key.generate.is_enabled());
    Fetched {
        deployment: context.cache.get(Kind::Deployment, &beside(&key, names::BROKER)),
        former,
        secrets,
        snapshot,
        random,
        fresh_pair: generates.then(trusted_headers::generate).and_then(Result::ok),
        extension,
        key,
    }
}

/// The object `name` in the extension's namespace.
pub(super) fn beside(key: &ObjectKey, name: &str) -> ObjectKey {
    ObjectKey::new(key.namespace.as_str(), name)
}

fn wanted_secrets(
    snapshot: &Snapshot,
    extension: &MCPGatewayExtension,
    key: &ObjectKey,
) -> BTreeSet<ObjectKey> {
    if snapshot.accepted(key).is_none() {
        return BTreeSet::new();
    }
    let spec = &extension.spec;
    let mut names = vec![
        names::CONFIG_SECRET.to_owned(),
        names::SIGNING_KEY_SECRET.to_owned(),
    ];
    if let Some(trusted) = &spec.trusted_headers_key {
        names.push(trusted.secret_name.clone());
        names.push(trusted_headers::private_name(&trusted.secret_name));
    }
    names.extend(spec.session_store.as_ref().map(|store| store.secret_name.clone()));
    names.extend(spec.ca_cert_bundle_ref.as_ref().map(|bundle| bundle.name.clone()));
    let own = names.iter().map(|name| beside(key, name));
    own.chain(secrets_of(snapshot, key)).collect()
}
