use super::*;
use crate::auth::session::{NewSession, mint};
use crate::config::document;
use crate::secret::Secret;
use std::time::Duration;

fn keys() -> Keys {
    Keys::new(Secret::new("0123456789abcdef0123456789abcdef"), None)
}

fn claims(cap: &str) -> SessionClaims {
    let new = NewSession {
        version: "2025-11-25",
        capabilities: cap.to_owned(),
        binding: None,
        length: Duration::from_secs(60),
    };
    mint(&keys(), new, 1000).1
}

fn relay(claims: &SessionClaims, server: &str, place: Place) -> Relay {
    let backend = BackendSession {
        id: Some(format!("session of {server}")),
        version: "2025-11-25".to_owned(),
        logging: true,
    };
    let entry = format!("servers: [{{name: {server}, url: 'http://one'}}]");
    let config = document::read(entry.as_bytes()).unwrap();
    Relay::new(claims, (&config.servers[0], &backend), place, true)
}

fn changed(passage: Passage) -> serde_json::Value {
    match passage {
        Passage::Changed(text) | Passage::Relayed(_, text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn d32_equal_ids_of_two_servers_become_two_ids_that_lead_back() {
    let claims = claims("s");
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[]}}"#;
    let ids = ["a/one", "a/two"].map(|server| {
        let message = changed(relay(&claims, server, Place::Call).judge(&keys(), text));
        message["id"].as_str().unwrap().to_owned()
    });
    assert_ne!(ids[0], ids[1]);
    for (id, server) in ids.iter().zip(["a/one", "a/two"]) {
        let ticket = Ticket::open(&keys(), id).unwrap();
        assert_eq!(
            (ticket.server.as_str(), ticket.original.as_str(), ticket.jti),
            (server, "1", claims.jti)
        );
        assert_eq!(Ticket::open(&keys(), &id.replace("g1.", "g1.A")), None);
    }
}

#[test]
fn the_kind_of_the_original_id_is_kept() {
    let claims = claims("r");
    for id in ["0", "\"0\"", "9007199254740993", "\"a\\u0041\""] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
        let message = changed(relay(&claims, "a/one", Place::Call).judge(&keys(), &text));
        let ticket = Ticket::open(&keys(), message["id"].as_str().unwrap()).unwrap();
        assert_eq!(ticket.original, id);
    }
}

#[test]
fn what_the_client_did_not_declare_is_answered_at_once() {
    let asks = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":3,"method":"{method}","params":{params}}}"#)
    };
    let refused = |method: &str| {
        let what = format!("Method not found: {method}");
        Passage::Refused(kind(method), error(Some("3"), METHOD_NOT_FOUND, &what, None))
    };
    for (cap, method, params, passes) in [
        ("", "sampling/createMessage", "{}", false),
        ("s", "sampling/createMessage", "{}", true),
        ("s", "sampling/createMessage", r#"{"tools":[]}"#, false),
        ("st", "sampling/createMessage", r#"{"tools":[]}"#, true),
        ("e", "elicitation/create", "{}", true),
        ("e", "elicitation/create", r#"{"mode":"url"}"#, false),
        ("u", "elicitation/create", r#"{"mode":"url"}"#, true),
        ("u", "elicitation/create", r#"{"mode":"form"}"#, false),
        ("s", "roots/list", "{}", false),
        ("estrlux", "tasks/get", "{}", false),
    ] {
        let passage = relay(&claims(cap), "a/one", Place::Call).judge(&keys(), &asks(method, params));
        match passes {
            true => drop(changed(passage)),
            false => assert_eq!(passage, refused(method), "{cap} {method} {params}"),
        }
    }
    let ping = relay(&claims(""), "a/one", Place::Call).judge(&keys(), &asks("ping", "{}"));
    assert_eq!(
        ping,
        Passage::Reply(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#.to_owned())
    );
}

#[test]
fn an_elicitation_says_who_asks_and_is_taken_back_under_the_same_id() {
    let (claims, keys) = (claims("e"), keys());
    let relay = relay(&claims, "a/one", Place::Call);
    let text = r#"{"jsonrpc":"2.0","id":"x","method":"elicitation/create","params":{"message":"Name?","requestedSchema":{"type":"object"},"_meta":{"progressToken":5}}}"#;
    let message = changed(relay.judge(&keys, text));
    assert_eq!(message["params"]["message"], "[a/one] Name?");
    assert_eq!(
        message["params"]["requestedSchema"],
        serde_json::json!({"type": "object"})
    );
    let token = message["params"]["_meta"]["progressToken"].as_str().unwrap();
    assert_eq!(Ticket::open(&keys, token).unwrap().original, "5");
    let back = changed(relay.judge(
        &keys,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}"#,
    ));
    assert_eq!(back["params"]["requestId"], message["id"]);
}

#[test]
fn notices_of_a_server_reach_those_whom_they_concern() {
    let (claims, keys) = (claims("e"), keys());
    let call = relay(&claims, "a/one", Place::Call).with_level(Some("warning".to_owned()));
    let mut notices = relay(&claims, "a/one", Place::Notices);
    notices.subscribed = Arc::new(vec!["file:///x".to_owned()]);
    let notice = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{params}}}"#)
    };
    let log =
        |level: &str, logger: &str| notice("message", &format!(r#"{{"level":"{level}"{logger},"data":1}}"#));
    assert_eq!(call.judge(&keys, &log("info", "")), Passage::Drop);
    assert_eq!(call.judge(&keys, &log("error", "")), Passage::Same);
    assert_eq!(
        changed(notices.judge(&keys, &log("info", "")))["params"]["logger"],
        "a/one"
    );
    assert_eq!(
        changed(notices.judge(&keys, &log("info", r#","logger":"db""#)))["params"]["logger"],
        "a/one/db"
    );
    for (method, params, on_call, unsolicited) in [
        ("tools/list_changed", "{}", Passage::Drop, Passage::Drop),
        (
            "progress",
            r#"{"progressToken":1,"progress":1}"#,
            Passage::Same,
            Passage::Drop,
        ),
        (
            "resources/updated",
            r#"{"uri":"file:///x"}"#,
            Passage::Same,
            Passage::Same,
        ),
        (
            "resources/updated",
            r#"{"uri":"file:///y"}"#,
            Passage::Same,
            Passage::Drop,
        ),
        (
            "elicitation/complete",
            r#"{"elicitationId":"1"}"#,
            Passage::Same,
            Passage::Same,
        ),
    ] {
        assert_eq!(call.judge(&keys, &notice(method, params)), on_call, "{method}");
        assert_eq!(
            notices.judge(&keys, &notice(method, params)),
            unsolicited,
            "{method}"
        );
    }
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"method":"ping"}}"#;
    assert_eq!(call.judge(&keys, answer), Passage::Same);
    assert_eq!(notices.judge(&keys, answer), Passage::Drop);
}

#[test]
fn what_does_not_read_as_a_message_reaches_no_client() {
    let (keys, claims) = (keys(), claims("e"));
    let (call, notices) = (
        relay(&claims, "a/one", Place::Call),
        relay(&claims, "a/one", Place::Notices),
    );
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let asks = r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"m"}}"#;
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"x":{deep}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{{"x":{deep}}}}}"#),
        format!("[{asks}]"),
        r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#.to_owned(),
        "no message".to_owned(),
    ] {
        assert_eq!(notices.judge(&keys, &text), Passage::Drop, "{text}");
        assert_eq!(call.judge(&keys, &text), Passage::Drop, "{text}");
    }
}

#[test]
fn a_client_of_the_revision_with_batches_gets_what_may_pass_of_one() {
    let mut claims = claims("e");
    claims.ver = "2025-03-26".to_owned();
    let relay = |place| relay(&claims, "a/one", place);
    let asks = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"message":"m"}}}}"#)
    };
    let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    let batch = format!(
        "[{},{answer},[{answer}],{}]",
        asks("elicitation/create"),
        asks("roots/list")
    );
    let passed = changed(relay(Place::Call).judge(&keys(), &batch));
    assert_eq!(passed.as_array().unwrap().len(), 2, "{passed}");
    assert_eq!(passed[0]["params"]["message"], "[a/one] m");
    assert_eq!(passed[1]["id"], 7);
    assert_eq!(relay(Place::Notices).judge(&keys(), &batch), Passage::Drop);
}
