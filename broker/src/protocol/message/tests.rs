use super::*;
use crate::protocol::reply::Payload;
use proptest::prelude::*;

fn invalid(body: &str) -> bool {
    matches!(read(body.as_bytes()), Err(MessageError::Invalid { .. }))
}

#[test]
fn d25_the_id_is_kept_byte_for_byte() {
    for id in ["9007199254740993", "\"1\"", "\"a\\u0041\\n\"", "-1"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(read(body.as_bytes()).unwrap().id, Some(id));
    }
}

#[test]
fn d28_routed_members_that_occur_twice_are_refused() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a","uri":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{},"_meta":{}}}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
    ] {
        assert!(invalid(body), "{body}");
    }
}

#[test]
fn d28_routed_members_in_another_spelling_are_refused() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Arguments":{"force":true}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","argumentſ":{"force":true}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"param\u017f":{"name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"Method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","Name":"b"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_META":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/ProtocolVersion":"2026-07-28"}}}"#,
    ] {
        assert!(invalid(body), "{body}");
    }
    let others =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Title":"x"},"Extra":1}"#;
    assert!(!invalid(others));
}

#[test]
fn duplicates_that_decide_nothing_pass() {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}"#;
    assert_eq!(read(body.as_bytes()).unwrap().name.unwrap().value, "a");
}

#[test]
fn what_is_no_message_is_refused_with_the_right_error() {
    for body in [
        "",
        "{",
        "\u{feff}{}",
        "{}x",
        "nope",
        r#"{"a":"\ud800","method":"x"}"#.trim_end_matches('}'),
    ] {
        assert_eq!(read(body.as_bytes()).err(), Some(MessageError::Parse), "{body:?}");
    }
    assert_eq!(read(b"{\"a\":\"\xff\"}").err(), Some(MessageError::Parse));
    assert_eq!(read(b"[]").err(), Some(MessageError::Batch));
    for body in [
        "1",
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1e3,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","method":7}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
    ] {
        assert!(invalid(body), "{body}");
    }
}

#[test]
fn an_invalid_message_keeps_the_id_that_could_be_read() {
    let error = read(br#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#).unwrap_err();
    assert_eq!(error.id(), Some("\"x\""));
}

#[test]
fn the_refusal_names_the_member_and_what_is_wrong_with_it() {
    for (members, member, problem) in [
        (r#""jsonrpc":"1.0","method":"x""#, "jsonrpc", "must be \"2.0\""),
        (
            r#""id":null,"method":"x""#,
            "id",
            "must be an integer or a string, and not long",
        ),
        (r#""method":7"#, "method", "must be a string"),
        (r#""x":1"#, "method", "is missing"),
        (r#""method":"x","result":{}"#, "method", "stands beside an answer"),
        (r#""result":{}"#, "id", "is missing"),
        (r#""method":"x","params":[]"#, "params", "must be an object"),
        (r#""method":"x","Params":{}"#, "params", "is spelt differently"),
        (r#""method":"x","y":1,"Y":2"#, "Y", "occurs twice"),
        (
            r#""method":"x","params":{"name":"a","name":"b"}"#,
            "params.name",
            "occurs twice",
        ),
        (
            r#""method":"x","params":{"Arguments":{}}"#,
            "params.arguments",
            "is spelt differently",
        ),
        (
            r#""method":"x","params":{"ref":{"URI":"a"}}"#,
            "params.ref.uri",
            "is spelt differently",
        ),
        (
            r#""method":"x","params":{"_meta":{"progresstoken":1}}"#,
            "params._meta.progressToken",
            "is spelt differently",
        ),
    ] {
        let version = if members.contains("jsonrpc") {
            ""
        } else {
            r#""jsonrpc":"2.0","#
        };
        let body = format!("{{{version}{members}}}");
        let refusal = read(body.as_bytes()).unwrap_err().refusal();
        let data = serde_json::json!({"member": member, "problem": problem});
        assert_eq!(refusal.message, "invalid request", "{body}");
        assert_eq!(refusal.payload, Payload::Data(data.to_string()), "{body}");
    }
    let long = format!(r#"{{"{0}":1,"{0}":2}}"#, "n".repeat(1000));
    let shown = read(long.as_bytes()).unwrap_err().refusal().body(None);
    assert!(shown.len() < 250, "{shown}");
    let members: Vec<String> = (0..64).map(|number| format!(r#""m{number}":1"#)).collect();
    let many = format!(r#"{{"jsonrpc":"2.0",{}}}"#, members.join(","));
    let shown = read(many.as_bytes()).unwrap_err().refusal().body(None);
    assert!(shown.contains(r#""member":"m63""#), "{shown}");
}

#[test]
fn kinds_are_told_apart() {
    let kind = |body: &str| read(body.as_bytes()).unwrap().kind;
    assert_eq!(
        kind(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
        MessageKind::Request
    );
    assert_eq!(
        kind(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        MessageKind::Notification
    );
    assert_eq!(
        kind(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#),
        MessageKind::Response
    );
    assert_eq!(
        kind(r#"{"jsonrpc":"2.0","id":"a","error":{}}"#),
        MessageKind::Response
    );
}

#[test]
fn the_modern_version_is_found_in_meta() {
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    assert_eq!(read(body).unwrap().meta.version.as_deref(), Some("2026-07-28"));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn d26_a_splice_changes_the_name_and_no_other_byte(arguments in json(), name in any::<String>(), new in any::<String>(), pretty in any::<bool>()) {
        let value = serde_json::json!({"jsonrpc":"2.0","id":7,"method":"tools/call","zzz":arguments,"params":{"arguments":arguments,"name":name}});
        let body = if pretty { serde_json::to_vec_pretty(&value).unwrap() } else { serde_json::to_vec(&value).unwrap() };
        let message = read(&body).unwrap();
        let routed = message.name.unwrap();
        prop_assert_eq!(routed.value.as_ref(), name.as_str());
        let spliced = splice(&body, &routed.range, &super::super::json::quoted(&new)).unwrap();
        let mut expected = value;
        expected["params"]["name"] = new.into();
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&spliced).unwrap(), expected);
        prop_assert_eq!(&spliced[..routed.range.start], &body[..routed.range.start]);
        prop_assert!(spliced.ends_with(&body[routed.range.end..]));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn what_it_accepts_serde_json_accepts(text in "[\\[\\]{}\",:0-9a-z\\\\ .eE+-]{0,60}") {
        if read(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
