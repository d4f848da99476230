//! What a policy is attached to, whether it can be accepted as it stands, and its rules as brokers get them
//! (operator.md 10). Pure; the operator, and `mcpgw explain`, ask the same functions. Keys of providers are resolved
//! elsewhere.

use crate::{
    admission::{self, Facts, Subject, Write},
    auth_policy::{DefaultAction, Effect, MCPAuthPolicy, PolicyTargetKind, PolicyTargetRef, ResourceKind},
    authorization::condition,
    conditions::{PolicyReason, name_list},
    config::{AuthPolicyEntry, PolicyAction, PolicyMatch, PolicyRule, PolicyTarget},
    gateway::Gateway,
    object_key::{Age, ObjectKey, is_live},
    world::World,
};

/// Where clients come in: a Gateway, a port of it, and the extension there.
#[derive(Clone, Copy, Debug)]
pub struct Entrance<'a> {
    /// The Gateway.
    pub gateway: &'a Gateway,
    /// Port of the extension's listener.
    pub port: i32,
    /// The extension.
    pub extension: &'a ObjectKey,
}

/// Live policies, oldest first: of two providers with one issuer the older counts.
#[must_use]
pub fn by_age(world: &World) -> Vec<&MCPAuthPolicy> {
    let mut policies: Vec<&MCPAuthPolicy> = world
        .policies()
        .map(AsRef::as_ref)
        .filter(|policy| is_live(&policy.metadata))
        .collect();
    policies.sort_by_cached_key(|policy| Age::of(&policy.metadata));
    policies
}

fn namespace_of(policy: &MCPAuthPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or_default()
}

/// The object that a target names.
#[must_use]
pub fn target_key(policy: &MCPAuthPolicy, target: &PolicyTargetRef) -> ObjectKey {
    ObjectKey::new(namespace_of(policy), target.name.as_str())
}

/// True when the target is the Gateway, the listener's port or the extension of this entrance.
#[must_use]
pub fn is_on(entrance: &Entrance<'_>, policy: &MCPAuthPolicy, target: &PolicyTargetRef) -> bool {
    let key = target_key(policy, target);
    match target.kind {
        PolicyTargetKind::Gateway => {
            let same_port = |section: &str| {
                // A section that is not there (yet) may become this one: closed until then.
                let listener = entrance.gateway.listener(section);
                listener.is_none_or(|listener| listener.port == entrance.port)
            };
            entrance.gateway.key == key && target.section_name.as_deref().is_none_or(same_port)
        }
        PolicyTargetKind::MCPGatewayExtension => *entrance.extension == key,
        PolicyTargetKind::MCPServerRegistration | PolicyTargetKind::MCPVirtualServer => false,
    }
}

/// True when the target exists.
#[must_use]
pub fn is_there(world: &World, policy: &MCPAuthPolicy, target: &PolicyTargetRef) -> bool {
    let key = target_key(policy, target);
    match target.kind {
        PolicyTargetKind::Gateway => world.gateway(&key).is_some_and(|gateway| {
            let section = target.section_name.as_deref();
            gateway.live && section.is_none_or(|section| gateway.listener(section).is_some())
        }),
        PolicyTargetKind::MCPGatewayExtension => world.extension(&key).is_some(),
        PolicyTargetKind::MCPServerRegistration => world.registration(&key).is_some(),
        PolicyTargetKind::MCPVirtualServer => world.virtual_server(&key).is_some(),
    }
}

/// True for a rule that asks who calls.
#[must_use]
pub fn looks_at_claims(rule: &crate::auth_policy::PolicyRule) -> bool {
    let named = rule
        .condition
        .as_deref()
        .and_then(|text| condition::check(text).ok());
    !rule.matches.is_empty() || named.is_some_and(|named| named.claims)
}

/// Holds a policy against the admission rules and looks for its targets.
///
/// # Errors
/// Reason and message of `Accepted: False`.
pub fn acceptable(world: &World, policy: &MCPAuthPolicy) -> Result<(), (PolicyReason, String)> {
    let write = Write {
        old: None,
        new: &Subject::Policy(Box::new(policy.clone())),
    };
    let violations = admission::judge(world, write, &Facts::default()).violations;
    if !violations.is_empty() {
        let all: Vec<String> = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.message))
            .collect();
        return Err((PolicyReason::Invalid, all.join("; ")));
    }
    let targets = policy.spec.target_refs.iter();
    let missing: Vec<String> = targets
        .filter(|target| !is_there(world, policy, target))
        .map(|target| described(policy, target))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = name_list(missing.iter().map(String::as_str));
    let message = format!("not found: {names}; create it or correct spec.targetRefs");
    Err((PolicyReason::TargetNotFound, message))
}

fn described(policy: &MCPAuthPolicy, target: &PolicyTargetRef) -> String {
    let section = target.section_name.as_ref();
    let section = section
        .map(|section| format!(" listener {section}"))
        .unwrap_or_default();
    format!("{:?} {}{section}", target.kind, target_key(policy, target))
}

/// The policy as the brokers of an entrance get it, with those of its targets that concern them and without providers.
/// `port` is that of the entrance. One that is not accepted has no rules and denies what it concerns (operator.md 10.4).
#[must_use]
pub fn entry<'a>(
    policy: &MCPAuthPolicy,
    targets: impl Iterator<Item = &'a PolicyTargetRef>,
    port: i32,
    accepted: bool,
) -> AuthPolicyEntry {
    let entry = AuthPolicyEntry {
        name: ObjectKey::of(&policy.metadata).to_string(),
        generation: policy.metadata.generation.unwrap_or_default(),
        targets: targets
            .map(|target| PolicyTarget {
                kind: format!("{:?}", target.kind),
                name: target_key(policy, target).to_string(),
                port: target
                    .section_name
                    .as_ref()
                    .and_then(|_| u16::try_from(port).ok()),
            })
            .collect(),
        ..AuthPolicyEntry::default()
    };
    if !accepted {
        return entry;
    }
    AuthPolicyEntry {
        valid: true,
        default_action: default_action(policy),
        rules: rules(policy),
        ..entry
    }
}

fn default_action(policy: &MCPAuthPolicy) -> PolicyAction {
    match policy.spec.default_action {
        DefaultAction::Allow => PolicyAction::Allow,
        DefaultAction::Deny => PolicyAction::Deny,
    }
}

/// The rules as brokers get them.
#[must_use]
pub fn rules(policy: &MCPAuthPolicy) -> Vec<PolicyRule> {
    let rules = policy
        .spec
        .rules
        .iter()
        .enumerate()
        .map(|(index, rule)| PolicyRule {
            name: rule.name.clone().unwrap_or_else(|| format!("rule-{index}")),
            effect: match rule.effect {
                Effect::Allow => PolicyAction::Allow,
                Effect::Deny => PolicyAction::Deny,
            },
            matches: rule
                .matches
                .iter()
                .map(|condition| PolicyMatch {
                    claim: condition.jwt.claim.clone(),
                    values: match (&condition.jwt.value, &condition.jwt.values) {
                        (Some(value), _) => vec![value.clone()],
                        (None, values) => values.clone().unwrap_or_default(),
                    },
                })
                .collect(),
            kind: match rule.resource.kind {
                ResourceKind::Tool => "tool",
                ResourceKind::Prompt => "prompt",
                ResourceKind::Resource => "resource",
            }
            .to_owned(),
            resource: rule.resource.name.clone(),
            condition: rule.condition.clone().unwrap_or_default(),
        });
    rules.collect()
}
