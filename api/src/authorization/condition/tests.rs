use serde_json::json;

use super::*;

fn holds(text: &str, caller: &Value, call: &Value) -> Option<bool> {
    let none = Map::new();
    let condition = Condition::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let annotations = json!({"readOnlyHint": true});
    let inputs = Inputs {
        claims: caller.as_object().unwrap_or(&none),
        annotations: annotations.as_object().expect("an object"),
        arguments: Some(call),
    };
    condition.holds(&inputs, &Cell::new(DECISION_STEPS))
}

fn refused(text: &str) -> ConditionError {
    Condition::compile(text).expect_err(text)
}

#[test]
fn conditions_read_claims_annotations_and_arguments() {
    let caller =
        json!({"sub": "me", "level": 3, "groups": ["staff", "admins"], "a": {"b": null}, "big": 1e300});
    let call = json!({"path": "/srv/x", "n": 5, "tags": ["a", "b"], "deep": [{"x": 1}]});
    for text in [
        "claims.sub == 'me'",
        "claims['level'] >= 3 && claims.level < 3.5",
        "'admins' in claims.groups",
        "claims.groups.exists(g, g.startsWith('adm'))",
        "claims.groups.map(g, g + '!').size() == 2",
        "claims.groups.filter(g, g != 'x').size() == size(claims.groups)",
        "!has(claims.absent) && claims.a.b == null",
        "annotations.readOnlyHint",
        "arguments.path.startsWith('/srv/') && !arguments.path.contains('..')",
        "arguments.path.matches('^/srv/[a-z]+$') && matches(arguments.path, 'x')",
        "arguments.tags.all(tag, tag in ['a', 'b', 'c'])",
        "arguments.deep[0].x + 1 == 2",
        "type(arguments.n) == int && string(arguments.n) == '5'",
        "arguments.absent == 1 || claims.sub == 'me'",
        "claims.big > 1.0 ? true : false",
    ] {
        assert_eq!(holds(text, &caller, &call), Some(true), "{text}");
    }
    for text in [
        "claims.sub",
        "claims.absent == 'x'",
        "arguments.n + 'x' == ''",
        "arguments.n / 0 == 1",
        "arguments.tags[7] == 'a'",
        "claims.sub > 1",
    ] {
        assert_eq!(holds(text, &caller, &call), None, "{text}");
    }
}

#[test]
fn what_cannot_be_read_or_bounded_does_not_compile() {
    for text in [
        "",
        "claims.",
        "claims.sub == 'me",
        "a b",
        "claims.?sub",
        "(",
        "'\\",
        "claims.sub = 'me'",
    ] {
        assert!(
            matches!(refused(text), ConditionError::Syntax(_)),
            "{text}: {}",
            refused(text)
        );
    }
    for text in ["user.name == 'x'", "claims.all(x, y)", ".arguments == 1", "now"] {
        assert!(
            matches!(refused(text), ConditionError::Variable(_)),
            "{text}: {}",
            refused(text)
        );
    }
    assert!(matches!(
        refused("claims.a.all(arguments, true)"),
        ConditionError::Variable(_)
    ));
    for text in [
        "claims.sub.lower() == 'x'",
        "timestamp('x') == 1",
        "optional.none() == 1",
    ] {
        let error = refused(text);
        let named = matches!(error, ConditionError::Function(_) | ConditionError::Variable(_));
        assert!(named, "{text}: {error}");
    }
    for text in [
        "arguments.a.all(x, arguments.b.all(y, x == y))",
        "arguments.a.map(x, x + x).map(y, y + y).size() > 1",
        "arguments.a.filter(x, true).exists(x, true)",
        "[arguments.a.map(x, x)].all(y, true)",
    ] {
        assert_eq!(refused(text), ConditionError::Nested, "{text}");
    }
    for text in [
        "claims.sub.matches(claims.p)",
        "claims.sub.matches('(')",
        "claims.sub.matches('(\\\\w{900}){900}')",
    ] {
        assert!(
            matches!(refused(text), ConditionError::Pattern(_)),
            "{text}: {}",
            refused(text)
        );
    }
    assert!(matches!(
        refused("Thing{a: 1} == 1"),
        ConditionError::Unsupported(_)
    ));
}

#[test]
fn a_condition_has_at_most_1024_characters() {
    let of_length = |length: usize| format!("'{}' == ''", "é".repeat(length - 8));
    assert!(Condition::compile(&of_length(MAX_CONDITION)).is_ok());
    assert_eq!(refused(&of_length(MAX_CONDITION + 1)), ConditionError::TooLong);
}

/// On a stack as small as that of a worker thread, in a build without optimisation.
#[test]
fn no_text_of_the_allowed_length_overflows_the_stack() {
    let run = || {
        let texts = [
            "(", "[", "{1:", "!", "-", "a.", "a+", "a(", "a[", "a?a:", "!(", "-(", "a.b(", "a||", "a==",
            "[a,",
        ];
        for piece in texts {
            let repeated = piece.repeat(MAX_CONDITION / piece.len());
            let _ = Condition::compile(&repeated);
            let closed = match piece {
                "(" | "!(" | "-(" => ")",
                "[" | "a[" => "]",
                _ => "a",
            };
            let half = piece.repeat(MAX_CONDITION / 2 / piece.len());
            let _ = Condition::compile(&format!("{half}a{}", closed.repeat(MAX_CONDITION / 2 - 1)));
            let _ = Condition::compile(&format!("{}a", piece.repeat((MAX_CONDITION - 1) / piece.len())));
        }
        let deepest = format!("claims{}", ".a".repeat(MAX_CONDITION));
        let fits: String = deepest.chars().take(6 + 2 * 60).collect();
        assert_eq!(
            Condition::compile(&fits).map(|condition| condition.names_arguments()),
            Ok(false)
        );
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run);
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn the_conditions_of_one_decision_share_their_steps() {
    let condition = Condition::compile("claims.sub == 'me'").expect("a condition");
    let caller = json!({"sub": "me"});
    let inputs = Inputs {
        claims: caller.as_object().expect("an object"),
        annotations: &Map::new(),
        arguments: None,
    };
    let left = Cell::new(DECISION_STEPS);
    assert_eq!(condition.holds(&inputs, &left), Some(true));
    let one = DECISION_STEPS - left.get();
    assert!(one > 0);
    left.set(2 * one - 1);
    assert_eq!(condition.holds(&inputs, &left), Some(true));
    assert_eq!(condition.holds(&inputs, &left), None, "nothing is left");
}

#[test]
fn evaluations_that_would_take_too_many_steps_are_errors() {
    let many: Vec<Value> = (0..3000).map(|n| json!(format!("{n}"))).collect();
    let caller = json!({});
    let quadratic = "arguments.a.all(x, x in arguments.a)";
    assert_eq!(holds(quadratic, &caller, &json!({"a": many[..200]})), Some(true));
    assert_eq!(holds(quadratic, &caller, &json!({"a": many})), None);
    assert_eq!(
        holds("size(arguments.a) == 3000", &caller, &json!({"a": many})),
        Some(true)
    );
    let copies = "arguments.a.map(x, [arguments, arguments, arguments]) == arguments.a.map(x, [arguments])";
    assert_eq!(holds(copies, &caller, &json!({"a": many[..200]})), None);
}

#[test]
fn arguments_that_two_readers_could_understand_differently_are_unreadable() {
    assert_eq!(
        arguments(r#"{"a":[1,-2,3.5,null,true,{"b":"c"}]}"#),
        Some(json!({"a": [1, -2, 3.5, null, true, {"b": "c"}]}))
    );
    for text in [
        r#"{"path":"/safe","path":"/etc"}"#,
        r#"{"path":"/safe","Path":"/etc"}"#,
        r#"{"path":"/safe","p\u0061th":"/etc"}"#,
        r#"{"a":[{"b":{"x":1,"X":2}}]}"#,
        r#"{"a":"\ud800"}"#,
        "{",
        "",
    ] {
        assert_eq!(arguments(text), None, "{text}");
    }
    assert_eq!(
        arguments(&format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_ARGUMENTS_TEXT))),
        None
    );
}

/// Longer than arguments that are looked at.
const MAX_ARGUMENTS_TEXT: usize = 65 * 1024;

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_condition() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "claims",
            "arguments",
            "annotations",
            ".",
            "a",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            "'x'",
            "1",
            "-",
            "+",
            "==",
            "&&",
            "||",
            "!",
            "?",
            ":",
            ",",
            "all",
            "x",
            "map",
            "has",
            "in",
            "size",
            "matches",
            "1u",
            "1.5",
            "null",
            "true",
            "b'a'",
            "\"",
            "\\",
            "r'",
            " ",
            "é",
            "0x",
            "@result",
            "`",
        ]);
        prop::collection::vec(word, 0..30).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_text_makes_compiling_or_evaluating_panic(text in prop_oneof![any_condition(), any::<String>()]) {
            if let Ok(condition) = Condition::compile(&text) {
                let json = json!({"a": [1, "x", {"a": null}], "x": 1.5});
                let members = json.as_object().expect("an object");
                let inputs = Inputs { claims: members, annotations: members, arguments: Some(&json) };
                let _ = condition.holds(&inputs, &Cell::new(DECISION_STEPS));
            }
        }
    }
}
