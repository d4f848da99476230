//! Rules for a policy.

use std::collections::BTreeSet;

use super::{
    Facts, Kind, ObjectFact, Verdict, Violation, Warning, jwks,
    secrets::{self, SecretUse},
};
use crate::{
    attachment,
    auth_policy::{
        DefaultAction, JwtProvider, MCPAuthPolicy, PolicyTargetGroup, PolicyTargetKind, PolicyTargetRef,
        ResourceKind,
    },
    authorization::{condition, is_resource_name},
    object_key::{ObjectKey, is_live},
    world::{World, gateway_of},
};

pub(super) fn judge(world: &World, new: &MCPAuthPolicy, facts: &Facts) -> Verdict {
    let mut violations = target_violations(new);
    violations.extend(rule_violations(new));
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let mut warnings: Vec<Warning> = indexed(&new.spec.target_refs)
        .filter_map(|(index, target)| missing_target(world, namespace, (index, target)))
        .collect();
    for (index, provider) in providers(new) {
        let (denied, warned) = judge_provider(world, namespace, (index, provider), facts);
        violations.extend(denied);
        warnings.extend(warned);
    }
    if new.spec.rules.is_empty() && new.spec.default_action == DefaultAction::Deny {
        warnings.push(Warning::new(
            "denies-everything",
            "spec.rules",
            "no rules and defaultAction Deny: denies everything",
        ));
    }
    if new.spec.rules.iter().any(attachment::looks_at_claims) && !provider_reachable(world, new) {
        warnings.push(Warning::new(
            "no-provider",
            "spec.rules",
            "no JWT provider on its targets: no claims, matches never hold",
        ));
    }
    warnings.extend(condition_warnings(new));
    Verdict { violations, warnings }
}

/// Conditions that name what is always empty.
fn condition_warnings(new: &MCPAuthPolicy) -> impl Iterator<Item = Warning> {
    indexed(&new.spec.rules).filter_map(|(index, rule)| {
        let named = condition::check(rule.condition.as_deref()?).ok()?;
        let without = match rule.resource.kind {
            ResourceKind::Resource if named.arguments => "a resource is read without arguments",
            ResourceKind::Prompt if named.annotations => "a prompt has no annotations",
            _ => return None,
        };
        let what = format!("{without}: the variable is always empty");
        Some(Warning::new(
            "condition",
            &format!("spec.rules[{index}].condition"),
            what,
        ))
    })
}

fn invalid(rule: &'static str, field: String, message: impl Into<String>) -> Violation {
    Violation::new(rule, field, Kind::Policy.invalid(), message)
}

fn indexed<T>(items: &[T]) -> impl Iterator<Item = (usize, &T)> {
    items.iter().enumerate()
}

fn providers(policy: &MCPAuthPolicy) -> impl Iterator<Item = (usize, &JwtProvider)> {
    policy
        .spec
        .authentication
        .iter()
        .flat_map(|authentication| indexed(&authentication.jwt.providers))
}

/// The schema's CEL rules on targets.
fn target_violations(new: &MCPAuthPolicy) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, target) in indexed(&new.spec.target_refs) {
        let field = format!("spec.targetRefs[{index}]");
        let of_gateway_api = target.group == PolicyTargetGroup::GatewayApi;
        if of_gateway_api != (target.kind == PolicyTargetKind::Gateway) {
            violations.push(invalid(
                "target-group",
                format!("{field}.group"),
                "group and kind do not belong together",
            ));
        }
        if target.section_name.is_some() && target.kind != PolicyTargetKind::Gateway {
            violations.push(invalid(
                "target-section",
                format!("{field}.sectionName"),
                "sectionName is only for a Gateway",
            ));
        }
        let identity = (
            format!("{:?}", target.kind),
            target.name.as_str(),
            target.section_name.as_deref(),
        );
        if !seen.insert(identity) {
            violations.push(invalid(
                "target-unique",
                field,
                "targetRefs must be unique; remove one",
            ));
        }
    }
    let on_entrance = |target: &PolicyTargetRef| {
        matches!(
            target.kind,
            PolicyTargetKind::Gateway | PolicyTargetKind::MCPGatewayExtension
        )
    };
    if new.spec.authentication.is_some() && !new.spec.target_refs.iter().all(on_entrance) {
        let message = "authentication belongs to a policy for a Gateway or MCPGatewayExtension";
        violations.push(invalid(
            "authentication-target",
            "spec.authentication".to_owned(),
            message,
        ));
    }
    violations
}

fn rule_violations(new: &MCPAuthPolicy) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, rule) in indexed(&new.spec.rules) {
        for (position, condition) in indexed(&rule.matches) {
            if condition.jwt.value.is_some() == condition.jwt.values.is_some() {
                let field = format!("spec.rules[{index}].matches[{position}].jwt");
                violations.push(invalid("match-value", field, "exactly one of value and values"));
            }
        }
        if !is_resource_name(&rule.resource.name) {
            let field = format!("spec.rules[{index}].resource.name");
            let message = "matches nothing; use * or <namespace>/<server>:<item>";
            violations.push(invalid("resource-name", field, message));
        }
        if let Some(Err(error)) = rule.condition.as_deref().map(condition::check) {
            let field = format!("spec.rules[{index}].condition");
            violations.push(invalid("condition", field, error.to_string()));
        }
    }
    violations
}

fn judge_provider(
    world: &World,
    namespace: &str,
    (index, provider): (usize, &JwtProvider),
    facts: &Facts,
) -> (Vec<Violation>, Vec<Warning>) {
    let at = format!("spec.authentication.jwt.providers[{index}].jwks");
    let jwks = &provider.jwks;
    let (mut violations, mut warnings) = (Vec::new(), Vec::new());
    let sources = [
        jwks.inline.is_some(),
        jwks.secret_ref.is_some(),
        jwks.config_map_ref.is_some(),
        jwks.remote.is_some(),
    ];
    if sources.into_iter().filter(|given| *given).count() != 1 {
        let message = "exactly one of inline, secretRef, configMapRef, remote";
        violations.push(invalid("jwks-source", at.clone(), message));
    }
    if let Some(Err(what)) = jwks.inline.as_deref().map(jwks::check) {
        violations.push(invalid("jwks-inline", format!("{at}.inline"), what));
    }
    let bundle = jwks
        .remote
        .iter()
        .filter_map(|remote| remote.ca_cert_secret_ref.as_ref());
    let named = jwks
        .secret_ref
        .iter()
        .map(|secret| (format!("{at}.secretRef.name"), &secret.name));
    for (field, name) in
        named.chain(bundle.map(|bundle| (format!("{at}.remote.caCertSecretRef.name"), &bundle.name)))
    {
        let used = SecretUse { field: &field, name };
        violations.extend(secrets::violation(world, (Kind::Policy, namespace), used, facts));
        warnings.extend(secrets::warning(used, namespace, facts));
    }
    if let Some(map) = &jwks.config_map_ref
        && facts.config_maps.get(&map.name) == Some(&ObjectFact::Missing)
    {
        let what = format!("configmap {namespace}/{} not found yet", map.name);
        warnings.push(Warning::new(
            "config-map",
            &format!("{at}.configMapRef.name"),
            what,
        ));
    }
    (violations, warnings)
}

fn missing_target(
    world: &World,
    namespace: &str,
    (index, target): (usize, &PolicyTargetRef),
) -> Option<Warning> {
    let key = ObjectKey::new(namespace, target.name.as_str());
    let (exists, kind) = match target.kind {
        PolicyTargetKind::Gateway => (world.gateway(&key).is_some_and(|gateway| gateway.live), "gateway"),
        PolicyTargetKind::MCPGatewayExtension => (world.extension(&key).is_some(), Kind::Extension.as_str()),
        PolicyTargetKind::MCPServerRegistration => {
            (world.registration(&key).is_some(), Kind::Registration.as_str())
        }
        PolicyTargetKind::MCPVirtualServer => {
            (world.virtual_server(&key).is_some(), Kind::VirtualServer.as_str())
        }
    };
    let field = format!("spec.targetRefs[{index}]");
    if !exists {
        return Some(Warning::new(
            "target",
            &format!("{field}.name"),
            format!("{kind} {key} not found yet"),
        ));
    }
    let section = target.section_name.as_deref()?;
    let absent = world
        .gateway(&key)
        .is_some_and(|gateway| gateway.listener(section).is_none());
    absent.then(|| {
        let what = format!("listener {section:?} not found on gateway {key} yet");
        Warning::new("target", &format!("{field}.sectionName"), what)
    })
}

/// True when a token for the policy's targets could be verified by some provider. For registrations and virtual
/// servers any provider counts, because which Gateway serves them is not admission's to say.
fn provider_reachable(world: &World, new: &MCPAuthPolicy) -> bool {
    if new.spec.authentication.is_some() {
        return true;
    }
    let own = ObjectKey::of(&new.metadata);
    let entrances = entrances(world, &own.namespace, &new.spec.target_refs);
    let inner = new.spec.target_refs.iter().any(|target| {
        matches!(
            target.kind,
            PolicyTargetKind::MCPServerRegistration | PolicyTargetKind::MCPVirtualServer
        )
    });
    world.policies().any(|other| {
        let key = ObjectKey::of(&other.metadata);
        let theirs = || self::entrances(world, &key.namespace, &other.spec.target_refs);
        is_live(&other.metadata)
            && key != own
            && other.spec.authentication.is_some()
            && (inner || !theirs().is_disjoint(&entrances))
    })
}

/// The Gateways that the targets belong to.
fn entrances(world: &World, namespace: &str, targets: &[PolicyTargetRef]) -> BTreeSet<ObjectKey> {
    targets
        .iter()
        .filter_map(|target| {
            let key = ObjectKey::new(namespace, target.name.as_str());
            match target.kind {
                PolicyTargetKind::Gateway => Some(key),
                PolicyTargetKind::MCPGatewayExtension => {
                    world.extension(&key).map(|extension| gateway_of(extension))
                }
                _ => None,
            }
        })
        .collect()
}
