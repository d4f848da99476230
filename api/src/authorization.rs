//! May this caller use this item? The one decision table of `MCPAuthPolicy` (operator.md 10.2, 10.4, 10.5), asked by
//! router, broker and standalone front for lists and for calls, and by `mcpgw explain`. Pure: claims come in verified.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value};

use crate::config::{AuthPolicyEntry, PolicyAction, PolicyTarget};

pub mod condition;
mod pattern;
mod rules;

use pattern::ResourcePattern;
use rules::{Question, RuleSet};

/// The claims of a verified token.
pub type Claims = Map<String, Value>;

/// What stands for the server in the names of the gateway's own tools (operator.md 10.2); `-` can be no namespace.
pub const GATEWAY_SERVER: &str = "-/gateway";

/// Kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource.
    Resource,
}

/// One item of one MCP server.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Tool, prompt or resource.
    pub kind: ItemKind,
    /// `<namespace>/<registration>`; `-/gateway` for the gateway's own tools.
    pub server: &'a str,
    /// The server's own name or URI, without prefix.
    pub name: &'a str,
    /// What the server says about a tool's behaviour, for conditions.
    pub annotations: Option<&'a Map<String, Value>>,
}

/// Who asks, and by which virtual server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Claims of the verified token of this very request; `None` without one.
    pub claims: Option<&'a Claims>,
    /// `<namespace>/<name>` of the virtual server in use.
    pub virtual_server: Option<&'a str>,
    /// What is asked.
    pub purpose: Purpose<'a>,
}

/// What a caller wants with an item.
#[derive(Clone, Copy, Debug, Default)]
pub enum Purpose<'a> {
    /// To see it. Of rules whose condition names `arguments`, those that allow count and those that deny do not.
    #[default]
    List,
    /// To use it with these arguments, as they came: JSON.
    Call(&'a str),
}

/// The answer, with what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No policy concerns the item, and none is required.
    Open,
    /// This rule lets it pass.
    Allowed {
        /// `<namespace>/<policy>`.
        policy: Arc<str>,
        /// Name of the rule, or `defaultAction`.
        rule: Arc<str>,
    },
    /// It does not pass, and the caller does not see it.
    Denied(Denial),
    /// The caller sees it, and may not use it with these arguments.
    Refused(Denial),
}

impl Outcome {
    /// True when the item may be listed and used.
    #[must_use]
    pub fn permits(&self) -> bool {
        !matches!(self, Self::Denied(_) | Self::Refused(_))
    }
}

impl fmt::Display for Outcome {
    /// What decided, for audit records and explanations: `<namespace>/<policy> <rule>`; empty when no policy was asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => Ok(()),
            Self::Allowed { policy, rule } => write!(f, "{policy} {rule}"),
            Self::Denied(denial) | Self::Refused(denial) => denial.fmt(f),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("authorization is required and no policy concerns it"),
            Self::InvalidPolicy { policy } => write!(f, "{policy} is not accepted"),
            Self::Rule { policy, rule } => write!(f, "{policy} {rule}"),
            Self::NoMatch => f.write_str("no rule allows it"),
        }
    }
}

/// Why something does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Authorisation is required and no policy concerns the item.
    NoPolicy,
    /// A policy that concerns it is not accepted.
    InvalidPolicy {
        /// `<namespace>/<policy>`.
        policy: Arc<str>,
    },
    /// A Deny rule matches.
    Rule {
        /// `<namespace>/<policy>`.
        policy: Arc<str>,
        /// Name of the rule.
        rule: Arc<str>,
    },
    /// No rule matches, and not every policy says `defaultAction: Allow`.
    NoMatch,
}

/// Policies, ready to decide. All of one gateway form one rule set, whatever their namespace.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
    rules: RuleSet,
    required: bool,
    /// Stands for the rule where a `defaultAction` decides.
    default_rule: Arc<str>,
}

#[derive(Clone, Debug)]
struct Policy {
    name: Arc<str>,
    valid: bool,
    closes: Vec<Scope>,
    default_action: PolicyAction,
}

#[derive(Clone, Debug)]
enum Scope {
    Gateway,
    Server(String),
    VirtualServer(String),
}

impl Policies {
    /// The policies of a config document. `required` is its `authRequired`.
    #[must_use]
    pub fn new(entries: &[AuthPolicyEntry], required: bool) -> Self {
        let mut rules = RuleSet::default();
        let policies = entries
            .iter()
            .enumerate()
            .map(|(position, entry)| Policy {
                name: entry.name.as_str().into(),
                // A rule that cannot be understood makes its policy one that denies.
                valid: rules.add(position, &entry.rules) && entry.valid,
                closes: Scope::of(entry),
                default_action: entry.default_action,
            })
            .collect();
        Self {
            policies,
            rules,
            required,
            default_rule: "defaultAction".into(),
        }
    }

    /// True when nothing is ever asked: every caller may use the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && !self.required
    }

    /// Decides about one item (operator.md 10.4): an unaccepted policy denies what it concerns, then any matching Deny,
    /// then any matching Allow, else Allow only when every concerned policy says so. The work grows with the rules that
    /// could name the item, not with all rules. Arguments are read only when a condition for the item names them.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>, item: &Item<'_>) -> Outcome {
        let listed = self.answer(request, Question::Listed, item);
        let Purpose::Call(arguments) = request.purpose else {
            return listed;
        };
        if !listed.permits() || !self.rules.name_arguments(item) {
            return listed;
        }
        let arguments = condition::arguments(arguments);
        match self.answer(request, Question::Called(arguments.as_ref()), item) {
            Outcome::Denied(denial) => Outcome::Refused(denial),
            other => other,
        }
    }

    fn answer(&self, request: &Request<'_>, question: Question<'_>, item: &Item<'_>) -> Outcome {
        let concerned = || {
            self.policies
                .iter()
                .filter(|policy| policy.concerns(request, item))
        };
        let Some(first) = concerned().next() else {
            return if self.required {
                Outcome::Denied(Denial::NoPolicy)
            } else {
                Outcome::Open
            };
        };
        if let Some(invalid) = concerned().find(|policy| !policy.valid) {
            return Outcome::Denied(Denial::InvalidPolicy {
                policy: Arc::clone(&invalid.name),
            });
        }
        let decisive = self.rules.decisive((request.claims, question), item, |policy| {
            self.policies
                .get(policy)
                .is_some_and(|policy| policy.concerns(request, item))
        });
        let named = |rule: &rules::Rule| {
            let policy = self.policies.get(rule.policy);
            let policy = policy.map(|policy| Arc::clone(&policy.name)).unwrap_or_default();
            (policy, Arc::clone(&rule.name))
        };
        match decisive {
            Some(rule) if rule.effect == PolicyAction::Deny => {
                let (policy, rule) = named(rule);
                Outcome::Denied(Denial::Rule { policy, rule })
            }
            Some(rule) => {
                let (policy, rule) = named(rule);
                Outcome::Allowed { policy, rule }
            }
            None if concerned().all(|policy| policy.default_action == PolicyAction::Allow) => {
                Outcome::Allowed {
                    policy: Arc::clone(&first.name),
                    rule: Arc::clone(&self.default_rule),
                }
            }
            None => Outcome::Denied(Denial::NoMatch),
        }
    }
}

impl Policy {
    fn concerns(&self, request: &Request<'_>, item: &Item<'_>) -> bool {
        self.closes.iter().any(|scope| match scope {
            Scope::Gateway => true,
            Scope::Server(server) => server == item.server,
            Scope::VirtualServer(server) => request.virtual_server == Some(server),
        })
    }
}

impl Scope {
    fn of(entry: &AuthPolicyEntry) -> Vec<Self> {
        if entry.targets.is_empty() {
            return vec![Self::Gateway];
        }
        let scope = |target: &PolicyTarget| match target.kind.as_str() {
            "MCPServerRegistration" => Self::Server(target.name.clone()),
            "MCPVirtualServer" => Self::VirtualServer(target.name.clone()),
            // Gateway, extension, and whatever a newer operator may add: the wider reading closes more.
            _ => Self::Gateway,
        };
        entry.targets.iter().map(scope).collect()
    }
}

/// True when the claim is a string equal to a value, an array with such a string, or, for `scope` and `scp`, a string
/// with such a word. Numbers, booleans, objects and null never match.
#[must_use]
pub fn claim_matches(claims: &Claims, claim: &str, values: &[String]) -> bool {
    let wanted = |text: &str| values.iter().any(|value| value == text);
    match lookup(claims, claim) {
        Some(Value::String(text)) => {
            let by_word = ["scope", "scp"].contains(&claim) && text.split(' ').any(wanted);
            wanted(text) || by_word
        }
        Some(Value::Array(members)) => members.iter().filter_map(Value::as_str).any(wanted),
        _ => false,
    }
}

/// The claim of this exact name, else the one at the dotted path through nested objects.
fn lookup<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(exact) = claims.get(path) {
        return Some(exact);
    }
    let (head, rest) = path.split_once('.')?;
    lookup(claims.get(head)?.as_object()?, rest)
}

/// True for what a rule may name: `*`, or `<namespace>/<server>:<item>` (operator.md 10.2). Admission refuses anything
/// else, because it would match nothing.
#[must_use]
pub fn is_resource_name(name: &str) -> bool {
    ResourcePattern::parse(name).is_some()
}

/// True when the name of a rule covers item `item` of server `<namespace>/<name>`.
#[must_use]
pub fn resource_name_covers(name: &str, server: &str, item: &str) -> bool {
    ResourcePattern::parse(name).is_some_and(|pattern| pattern.matches(server, item))
}

#[cfg(test)]
mod tests;
