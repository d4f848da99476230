use serde_json::json;

use super::*;
use crate::config::{PolicyMatch, PolicyRule, PolicyTarget};

fn rule(effect: PolicyAction, claim: Option<(&str, &str)>, resource: &str) -> PolicyRule {
    let matches = claim
        .map(|(claim, value)| PolicyMatch {
            claim: claim.into(),
            values: vec![value.into()],
        })
        .into_iter()
        .collect();
    PolicyRule {
        effect,
        matches,
        kind: "tool".into(),
        resource: resource.into(),
        ..PolicyRule::default()
    }
}

fn policy(name: &str, target: (&str, &str), rules: Vec<PolicyRule>) -> AuthPolicyEntry {
    let target = PolicyTarget {
        kind: target.0.into(),
        name: target.1.into(),
        port: None,
    };
    AuthPolicyEntry {
        name: name.into(),
        valid: true,
        targets: vec![target],
        rules,
        ..AuthPolicyEntry::default()
    }
}

const GATEWAY: (&str, &str) = ("Gateway", "infra/gw");
const CONVERT: &str = "default/mcp-tool:convert_to_markdown";

fn claims(value: &Value) -> Claims {
    value.as_object().expect("an object").clone()
}

fn outcome(entries: &[AuthPolicyEntry], caller: Option<&Value>) -> Outcome {
    let claims = caller.map(claims);
    let item = Item {
        kind: ItemKind::Tool,
        server: "default/mcp-tool",
        name: "convert_to_markdown",
        annotations: None,
    };
    Policies::new(entries, false).decide(
        &Request {
            claims: claims.as_ref(),
            ..Request::default()
        },
        &item,
    )
}

#[test]
fn the_policy_of_the_users_guide_lets_sub_me_use_the_tool_and_nobody_else() {
    let entries = [policy(
        "default/mcp-jq-auth",
        GATEWAY,
        vec![rule(PolicyAction::Allow, Some(("sub", "me")), CONVERT)],
    )];
    let allowed = Outcome::Allowed {
        policy: "default/mcp-jq-auth".into(),
        rule: "rule-0".into(),
    };
    assert_eq!(outcome(&entries, Some(&json!({"sub": "me"}))), allowed);
    assert_eq!(
        outcome(&entries, Some(&json!({"sub": "you"}))),
        Outcome::Denied(Denial::NoMatch)
    );
    assert_eq!(outcome(&entries, None), Outcome::Denied(Denial::NoMatch));
}

#[test]
fn a_gateway_that_no_policy_names_stays_open_unless_authorisation_is_required() {
    let item = Item {
        kind: ItemKind::Tool,
        server: "a/b",
        name: "c",
        annotations: None,
    };
    assert_eq!(
        Policies::default().decide(&Request::default(), &item),
        Outcome::Open
    );
    let required = Policies::new(&[], true).decide(&Request::default(), &item);
    assert_eq!(required, Outcome::Denied(Denial::NoPolicy));
}

#[test]
fn t66_empty_rules_and_unaccepted_policies_deny() {
    let me = json!({"sub": "me"});
    assert_eq!(
        outcome(&[policy("a/b", GATEWAY, vec![])], Some(&me)),
        Outcome::Denied(Denial::NoMatch)
    );
    let mut unaccepted = policy("a/b", GATEWAY, vec![rule(PolicyAction::Allow, None, "*")]);
    unaccepted.valid = false;
    assert_eq!(
        outcome(&[unaccepted], Some(&me)),
        Outcome::Denied(Denial::InvalidPolicy { policy: "a/b".into() })
    );
    let not_understood = policy("a/b", GATEWAY, vec![rule(PolicyAction::Allow, None, "no-slash")]);
    assert!(!outcome(&[not_understood], Some(&me)).permits());
}

#[test]
fn t67_one_matching_deny_beats_any_number_of_allows() {
    let allow = || rule(PolicyAction::Allow, None, "*");
    let deny = rule(PolicyAction::Deny, Some(("groups", "guests")), "default/*:*");
    let entries = [
        policy("a/allow", GATEWAY, vec![allow(), allow()]),
        policy(
            "b/deny",
            ("MCPServerRegistration", "default/mcp-tool"),
            vec![deny],
        ),
    ];
    let guest = outcome(&entries, Some(&json!({"groups": ["staff", "guests"]})));
    assert_eq!(
        guest,
        Outcome::Denied(Denial::Rule {
            policy: "b/deny".into(),
            rule: "rule-0".into()
        })
    );
    assert!(outcome(&entries, Some(&json!({"groups": ["staff"]}))).permits());
}

#[test]
fn a_policy_on_a_server_or_virtual_server_closes_only_that_one() {
    let on = |target| [policy("a/b", target, vec![])];
    assert!(!outcome(&on(("MCPServerRegistration", "default/mcp-tool")), None).permits());
    assert!(outcome(&on(("MCPServerRegistration", "default/other")), None).permits());
    assert!(outcome(&on(("MCPVirtualServer", "default/vs")), None).permits());
    let item = Item {
        kind: ItemKind::Tool,
        server: "default/mcp-tool",
        name: "x",
        annotations: None,
    };
    let request = Request {
        virtual_server: Some("default/vs"),
        ..Request::default()
    };
    assert!(
        !Policies::new(&on(("MCPVirtualServer", "default/vs")), false)
            .decide(&request, &item)
            .permits()
    );
}

#[test]
fn the_default_is_allow_only_when_every_concerned_policy_says_so() {
    let mut open = policy("a/open", GATEWAY, vec![]);
    open.default_action = PolicyAction::Allow;
    assert!(outcome(std::slice::from_ref(&open), None).permits());
    assert!(!outcome(&[open, policy("a/closed", GATEWAY, vec![])], None).permits());
}

#[test]
fn claims_match_as_strings_arrays_and_scope_words_only() {
    let held = claims(
        &json!({"sub": "me", "n": 1, "ok": true, "scope": "read write", "text": "read write",
        "realm_access": {"roles": ["admin"]}, "a.b": "exact", "a": {"b": "nested"}}),
    );
    let holds = |claim: &str, value: &str| claim_matches(&held, claim, &[value.to_owned()]);
    assert!(holds("sub", "me") && holds("scope", "write") && holds("scope", "read write"));
    assert!(holds("realm_access.roles", "admin") && holds("a.b", "exact"));
    for (claim, value) in [
        ("n", "1"),
        ("ok", "true"),
        ("text", "write"),
        ("absent", ""),
        ("a", "nested"),
        ("a.b", "nested"),
    ] {
        assert!(!holds(claim, value), "{claim}");
    }
}

#[test]
fn a_deny_rule_without_matches_refuses_also_callers_without_a_token() {
    let mut open = policy("a/open", GATEWAY, vec![rule(PolicyAction::Deny, None, CONVERT)]);
    open.default_action = PolicyAction::Allow;
    assert!(!outcome(&[open], None).permits());
}

fn called(entries: &[AuthPolicyEntry], caller: Option<&Value>, arguments: &str) -> Outcome {
    let claims = caller.map(claims);
    let annotations = self::claims(&json!({"readOnlyHint": true}));
    let item = Item {
        kind: ItemKind::Tool,
        server: "default/mcp-tool",
        name: "convert_to_markdown",
        annotations: Some(&annotations),
    };
    let request = Request {
        claims: claims.as_ref(),
        purpose: Purpose::Call(arguments),
        ..Request::default()
    };
    Policies::new(entries, false).decide(&request, &item)
}

fn conditional(effect: PolicyAction, condition: &str) -> PolicyRule {
    PolicyRule {
        condition: condition.into(),
        ..rule(effect, None, CONVERT)
    }
}

#[test]
fn a_condition_on_arguments_lists_the_tool_and_refuses_the_call() {
    let allow = conditional(PolicyAction::Allow, "arguments.uri.startsWith('https://')");
    let entries = [policy("a/b", GATEWAY, vec![allow])];
    let me = json!({"sub": "me"});
    assert!(outcome(&entries, Some(&me)).permits(), "listed");
    assert!(called(&entries, Some(&me), r#"{"uri":"https://x"}"#).permits());
    for arguments in [
        r#"{"uri":"file:///x"}"#,
        "{}",
        "",
        r#"{"uri":"https://x","URI":"file:///x"}"#,
    ] {
        let refused = called(&entries, Some(&me), arguments);
        assert_eq!(refused, Outcome::Refused(Denial::NoMatch), "{arguments}");
    }
    // Who does not see the tool learns nothing of its arguments.
    assert_eq!(
        called(&entries, None, r#"{"uri":"https://x"}"#),
        Outcome::Denied(Denial::NoMatch)
    );
    let mut open = policy(
        "a/open",
        GATEWAY,
        vec![conditional(PolicyAction::Deny, "arguments.n > 3")],
    );
    open.default_action = PolicyAction::Allow;
    let open = [open];
    assert!(outcome(&open, None).permits() && called(&open, None, r#"{"n":3}"#).permits());
    for arguments in [r#"{"n":4}"#, "{}", r#"{"n":"4"}"#] {
        let refused = called(&open, None, arguments);
        assert!(
            matches!(refused, Outcome::Refused(Denial::Rule { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn an_error_in_a_condition_never_allows_and_always_denies() {
    let me = json!({"sub": "me"});
    for error in ["claims.absent == 'x'", "claims.sub", "1 / 0 == 1"] {
        let allowing = [policy(
            "a/b",
            GATEWAY,
            vec![conditional(PolicyAction::Allow, error)],
        )];
        assert_eq!(outcome(&allowing, Some(&me)), Outcome::Denied(Denial::NoMatch));
        let denying = [policy(
            "a/b",
            GATEWAY,
            vec![
                rule(PolicyAction::Allow, None, "*"),
                conditional(PolicyAction::Deny, error),
            ],
        )];
        assert!(!outcome(&denying, Some(&me)).permits(), "{error}");
    }
    let unreadable = conditional(PolicyAction::Deny, "claims.");
    let entries = [policy(
        "a/b",
        GATEWAY,
        vec![rule(PolicyAction::Allow, None, "*"), unreadable],
    )];
    let refused = Outcome::Denied(Denial::InvalidPolicy { policy: "a/b".into() });
    assert_eq!(outcome(&entries, Some(&me)), refused);
}

#[test]
fn conditions_see_the_annotations_of_the_tool() {
    let entries = [policy(
        "a/b",
        GATEWAY,
        vec![conditional(PolicyAction::Allow, "annotations.readOnlyHint")],
    )];
    let me = json!({"sub": "me"});
    assert!(called(&entries, Some(&me), "{}").permits());
    assert!(
        !outcome(&entries, Some(&me)).permits(),
        "without annotations it is an error"
    );
}

mod properties {
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
        let one = (target, default, prop::collection::vec(any_rule(), 0..6)).prop_map(
            |(target, default, rules)| AuthPolicyEntry {
                default_action: default,
                ..policy("n/p", target, rules)
            },
        );
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
}
