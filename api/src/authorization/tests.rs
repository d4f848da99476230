//! Rules, policies and what they concern.

mod conditions;
mod properties;

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
