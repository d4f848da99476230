//! The rules of all policies in one index: by server and item where the rule names them without `*`, so that a decision
//! looks at the few rules that could name its item and not at all of them.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Claims, Item, ItemKind, ResourcePattern, claim_matches,
    condition::{Condition, DECISION_STEPS, Inputs},
};
use crate::config::{PolicyAction, PolicyRule};

/// All rules, in the order of the policies and of their rules.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleSet {
    rules: Vec<Rule>,
    by_server: HashMap<String, OfServer>,
    /// Rules whose server is not one name.
    anywhere: Vec<usize>,
    /// Some condition names the arguments of a call.
    names_arguments: bool,
}

/// What is asked about an item.
#[derive(Clone, Copy)]
pub(super) enum Question<'a> {
    /// May it be seen? What depends on arguments counts for the caller.
    Listed,
    /// May it be called with these arguments? `None` when they cannot be read.
    Called(Option<&'a Value>),
}

#[derive(Clone, Debug, Default)]
struct OfServer {
    by_item: HashMap<String, Vec<usize>>,
    /// Rules whose item is not one name.
    patterns: Vec<usize>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Position of its policy.
    pub(super) policy: usize,
    /// Its name, `rule-<index>` without one.
    pub(super) name: Arc<str>,
    pub(super) effect: PolicyAction,
    matches: Vec<(String, Vec<String>)>,
    kind: Option<ItemKind>,
    resource: ResourcePattern,
    condition: Option<Arc<Condition>>,
}

impl RuleSet {
    /// Adds the rules of the policy at `policy`; false when one of them cannot be understood.
    pub(super) fn add(&mut self, policy: usize, rules: &[PolicyRule]) -> bool {
        let mut understood = true;
        for (index, rule) in rules.iter().enumerate() {
            match Rule::new(policy, index, rule) {
                Some(rule) => self.insert(rule),
                None => understood = false,
            }
        }
        understood
    }

    fn insert(&mut self, rule: Rule) {
        let position = self.rules.len();
        self.names_arguments |= rule.names_arguments();
        let place = match (rule.resource.server(), rule.resource.item()) {
            (Some(server), item) => {
                let of_server = self.by_server.entry(server).or_default();
                match item {
                    Some(item) => of_server.by_item.entry(item.to_owned()).or_default(),
                    None => &mut of_server.patterns,
                }
            }
            (None, _) => &mut self.anywhere,
        };
        place.push(position);
        self.rules.push(rule);
    }

    /// The rules that could name the item, with their positions.
    fn candidates(&self, item: &Item<'_>) -> impl Iterator<Item = (usize, &Rule)> {
        let of_server = self.by_server.get(item.server);
        let by_item = of_server.and_then(|rules| rules.by_item.get(item.name));
        let patterns = of_server.map(|rules| &rules.patterns);
        let lists = by_item.into_iter().chain(patterns).chain([&self.anywhere]);
        let found = lists
            .flatten()
            .filter_map(|position| Some((*position, self.rules.get(*position)?)));
        found.filter(|(_, rule)| rule.names(item))
    }

    /// True when some rule for this item has a condition that names the arguments of a call.
    pub(super) fn name_arguments(&self, item: &Item<'_>) -> bool {
        self.names_arguments && self.candidates(item).any(|(_, rule)| rule.names_arguments())
    }

    /// The rule that decides: the first matching Deny of a policy that concerns the request, else the first matching
    /// Allow of one.
    pub(super) fn decisive(
        &self,
        (claims, question): (Option<&Claims>, Question<'_>),
        item: &Item<'_>,
        concerns: impl Fn(usize) -> bool,
    ) -> Option<&Rule> {
        let left = Cell::new(DECISION_STEPS);
        let first = |effect: PolicyAction| {
            self.candidates(item)
                .filter(|(_, rule)| {
                    rule.effect == effect
                        && rule.holds_for(claims)
                        && concerns(rule.policy)
                        && rule.condition_counts((claims, question), item, &left)
                })
                .min_by_key(|(position, _)| *position)
        };
        let (_, rule) = first(PolicyAction::Deny).or_else(|| first(PolicyAction::Allow))?;
        Some(rule)
    }
}

impl Rule {
    /// `None` for a rule whose kind, resource or condition cannot be understood.
    fn new(policy: usize, index: usize, rule: &PolicyRule) -> Option<Self> {
        let kind = match rule.kind.to_ascii_lowercase().as_str() {
            "tool" => Some(ItemKind::Tool),
            "prompt" => Some(ItemKind::Prompt),
            "resource" => Some(ItemKind::Resource),
            "*" => None,
            _ => return None,
        };
        let condition = match rule.condition.as_str() {
            "" => None,
            text => Some(Arc::new(Condition::compile(text).ok()?)),
        };
        Some(Self {
            policy,
            name: if rule.name.is_empty() {
                format!("rule-{index}").into()
            } else {
                rule.name.as_str().into()
            },
            effect: rule.effect,
            matches: rule
                .matches
                .iter()
                .map(|m| (m.claim.clone(), m.values.clone()))
                .collect(),
            kind,
            resource: ResourcePattern::parse(&rule.resource)?,
            condition,
        })
    }

    fn names(&self, item: &Item<'_>) -> bool {
        self.kind.is_none_or(|kind| kind == item.kind) && self.resource.matches(item.server, item.name)
    }

    fn names_arguments(&self) -> bool {
        let named = |condition: &Arc<Condition>| condition.names_arguments();
        self.condition.as_ref().is_some_and(named)
    }

    /// Whether the condition lets the rule count. An error never allows and always denies; of a list, what depends on
    /// arguments allows and does not deny.
    fn condition_counts(
        &self,
        (claims, question): (Option<&Claims>, Question<'_>),
        item: &Item<'_>,
        left: &Cell<u64>,
    ) -> bool {
        let Some(condition) = &self.condition else {
            return true;
        };
        let denies = self.effect == PolicyAction::Deny;
        let arguments = match question {
            Question::Listed if condition.names_arguments() => return !denies,
            Question::Listed => None,
            Question::Called(arguments) => arguments,
        };
        let nothing = Map::new();
        let inputs = Inputs {
            claims: claims.unwrap_or(&nothing),
            annotations: item.annotations.unwrap_or(&nothing),
            arguments,
        };
        let holds = condition.holds(&inputs, left);
        holds.unwrap_or(denies)
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
