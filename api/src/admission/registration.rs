//! Rules for a registration.

use serde_json::Value;

use super::{
    Facts, Kind, Verdict, Violation, Warning,
    secrets::{self, SecretUse},
};
use crate::{
    conditions::RegistrationReason,
    object_key::{ObjectKey, is_live},
    references::Switch,
    registration::MCPServerRegistration,
    resolution::{self, Routed},
    world::{World, route_of},
};

pub(super) fn judge(
    world: &World,
    (old, new): (Option<&Value>, &MCPServerRegistration),
    facts: &Facts,
) -> Verdict {
    let key = ObjectKey::of(&new.metadata);
    let spec = &new.spec;
    let used: Vec<SecretUse<'_>> = [
        (
            "spec.credentialRef.name",
            spec.credential_ref.as_ref().map(|credential| &credential.name),
        ),
        (
            "spec.caCertSecretRef.name",
            spec.ca_cert_secret_ref.as_ref().map(|bundle| &bundle.name),
        ),
    ]
    .into_iter()
    .filter_map(|(field, name)| Some(SecretUse { field, name: name? }))
    .collect();

    let mut violations = prefix_violations(old, new);
    let owner = (Kind::Registration, key.namespace.as_str());
    violations.extend(
        used.iter()
            .filter_map(|used| secrets::violation(world, owner, *used, facts)),
    );

    let routed = resolution::routed(world, new);
    let mut warnings = Vec::new();
    if let Err(problem) = &routed {
        let field = match problem.reason {
            RegistrationReason::ReferenceGrantRequired => "spec.targetRef.namespace",
            _ => "spec.targetRef.name",
        };
        warnings.push(Warning::new("route", field, &problem.message));
    }
    warnings.extend(same_endpoint(world, new));
    warnings.extend(same_prefix(world, new, routed.ok().as_ref()));
    warnings.extend(
        used.iter()
            .filter_map(|used| secrets::warning(*used, &key.namespace, facts)),
    );
    Verdict { violations, warnings }
}

/// The schema's transition rules, for clusters and files without it (T60).
fn prefix_violations(old: Option<&Value>, new: &MCPServerRegistration) -> Vec<Violation> {
    let prefix = new.spec.prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let former = old
        .and_then(|old| old.pointer("/spec/prefix"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let invalid = |rule, message| Violation::new(rule, "spec.prefix", Kind::Registration.invalid(), message);
    let mut violations = Vec::new();
    if !former.is_empty() && prefix != Some(former) {
        let message = format!("prefix is immutable once set; keep {former:?} or create another registration");
        violations.push(invalid("prefix-immutable", message));
    }
    if new.spec.user_specific_list == Switch::Enabled && prefix.is_none() {
        let message = "prefix is required when userSpecificList is Enabled; set one".to_owned();
        violations.push(invalid("prefix-required", message));
    }
    violations
}

/// Another live registration has the same route and path.
fn same_endpoint(world: &World, new: &MCPServerRegistration) -> Option<Warning> {
    let own = ObjectKey::of(&new.metadata);
    let route = route_of(new);
    let other = world.registrations_of(&route).find(|other| {
        is_live(&other.metadata) && ObjectKey::of(&other.metadata) != own && other.spec.path == new.spec.path
    })?;
    let what = format!(
        "route {route} {} is registered by {}",
        new.spec.path,
        named(&own, &ObjectKey::of(&other.metadata))
    );
    Some(Warning::new("same-endpoint", "spec.path", what))
}

/// Another live registration has the same prefix on a Gateway that serves both.
fn same_prefix(world: &World, new: &MCPServerRegistration, routed: Option<&Routed<'_>>) -> Option<Warning> {
    let own = ObjectKey::of(&new.metadata);
    let prefix = new.spec.prefix.as_deref().filter(|prefix| !prefix.is_empty())?;
    let meets = |other: &MCPServerRegistration| match (routed, resolution::routed(world, other)) {
        (Some(mine), Ok(theirs)) => mine
            .gateways
            .iter()
            .any(|gateway| theirs.gateways.contains(gateway)),
        _ => ObjectKey::of(&other.metadata).namespace == own.namespace,
    };
    let other = world
        .registrations_with_prefix(prefix)
        .find(|other| is_live(&other.metadata) && ObjectKey::of(&other.metadata) != own && meets(other))?;
    let what = format!(
        "prefix {prefix:?} is used by {}",
        named(&own, &ObjectKey::of(&other.metadata))
    );
    Some(Warning::new("same-prefix", "spec.prefix", what))
}

/// A registration of the own namespace by name, any other only by its existence.
fn named(own: &ObjectKey, other: &ObjectKey) -> String {
    if own.namespace == other.namespace {
        other.to_string()
    } else {
        "another namespace".to_owned()
    }
}
