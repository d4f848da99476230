//! The namespace rule and the Gateway rule as admission sees them (operator.md 3.1, 3.3): over everything that is
//! stored, also what reconcile would not accept yet, because it may be accepted later. Age does not matter here:
//! what is stored is older than what is being written.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Facts, Kind, Violation};
use crate::{
    acceptance,
    claims::{self, ClaimKey},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    grant::Reference,
    names,
    object_key::{ObjectKey, is_live},
    world::{World, gateway_of},
};

/// Which of the two rules a write is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The namespace rule: on create.
    pub namespace: bool,
    /// The Gateway rule: on create and when the target changes.
    pub gateway: bool,
}

/// The rules that the write of `new` over `old` is judged by.
#[must_use]
pub fn contest(old: Option<&Value>, new: &MCPGatewayExtension) -> Contest {
    let Some(old) = old else {
        return Contest {
            namespace: true,
            gateway: true,
        };
    };
    let text = |path: &str| old.pointer(path).and_then(Value::as_str);
    let own = new.metadata.namespace.as_deref().unwrap_or_default();
    let target = gateway_of(new);
    let same = text("/spec/targetRef/name") == Some(target.name.as_str())
        && text("/spec/targetRef/namespace").unwrap_or(own) == target.namespace
        && text("/spec/targetRef/sectionName") == Some(new.spec.target_ref.section_name.as_str());
    Contest {
        namespace: false,
        gateway: !same,
    }
}

/// The keys that the write has to claim, in the order in which they are taken. `gateway` is the live target.
#[must_use]
pub fn keys(contest: Contest, new: &MCPGatewayExtension, gateway: Option<&Gateway>) -> BTreeSet<ClaimKey> {
    let mut keys = keys_of(new, gateway);
    keys.retain(|key| match key {
        ClaimKey::Namespace(_) => contest.namespace,
        _ => contest.gateway,
    });
    keys
}

/// Everything that an extension wants to hold alone. `gateway` is its live target.
#[must_use]
pub fn keys_of(extension: &MCPGatewayExtension, gateway: Option<&Gateway>) -> BTreeSet<ClaimKey> {
    let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
    claims::wanted_keys(
        namespace,
        &gateway_of(extension),
        &extension.spec.target_ref.section_name,
        gateway,
    )
}

/// True when extensions of `namespace` may refer to `gateway`.
#[must_use]
pub fn is_granted(world: &World, namespace: &str, gateway: &ObjectKey) -> bool {
    let reference = Reference {
        from: (names::GROUP, Kind::Extension.as_str()),
        from_namespace: namespace,
        to: (names::GATEWAY_API_GROUP, "Gateway"),
        target: gateway,
    };
    acceptance::missing_grant_for(world, &reference).is_none()
}

/// True when `namespace` may refer to what `key` is about; always for a namespace key.
#[must_use]
pub fn is_granted_key(world: &World, namespace: &str, key: &ClaimKey) -> bool {
    key.gateway()
        .is_none_or(|gateway| is_granted(world, namespace, gateway))
}

/// A stored extension that has what is being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Who.
    pub extension: ObjectKey,
    /// What.
    pub key: ClaimKey,
}

/// Stored rivals of `new` for `keys`: one for each key at most.
#[must_use]
pub fn rivals(
    world: &World,
    new: &MCPGatewayExtension,
    keys: &BTreeSet<ClaimKey>,
    facts: &Facts,
) -> Vec<Rival> {
    keys.iter()
        .filter_map(|key| rival(world, new, key, facts))
        .collect()
}

fn rival(world: &World, new: &MCPGatewayExtension, key: &ClaimKey, facts: &Facts) -> Option<Rival> {
    let own = ObjectKey::of(&new.metadata);
    let other = |extension: &MCPGatewayExtension| {
        let rival = ObjectKey::of(&extension.metadata);
        is_live(&extension.metadata) && rival != own && !facts.former_rivals.contains(&rival)
    };
    let Some(target) = key.gateway() else {
        let extension = world
            .extensions_in(&own.namespace)
            .find(|extension| other(extension))?;
        return Some(Rival {
            extension: ObjectKey::of(&extension.metadata),
            key: key.clone(),
        });
    };
    let gateway = live_gateway(world, target, facts);
    let granted = is_granted(world, &own.namespace, target);
    let extension = world.extensions_of(target).find(|extension| {
        let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
        let section = &extension.spec.target_ref.section_name;
        other(extension)
            && claims::gateway_key(target, section, gateway) == *key
            && (!granted || is_granted(world, namespace, target))
    })?;
    Some(Rival {
        extension: ObjectKey::of(&extension.metadata),
        key: key.clone(),
    })
}

/// The target as it was read live, else as the world has it.
#[must_use]
pub fn live_gateway<'a>(world: &'a World, target: &ObjectKey, facts: &'a Facts) -> Option<&'a Gateway> {
    match &facts.live_gateway {
        Some(live) => live.as_ref().filter(|gateway| gateway.live),
        None => world
            .gateway(target)
            .map(AsRef::as_ref)
            .filter(|gateway| gateway.live),
    }
}

/// The refusal because `holder` has `key`. Its name is given only to somebody in the same namespace or with a grant
/// (operator.md 3.4, T12); nobody else learns a listener, port or name.
#[must_use]
pub fn refusal(world: &World, new: &MCPGatewayExtension, key: &ClaimKey, holder: &ObjectKey) -> Violation {
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let reason = Kind::Extension.invalid();
    let Some(gateway) = key.gateway() else {
        let message = format!(
            "conflict: namespace {namespace} already has MCPGatewayExtension {holder}; only one per namespace allowed; \
             change or delete that one"
        );
        return Violation::new("namespace", "metadata.namespace", reason, message);
    };
    let (rule, field) = rule_and_field(key);
    if holder.namespace != namespace && !is_granted(world, namespace, gateway) {
        let message = format!(
            "conflict: gateway {gateway} already has MCPGatewayExtension in another namespace; choose another Gateway"
        );
        return Violation::new("gateway-exclusive", "spec.targetRef.name", reason, message);
    }
    let message = match key {
        ClaimKey::Port(_, port) => format!(
            "conflict: listener port {port} on gateway {gateway} is already configured by MCPGatewayExtension {holder}{}; \
             choose a listener on another port",
            listener_of(world, holder)
        ),
        ClaimKey::Section(_, section) => format!(
            "conflict: listener {section} on gateway {gateway} is already configured by MCPGatewayExtension {holder}; \
             choose another listener"
        ),
        _ => format!(
            "conflict: gateway {gateway} already has MCPGatewayExtension {holder}; only one per Gateway allowed; \
             choose another Gateway, or let its owner set {}: {}",
            names::SCOPE_ANNOTATION,
            names::SCOPE_LISTENER
        ),
    };
    Violation::new(rule, field, reason, message)
}

/// The refusal because somebody claimed `key` moments ago.
#[must_use]
pub fn undecided(world: &World, new: &MCPGatewayExtension, key: &ClaimKey) -> Violation {
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let (_, field) = rule_and_field(key);
    let named = match key.gateway() {
        Some(gateway) if !is_granted(world, namespace, gateway) => ClaimKey::Gateway(gateway.clone()),
        _ => key.clone(),
    };
    let message = format!("conflict: the claim on {named} is being decided; retry in a few seconds");
    Violation::new("claim", field, Kind::Extension.invalid(), message)
}

/// The refusal because claims cannot be read or written now.
#[must_use]
pub fn undecidable() -> Violation {
    let message = "cannot decide exclusivity now: the webhook cannot reach the claims; retry";
    Violation::new(
        "claim-store",
        "spec.targetRef",
        Kind::Extension.invalid(),
        message,
    )
}

fn rule_and_field(key: &ClaimKey) -> (&'static str, &'static str) {
    match key {
        ClaimKey::Namespace(_) => ("namespace", "metadata.namespace"),
        ClaimKey::Gateway(_) => ("gateway-exclusive", "spec.targetRef.name"),
        ClaimKey::Port(..) | ClaimKey::Section(..) => ("port-exclusive", "spec.targetRef.sectionName"),
    }
}

fn listener_of(world: &World, holder: &ObjectKey) -> String {
    world.extension(holder).map_or_else(String::new, |extension| {
        format!(" (listener {})", extension.spec.target_ref.section_name)
    })
}
