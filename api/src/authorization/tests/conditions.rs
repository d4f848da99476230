//! Rules with a condition.

use super::*;

fn called(entries: &[AuthPolicyEntry], caller: Option<&Value>, arguments: &str) -> Outcome {
    let claims = caller.map(claims);
    let annotations = super::claims(&json!({"readOnlyHint": true}));
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
