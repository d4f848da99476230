//! What holds for random policies, claims and calls.

use proptest::prelude::*;

use super::*;

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let resource = prop::sample::select(vec![
        "*", "a/s:t", "a/s:u", "a/s:*", "a/*:t", "*/s:t", "b/s:t", "a/r:*", "*/*:*", "a/s:t*",
    ]);
    let claim = prop::option::of(prop::sample::select(vec![
        ("sub", "me"),
        ("sub", "you"),
        ("g", "x"),
    ]));
    let effect = prop::sample::select(vec![PolicyAction::Allow, PolicyAction::Deny]);
    let condition = prop::sample::select(vec![
        "",
        "",
        "true",
        "false",
        "claims.sub == 'me'",
        "claims.absent == 1",
        "claims.n",
        "arguments.n > 1",
        "!has(arguments.n)",
        "arguments.absent",
        "arguments.n == 1 || claims.sub == 'you'",
    ]);
    (effect, claim, resource, condition).prop_map(|(effect, claim, resource, condition)| PolicyRule {
        condition: condition.into(),
        ..rule(effect, claim, resource)
    })
}

fn any_policies() -> impl Strategy<Value = Vec<AuthPolicyEntry>> {
    let target = prop::sample::select(vec![
        ("Gateway", "i/gw"),
        ("MCPServerRegistration", "a/s"),
        ("MCPServerRegistration", "a/r"),
        ("MCPVirtualServer", "v/v"),
    ]);
    let default = prop::sample::select(vec![PolicyAction::Allow, PolicyAction::Deny]);
    let one =
        (target, default, prop::collection::vec(any_rule(), 0..6)).prop_map(|(target, default, rules)| {
            AuthPolicyEntry {
                default_action: default,
                ..policy("n/p", target, rules)
            }
        });
    prop::collection::vec(one, 0..4)
}

fn any_item() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("a/s", "t"),
        ("a/s", "u"),
        ("a/r", "t"),
        ("b/s", "t"),
        ("c/c", "tt"),
    ])
}

fn permitted(entries: &[AuthPolicyEntry], item: (&str, &str), sub: &str) -> bool {
    asked(entries, item, (sub, Purpose::List))
}

fn asked(entries: &[AuthPolicyEntry], item: (&str, &str), (sub, purpose): (&str, Purpose<'_>)) -> bool {
    let claims = claims(&json!({"sub": sub, "g": ["x", "y"]}));
    let request = Request {
        claims: Some(&claims),
        virtual_server: Some("v/v"),
        purpose,
    };
    let item = Item {
        kind: ItemKind::Tool,
        server: item.0,
        name: item.1,
        annotations: None,
    };
    Policies::new(entries, false).decide(&request, &item).permits()
}

/// The conditions of [`any_rule`], read by hand: of a list, for a caller with this subject.
fn condition_counts(rule: &PolicyRule, sub: &str) -> bool {
    match rule.condition.as_str() {
        "" | "true" => true,
        "claims.sub == 'me'" => sub == "me",
        "false" => false,
        "claims.absent == 1" | "claims.n" => rule.effect == PolicyAction::Deny,
        _ => rule.effect == PolicyAction::Allow,
    }
}

const CALLS: [&str; 5] = [r#"{"n":1}"#, r#"{"n":2}"#, "{}", r#"{"n":1,"N":2}"#, "[]"];

/// The decision table read word by word, rule by rule, without index.
fn plainly(entries: &[AuthPolicyEntry], item: (&str, &str), sub: &str) -> bool {
    let held = claims(&json!({"sub": sub, "g": ["x", "y"]}));
    let concerned: Vec<_> = entries
        .iter()
        .filter(|entry| {
            entry.targets.iter().any(|target| match target.kind.as_str() {
                "Gateway" => true,
                "MCPServerRegistration" => target.name == item.0,
                _ => target.name == "v/v",
            })
        })
        .collect();
    let any = |effect| {
        concerned.iter().flat_map(|entry| &entry.rules).any(|rule| {
            rule.effect == effect
                && ResourcePattern::parse(&rule.resource).is_some_and(|name| name.matches(item.0, item.1))
                && rule
                    .matches
                    .iter()
                    .all(|m| claim_matches(&held, &m.claim, &m.values))
                && condition_counts(rule, sub)
        })
    };
    let open = concerned
        .iter()
        .all(|entry| entry.default_action == PolicyAction::Allow);
    concerned.is_empty() || (!any(PolicyAction::Deny) && (any(PolicyAction::Allow) || open))
}

proptest! {
    #[test]
    fn the_index_decides_as_the_table_read_plainly(entries in any_policies(), item in any_item(), sub in "me|you|they") {
        prop_assert_eq!(permitted(&entries, item, &sub), plainly(&entries, item, &sub));
    }

    #[test]
    fn one_more_deny_rule_never_allows_more(
        entries in any_policies(), item in any_item(), at in any::<prop::sample::Index>(), added in any_rule(),
    ) {
        prop_assume!(!entries.is_empty());
        let mut more = entries.clone();
        let place = at.index(more.len());
        more[place].rules.push(PolicyRule { effect: PolicyAction::Deny, ..added });
        prop_assert!(permitted(&entries, item, "me") || !permitted(&more, item, "me"));
        for call in CALLS {
            let may = |entries: &[_]| asked(entries, item, ("me", Purpose::Call(call)));
            prop_assert!(may(&entries) || !may(&more));
        }
    }

    #[test]
    fn one_more_allow_rule_never_denies(
        entries in any_policies(), item in any_item(), at in any::<prop::sample::Index>(), added in any_rule(),
    ) {
        prop_assume!(!entries.is_empty());
        let mut more = entries.clone();
        let place = at.index(more.len());
        more[place].rules.push(PolicyRule { effect: PolicyAction::Allow, ..added });
        prop_assert!(!permitted(&entries, item, "me") || permitted(&more, item, "me"));
        for call in CALLS {
            let may = |entries: &[_]| asked(entries, item, ("me", Purpose::Call(call)));
            prop_assert!(!may(&entries) || may(&more));
        }
    }

    #[test]
    fn what_may_be_called_is_listed_and_without_arguments_in_conditions_what_is_listed_may_be_called(
        entries in any_policies(), item in any_item(), sub in "me|you",
    ) {
        let listed = permitted(&entries, item, &sub);
        let named = |rule: &PolicyRule| rule.condition.contains("arguments");
        let depends = entries.iter().flat_map(|entry| &entry.rules).any(named);
        for call in CALLS {
            let called = asked(&entries, item, (&sub, Purpose::Call(call)));
            prop_assert!(listed || !called);
            prop_assert!(depends || listed == called);
        }
    }
}
