//! First call: everything that the verdict on an extension needs and that is not in the cache. Secrets are read here,
//! and only here; what cannot be read is marked as unknown, never as absent.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{attachment, extension::MCPGatewayExtension, names, object_key::ObjectKey};
use rand::RngCore;
use serde_json::Value;

use crate::{
    children::trusted_headers,
    context::Context,
    document::secrets_of,
    kinds::Kind,
    policies,
    queue::WorkItem,
    secrets::{Readings, read_all, read_config_maps},
    snapshot::Snapshot,
};

/// Secrets that every accepted extension has: the config and the signing key.
pub(super) const OWN_SECRETS: [&str; 2] = [names::CONFIG_SECRET, names::SIGNING_KEY_SECRET];

/// What was read. Only [`fetch`] makes it.
pub(crate) struct Fetched {
    pub(super) key: ObjectKey,
    pub(super) extension: Arc<MCPGatewayExtension>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) secrets: Readings,
    /// ConfigMaps that policies name.
    pub(super) config_maps: Readings,
    /// The broker's Deployment as last seen.
    pub(super) deployment: Option<Value>,
    /// What the broker may run now.
    pub(super) broker_image: String,
    /// Random bytes for a signing key.
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
    let (policy_secrets, config_maps) = policy_references(&snapshot, &key);
    let own = wanted_secrets(&snapshot, &extension, &key);
    let (secrets, config_maps) = futures::join!(
        read_all(
            context,
            own.into_iter().chain(policy_secrets).collect::<BTreeSet<_>>()
        ),
        read_config_maps(context, config_maps),
    );
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let generates = extension
        .spec
        .trusted_headers_key
        .as_ref()
        .is_some_and(|key| key.generate.is_enabled());
    Fetched {
        broker_image: broker_image(context, &key),
        deployment: context.cache.get(Kind::Deployment, &beside(&key, names::BROKER)),
        secrets,
        config_maps,
        snapshot,
        random,
        fresh_pair: generates.then(trusted_headers::generate).and_then(Result::ok),
        extension,
        key,
    }
}

/// The image that the broker may have now; whoever waited for this one to roll is evaluated again.
fn broker_image(context: &Context, key: &ObjectKey) -> String {
    let brokers = context.cache.running();
    let turn = context
        .rollouts
        .turn(key, &context.settings.broker_image, &brokers);
    context.queue.add(turn.wake.into_iter().map(WorkItem::Extension));
    turn.image
}

/// The object `name` in the extension's namespace.
pub(super) fn beside(key: &ObjectKey, name: &str) -> ObjectKey {
    ObjectKey::new(key.namespace.as_str(), name)
}

/// Secrets and ConfigMaps of the policies that concern an accepted extension.
fn policy_references(snapshot: &Snapshot, key: &ObjectKey) -> (BTreeSet<ObjectKey>, BTreeSet<ObjectKey>) {
    let Some(accepted) = snapshot.accepted(key) else {
        return (BTreeSet::new(), BTreeSet::new());
    };
    let (mut secrets, mut config_maps) = (BTreeSet::new(), BTreeSet::new());
    for policy in attachment::by_age(&snapshot.world) {
        let targets = &policy.spec.target_refs;
        if targets
            .iter()
            .any(|target| policies::concerns(snapshot, accepted, (policy, target)))
        {
            let named = policies::references(policy);
            secrets.extend(named.0);
            config_maps.extend(named.1);
        }
    }
    (secrets, config_maps)
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
    let mut names: Vec<String> = OWN_SECRETS.map(str::to_owned).into();
    if let Some(trusted) = &spec.trusted_headers_key {
        names.push(trusted.secret_name.clone());
        names.push(trusted_headers::private_name(&trusted.secret_name));
    }
    names.extend(spec.session_store.as_ref().map(|store| store.secret_name.clone()));
    names.extend(spec.ca_cert_bundle_ref.as_ref().map(|bundle| bundle.name.clone()));
    let own = names.iter().map(|name| beside(key, name));
    own.chain(secrets_of(snapshot, key)).collect()
}
