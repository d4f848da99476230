//! May this caller use this item? The one decision table of `MCPAuthPolicy` (operator.md 10.2, 10.4, 10.5), asked by
//! router, broker and standalone front for lists and for calls, and by `mcpgw explain`. Pure: claims come in verified.

use serde_json::{Map, Value};

use crate::config::{AuthPolicyEntry, PolicyAction, PolicyRule};

mod pattern;

use pattern::ResourcePattern;

/// The claims of a verified token.
pub type Claims = Map<String, Value>;

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
}

/// Who asks, and by which virtual server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Claims of the verified token of this very request; `None` without one.
    pub claims: Option<&'a Claims>,
    /// `<namespace>/<name>` of the virtual server in use.
    pub virtual_server: Option<&'a str>,
}

/// The answer, with what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No policy concerns the item, and none is required.
    Open,
    /// This rule lets it pass.
    Allowed {
        /// `<namespace>/<policy>`.
        policy: String,
        /// Name of the rule, or `defaultAction`.
        rule: String,
    },
    /// It does not pass.
    Denied(Denial),
}

impl Outcome {
    /// True when the item may be listed and used.
    #[must_use]
    pub fn permits(&self) -> bool {
        !matches!(self, Self::Denied(_))
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
        policy: String,
    },
    /// A Deny rule matches.
    Rule {
        /// `<namespace>/<policy>`.
        policy: String,
        /// Name of the rule.
        rule: String,
    },
    /// No rule matches, and not every policy says `defaultAction: Allow`.
    NoMatch,
}

/// Policies, ready to decide. All of one gateway form one rule set, whatever their namespace.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
    required: bool,
}

#[derive(Clone, Debug)]
struct Policy {
    name: String,
    valid: bool,
    closes: Vec<Scope>,
    default_action: PolicyAction,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Scope {
    Gateway,
    Server(String),
    VirtualServer(String),
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    effect: PolicyAction,
    matches: Vec<(String, Vec<String>)>,
    kind: Option<ItemKind>,
    resource: ResourcePattern,
}

impl Policies {
    /// The policies of a config document. `required` is its `authRequired`.
    #[must_use]
    pub fn new(entries: &[AuthPolicyEntry], required: bool) -> Self {
        Self {
            policies: entries.iter().map(Policy::new).collect(),
            required,
        }
    }

    /// Decides about one item (operator.md 10.4): an unaccepted policy denies what it concerns, then any matching Deny,
    /// then any matching Allow, else Allow only when every concerned policy says so.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>, item: &Item<'_>) -> Outcome {
        let concerned: Vec<&Policy> = self
            .policies
            .iter()
            .filter(|policy| policy.concerns(request, item))
            .collect();
        if concerned.is_empty() {
            return if self.required {
                Outcome::Denied(Denial::NoPolicy)
            } else {
                Outcome::Open
            };
        }
        if let Some(invalid) = concerned.iter().find(|policy| !policy.valid) {
            return Outcome::Denied(Denial::InvalidPolicy {
                policy: invalid.name.clone(),
            });
        }
        let matching = |effect: PolicyAction| {
            concerned.iter().find_map(|policy| {
                let rule = policy
                    .rules
                    .iter()
                    .find(|rule| rule.effect == effect && rule.matches(request, item))?;
                Some((policy.name.clone(), rule.name.clone()))
            })
        };
        if let Some((policy, rule)) = matching(PolicyAction::Deny) {
            return Outcome::Denied(Denial::Rule { policy, rule });
        }
        if let Some((policy, rule)) = matching(PolicyAction::Allow) {
            return Outcome::Allowed { policy, rule };
        }
        match concerned.first() {
            Some(first)
                if concerned
                    .iter()
                    .all(|policy| policy.default_action == PolicyAction::Allow) =>
            {
                Outcome::Allowed {
                    policy: first.name.clone(),
                    rule: "defaultAction".to_owned(),
                }
            }
            _ => Outcome::Denied(Denial::NoMatch),
        }
    }
}

impl Policy {
    fn new(entry: &AuthPolicyEntry) -> Self {
        let scope = |kind: &str, name: &str| match kind {
            "MCPServerRegistration" => Scope::Server(name.to_owned()),
            "MCPVirtualServer" => Scope::VirtualServer(name.to_owned()),
            // Gateway, extension, and whatever a newer operator may add: the wider reading closes more.
            _ => Scope::Gateway,
        };
        let mut rules = Vec::with_capacity(entry.rules.len());
        let mut understood = true;
        for (index, rule) in entry.rules.iter().enumerate() {
            match Rule::new(index, rule) {
                Some(rule) => rules.push(rule),
                None => understood = false,
            }
        }
        Self {
            name: entry.name.clone(),
            valid: entry.valid && understood,
            closes: if entry.targets.is_empty() {
                vec![Scope::Gateway]
            } else {
                entry
                    .targets
                    .iter()
                    .map(|target| scope(&target.kind, &target.name))
                    .collect()
            },
            default_action: entry.default_action,
            rules,
        }
    }

    fn concerns(&self, request: &Request<'_>, item: &Item<'_>) -> bool {
        self.closes.iter().any(|scope| match scope {
            Scope::Gateway => true,
            Scope::Server(server) => server == item.server,
            Scope::VirtualServer(server) => request.virtual_server == Some(server),
        })
    }
}

impl Rule {
    /// `None` for a rule whose kind or resource cannot be understood; its policy then denies.
    fn new(index: usize, rule: &PolicyRule) -> Option<Self> {
        let kind = match rule.kind.to_ascii_lowercase().as_str() {
            "tool" => Some(ItemKind::Tool),
            "prompt" => Some(ItemKind::Prompt),
            "resource" => Some(ItemKind::Resource),
            "*" => None,
            _ => return None,
        };
        Some(Self {
            name: if rule.name.is_empty() {
                format!("rule-{index}")
            } else {
                rule.name.clone()
            },
            effect: rule.effect,
            matches: rule
                .matches
                .iter()
                .map(|m| (m.claim.clone(), m.values.clone()))
                .collect(),
            kind,
            resource: ResourcePattern::parse(&rule.resource)?,
        })
    }

    fn matches(&self, request: &Request<'_>, item: &Item<'_>) -> bool {
        self.kind.is_none_or(|kind| kind == item.kind)
            && self.resource.matches(item.server, item.name)
            && self.holds_for(request.claims)
    }

    fn holds_for(&self, claims: Option<&Claims>) -> bool {
        match claims {
            Some(claims) => self
                .matches
                .iter()
                .all(|(claim, values)| claim_matches(claims, claim, values)),
            // Without a verified token only a Deny rule for everybody can hold.
            None => self.effect == PolicyAction::Deny && self.matches.is_empty(),
        }
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

#[cfg(test)]
mod tests;
