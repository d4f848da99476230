//! What would have to change for the verdict to turn.

use mcp_gateway_api::{auth_policy::RuleResource, authorization::Denial};

use super::{
    Claims, Effect, Item, ItemKind, MCPAuthPolicy, ObjectKey, Outcome, ResourceKind, World, attachment,
    claim_matches, resource_name_covers,
};

/// Sentences for a denied item; nothing for an allowed one.
pub(super) fn changes(
    world: &World,
    policies: &[&MCPAuthPolicy],
    (outcome, item, claims): (&Outcome, &Item<'_>, Option<&Claims>),
) -> Vec<String> {
    let (Outcome::Denied(denial) | Outcome::Refused(denial)) = outcome else {
        return Vec::new();
    };
    match denial {
        Denial::NoPolicy => vec![
            "the extension says authorization: Required; attach an MCPAuthPolicy with a rule that allows it"
                .to_owned(),
        ],
        Denial::InvalidPolicy { policy } => {
            let found = policies
                .iter()
                .find(|other| ObjectKey::of(&other.metadata).to_string() == **policy);
            let why = found.and_then(|policy| attachment::acceptable(world, policy).err());
            let why = why.map(|(_, message)| message).unwrap_or_default();
            vec![format!("mend {policy}: {why}")]
        }
        Denial::Rule { policy, rule } => vec![format!(
            "remove or narrow rule {rule} of {policy}; no Allow rule outweighs a Deny rule"
        )],
        Denial::NoMatch => near_misses(policies, item, claims),
    }
}

/// Allow rules that name the item but do not hold for the caller, else what a rule would have to name.
fn kind_of(item: &Item<'_>) -> ResourceKind {
    match item.kind {
        ItemKind::Tool => ResourceKind::Tool,
        ItemKind::Prompt => ResourceKind::Prompt,
        ItemKind::Resource => ResourceKind::Resource,
    }
}

/// True when a rule for this resource is about the item.
pub(super) fn covers(resource: &RuleResource, item: &Item<'_>) -> bool {
    resource.kind == kind_of(item) && resource_name_covers(&resource.name, item.server, item.name)
}

fn near_misses(policies: &[&MCPAuthPolicy], item: &Item<'_>, claims: Option<&Claims>) -> Vec<String> {
    let mut found = Vec::new();
    for policy in policies {
        let name = ObjectKey::of(&policy.metadata);
        for (index, rule) in policy.spec.rules.iter().enumerate() {
            let covers = rule.effect == Effect::Allow && covers(&rule.resource, item);
            if !covers {
                continue;
            }
            let rule_name = rule.name.clone().unwrap_or_else(|| format!("rule-{index}"));
            let mut missing: Vec<String> = attachment::rules(policy)
                .get(index)
                .into_iter()
                .flat_map(|rule| rule.matches.clone())
                .filter(|wanted| {
                    claims.is_none_or(|claims| !claim_matches(claims, &wanted.claim, &wanted.values))
                })
                .map(|wanted| format!("claim {} to be one of {}", wanted.claim, wanted.values.join(", ")))
                .collect();
            missing.extend(
                rule.condition
                    .iter()
                    .map(|text| format!("the condition `{text}` to hold")),
            );
            let needs = if missing.is_empty() {
                "a verified token".to_owned()
            } else {
                missing.join(" and ")
            };
            found.push(format!(
                "rule {rule_name} of {name} would allow it, and needs {needs}"
            ));
        }
    }
    if found.is_empty() {
        let what = format!("{:?}", kind_of(item)).to_lowercase();
        let names: Vec<String> = policies
            .iter()
            .map(|policy| ObjectKey::of(&policy.metadata).to_string())
            .collect();
        found.push(format!(
            "no Allow rule names it; add one with resource {{kind: {what}, name: \"{}:{}\"}} to {}",
            item.server,
            item.name,
            names.join(" or ")
        ));
    }
    found
}
