use super::*;

pub(in crate::bridges) const ASKS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"theirs","version":"1"}}}"#;
pub(in crate::bridges) const ANSWERS: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"capabilities":{"logging":{},"resources":{"subscribe":true},"tools":{}},"protocolVersion":"2025-06-18"}}"#;

pub(in crate::bridges) fn request(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

fn progress(token: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token}}}}}"#)
}

fn opened() -> Sharing {
    let mut sharing = Sharing::default();
    sharing.said_by(1, ASKS);
    sharing.said_by_child(ANSWERS);
    sharing
}

#[test]
fn s26_a_shared_process_is_opened_once_and_without_what_a_client_can_do() {
    let mut sharing = Sharing::default();
    let asked = sharing.said_by(1, ASKS);
    let [Out::Child(asked)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert!(asked.contains(r#""capabilities":{}"#) && asked.contains(r#""protocolVersion":"2025-06-18""#));
    assert!(
        !asked.contains("theirs") && !asked.contains("sampling"),
        "{asked}"
    );
    assert_eq!(sharing.said_by(2, ASKS), []);
    let told = |session| {
        let result = r#"{"capabilities":{"resources":{},"tools":{}},"protocolVersion":"2025-06-18"}"#;
        Out::Session(session, reply::result("1", result))
    };
    let initialized = Out::Child(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned());
    assert_eq!(sharing.said_by_child(ANSWERS), [initialized, told(1), told(2)]);
    assert_eq!(sharing.said_by(3, ASKS), [told(3)]);
    assert_eq!(
        sharing.said_by(3, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        []
    );
}

#[test]
fn an_answer_that_opens_nothing_is_told_and_the_next_session_asks_again() {
    let mut sharing = Sharing::default();
    sharing.said_by(1, ASKS);
    let failed = sharing.said_by_child(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-1,"message":"no"}}"#);
    let told = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#.to_owned();
    assert_eq!(failed, [Out::Session(1, told)]);
    assert!(matches!(sharing.said_by(2, ASKS).as_slice(), [Out::Child(_)]));
}

#[test]
fn s20_sessions_with_equal_ids_and_tokens_get_what_is_theirs() {
    let mut sharing = opened();
    assert_eq!(
        sharing.said_by(1, &request("7", "\"t\"")),
        [Out::Child(request("1", "1"))]
    );
    assert_eq!(
        sharing.said_by(2, &request("7", "\"t\"")),
        [Out::Child(request("2", "2"))]
    );
    assert_eq!(
        sharing.said_by_child(&progress("2")),
        [Out::Session(2, progress("\"t\""))]
    );
    assert_eq!(sharing.said_by_child(&progress("\"t\"")), []);
    let answer = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    assert_eq!(sharing.said_by_child(&answer(2)), [Out::Session(2, answer(7))]);
    assert_eq!(sharing.said_by_child(&answer(2)), [], "it was answered");
    let cancelled = |id| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    };
    assert_eq!(sharing.said_by(2, &cancelled(7)), [], "the other's call runs on");
    assert_eq!(sharing.said_by(1, &cancelled(7)), [Out::Child(cancelled(1))]);
    assert_eq!(sharing.left(1), [Out::Child(cancelled(1))]);
    assert_eq!(sharing.said_by_child(&answer(1)), []);
}

#[test]
fn calls_at_one_process_have_a_bound_that_cancelled_ones_do_not_fill() {
    let mut sharing = opened();
    for id in 0..MAX_CALLS {
        sharing.said_by(1, &request(&id.to_string(), "1"));
    }
    let refused = sharing.said_by(2, &request("7", "1"));
    assert!(
        matches!(refused.as_slice(), [Out::Session(2, text)] if text.contains("busy")),
        "{refused:?}"
    );
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#;
    sharing.said_by(1, cancelled);
    assert!(matches!(
        sharing.said_by(2, &request("7", "1")).as_slice(),
        [Out::Child(_)]
    ));
}

#[test]
fn s20_what_the_process_says_to_nobody_reaches_nobody() {
    let mut sharing = opened();
    for text in [
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#,
        "no message",
    ] {
        assert_eq!(sharing.said_by_child(text), []);
    }
    let changed = reply::notification("notifications/tools/list_changed");
    assert_eq!(sharing.said_by_child(&changed), [Out::All(changed)]);
    let asks = r#"{"jsonrpc":"2.0","id":"s","method":"sampling/createMessage","params":{}}"#;
    let refused = sharing.said_by_child(asks);
    assert!(
        matches!(refused.as_slice(), [Out::Child(text)] if text.contains("-32601") && text.contains(r#""id":"s""#)),
        "{refused:?}"
    );
    let subscribes = r#"{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a:b"}}"#;
    let refused = sharing.said_by(1, subscribes);
    assert!(
        matches!(refused.as_slice(), [Out::Session(1, text)] if text.contains("-32601")),
        "{refused:?}"
    );
}
