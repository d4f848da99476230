use super::*;
use crate::protocol::message::{read, splice};
use crate::secret::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

fn keys() -> Keys {
    Keys::new(Secret::new("k"), None)
}

fn round() -> Round {
    Round {
        server: "ns/one".to_owned(),
        method: "tools/call".to_owned(),
        name: "ask".to_owned(),
        binding: None,
        now: 100,
        nonce: Uuid::nil(),
    }
}

fn bridge(client: Era, server: Era) -> Bridge {
    Bridge {
        client,
        server,
        method: "tools/call".to_owned(),
        id: "9007199254740993".to_owned(),
        progress: Some("7".to_owned()),
        mapped: (client != server && client == Era::Modern).then(|| "\"g1-x\"".to_owned()),
        logs: false,
        private: false,
        state: None,
        round: Some(round()),
        own_info: false,
    }
}

#[test]
fn a_server_that_may_be_known_is_named_by_its_results() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"own"}}}}"#;
    let name =
        |answer: &Value| answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"].clone();
    for (client, own_info, expected) in [
        (Era::Legacy, false, Value::Null),
        (Era::Legacy, true, json!("own")),
        (Era::Modern, false, json!("Kuadrant MCP Gateway")),
        (Era::Modern, true, json!("own")),
    ] {
        let bridge = Bridge {
            own_info,
            ..bridge(client, Era::Modern)
        };
        assert_eq!(name(&answered(&bridge, text)), expected, "{client:?} {own_info}");
    }
    // A server that does not say who it is leaves the gateway's name.
    let bridge = Bridge {
        own_info: true,
        ..bridge(Era::Modern, Era::Legacy)
    };
    let plain = r#"{"jsonrpc":"2.0","id":"g1-x","result":{"content":[]}}"#;
    assert_eq!(name(&answered(&bridge, plain)), json!("Kuadrant MCP Gateway"));
}

fn answered(bridge: &Bridge, text: &str) -> Value {
    serde_json::from_str(&bridge.answer(&keys(), text)).unwrap()
}

fn edited(bridge: &Bridge, text: &str) -> Value {
    let message = read(text.as_bytes()).unwrap();
    let level = "info".to_owned();
    let (range, with) = message
        .joined(bridge.edits(&message, Some(&level), r#"{"roots":{}}"#))
        .unwrap();
    serde_json::from_slice(&splice(text.as_bytes(), &range, &with).unwrap()).unwrap()
}

#[test]
fn d68_answers_have_what_the_clients_revision_has_and_nothing_else() {
    let with_hints = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete","ttlMs":5,"cacheScope":"public","_meta":{"a":1,"io.modelcontextprotocol/serverInfo":{"name":"own"}}}}"#;
    let legacy = answered(&bridge(Era::Legacy, Era::Modern), with_hints);
    assert_eq!(legacy["result"], json!({"content": [], "_meta": {"a": 1}}));
    assert_eq!(legacy["id"], json!(9_007_199_254_740_993_u64));
    let plain = r#"{"jsonrpc":"2.0","id":"g1-x","result":{"content":[]}}"#;
    let modern = bridge(Era::Modern, Era::Legacy).answer(&keys(), plain);
    let start = r#"{"jsonrpc":"2.0","id":9007199254740993,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"Kuadrant MCP Gateway","#;
    assert!(modern.starts_with(start), "{modern}");
    let read = Bridge {
        method: "resources/read".to_owned(),
        ..bridge(Era::Modern, Era::Legacy)
    };
    let result = &answered(&read, plain)["result"];
    assert_eq!(
        (&result["ttlMs"], &result["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let same = Bridge {
        method: "resources/read".to_owned(),
        ..bridge(Era::Modern, Era::Modern)
    };
    let result = &answered(&same, with_hints)["result"];
    assert_eq!(
        (&result["ttlMs"], &result["cacheScope"]),
        (&json!(5), &json!("public"))
    );
    let filtered = Bridge {
        private: true,
        ..same
    };
    assert_eq!(answered(&filtered, with_hints)["result"]["cacheScope"], "private");
}

#[test]
fn d67_input_that_cannot_be_asked_for_becomes_a_tool_error_that_names_it() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{}}}}}"#;
    let legacy = bridge(Era::Legacy, Era::Modern);
    let result = &answered(&legacy, text)["result"];
    assert_eq!(result["isError"], true);
    assert!(
        result["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("elicitation/create")
    );
    let missing = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"message":"x","data":{"requiredCapabilities":{"sampling":{}}}}}"#;
    let result = &answered(&legacy, missing)["result"];
    assert!(
        result["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("sampling")
    );
    let prompt = Bridge {
        method: "prompts/get".to_owned(),
        ..legacy
    };
    assert_eq!(answered(&prompt, text)["error"]["code"], -32603);
}

#[test]
fn s8_a_servers_state_reaches_the_client_sealed() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{},"requestState":"a\"b"}}"#;
    let answer = answered(&bridge(Era::Modern, Era::Modern), text);
    let sealed = answer["result"]["requestState"].as_str().unwrap();
    assert_eq!(round().open(&keys(), sealed).as_deref(), Some("a\"b"));
    let listing = Bridge {
        method: "completion/complete".to_owned(),
        ..bridge(Era::Modern, Era::Modern)
    };
    assert_eq!(
        answered(&listing, text)["error"]["code"],
        -32603,
        "not on this method"
    );
}

#[test]
fn errors_have_the_codes_of_the_clients_revision() {
    let error =
        |code: i64| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"message":"m","code":{code},"data":7}}}}"#);
    let code =
        |client, server, code| answered(&bridge(client, server), &error(code))["error"]["code"].clone();
    assert_eq!(code(Era::Modern, Era::Legacy, -32002), -32602);
    assert_eq!(code(Era::Modern, Era::Legacy, -32042), -32603);
    assert_eq!(code(Era::Modern, Era::Modern, -32021), -32021);
    assert_eq!(code(Era::Legacy, Era::Modern, -32020), -32603);
    assert_eq!(code(Era::Legacy, Era::Modern, -32602), -32602);
    let kept = answered(&bridge(Era::Modern, Era::Legacy), &error(-32002));
    assert_eq!(
        (&kept["error"]["message"], &kept["error"]["data"]),
        (&json!("m"), &json!(7))
    );
    for bad in [
        "",
        "7",
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":7}"#,
    ] {
        assert_eq!(
            answered(&bridge(Era::Modern, Era::Modern), bad)["error"]["code"],
            -32603,
            "{bad}"
        );
    }
    let odd = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task"}}"#;
    assert_eq!(
        answered(&bridge(Era::Modern, Era::Modern), odd)["error"]["code"],
        -32603
    );
    assert_eq!(
        answered(&bridge(Era::Legacy, Era::Modern), odd)["error"]["code"],
        -32603
    );
}

#[test]
fn a_request_to_a_server_with_sessions_has_a_new_id_and_no_protocol_members() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"info","progressToken":7,"traceparent":"t"},"arguments":{"x":1}}}"#;
    let sent = edited(&bridge(Era::Modern, Era::Legacy), text);
    assert_eq!(sent["id"], "g1-x");
    assert_eq!(
        sent["params"]["_meta"],
        json!({"traceparent": "t", "progressToken": "g1-x"})
    );
    assert_eq!(sent["params"]["arguments"], json!({"x": 1}));
}

#[test]
fn a_request_to_a_server_without_sessions_says_what_each_must_say() {
    for params in [
        r#"{"name":"a"}"#,
        r#"{}"#,
        r#"{"_meta":{"progressToken":7},"name":"a"}"#,
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let sent = edited(&bridge(Era::Legacy, Era::Modern), &text);
        let meta = &sent["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(
            meta["io.modelcontextprotocol/clientCapabilities"],
            json!({"roots": {}})
        );
        assert_eq!(meta["io.modelcontextprotocol/logLevel"], "info");
        assert_eq!(
            meta.get("progressToken").is_some(),
            params.contains("progressToken")
        );
        assert_eq!(sent["params"].get("name").is_some(), params.contains("name"));
    }
}

#[test]
fn progress_has_the_clients_token_and_logs_come_only_when_asked_for() {
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    let shared = bridge(Era::Modern, Era::Legacy);
    assert_eq!(
        shared.notice(&progress("\"g1-x\"")),
        Passage::Changed(progress("7"))
    );
    assert_eq!(shared.notice(&progress("8")), Passage::Drop, "another call's");
    let own = bridge(Era::Modern, Era::Modern);
    assert_eq!(own.notice(&progress("7")), Passage::Same);
    let silent = Bridge {
        progress: None,
        ..own
    };
    assert_eq!(silent.notice(&progress("7")), Passage::Drop);
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#;
    assert_eq!(silent.notice(log), Passage::Drop);
    assert_eq!(Bridge { logs: true, ..silent }.notice(log), Passage::Same);
}

#[test]
fn s23_a_request_state_past_its_bound_is_not_sealed() {
    let asked = |size: usize| {
        let state = "x".repeat(size);
        let text = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required", "requestState": state}});
        answered(&bridge(Era::Modern, Era::Modern), &text.to_string())
    };
    let sealed = asked(MAX_STATE)["result"]["requestState"]
        .as_str()
        .map_or(0, str::len);
    assert!((MAX_STATE..=64 * 1024).contains(&sealed), "{sealed}");
    assert_eq!(asked(MAX_STATE + 1)["error"]["code"], -32603);
}
