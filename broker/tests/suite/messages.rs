//! Messages through Envoy (data-plane.md 16, D25–D39).

use crate::client_streams::listening;
use crate::fixture::Server;
use crate::relays::Events;
use crate::world::World;
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d25_d26_ids_and_bodies_pass_byte_for_byte() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    for id in ["9007199254740993", "\"1\"", "\"a\\u0041\\n\"", "-0"] {
        for method in ["tools/call", "ping"] {
            let body = format!(
                r#"{{ "params" : {{"_meta":{{"k/x":[1.50,2e0]}},"arguments":{{"a":"<b>&\u00e9"}},"name":"one_forecast"}} ,"zz":1,"method":"{method}","id":{id},"jsonrpc":"2.0"}}"#
            );
            let reply = client.post(body.clone()).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            assert!(
                reply.text.contains(&format!("\"id\":{id},")),
                "{id}: {}",
                reply.text
            );
            if method == "tools/call" {
                let seen = one.calls("tools/call").pop().unwrap();
                assert_eq!(seen.body, body.replace("\"one_forecast\"", "\"forecast\""));
                assert_eq!(
                    seen.header("content-length"),
                    Some(seen.body.len().to_string().as_str())
                );
            }
        }
    }
    let unknown = client
        .post(r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"nope"}}"#)
        .await;
    assert_eq!(
        unknown.text.trim_end(),
        r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32602,"message":"Unknown tool: nope"}}"#
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d27_without_a_prefix_a_body_passes_bit_for_bit() {
    let two = Server::start("two", &["plain"]).await;
    let world = World::start(&[(&two, "")], &[]).await;
    let client = world.client().initialized().await;
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pl\u0061in","arguments":{}}}"#;
    assert_eq!(client.post(body).await.status, 200);
    assert_eq!(
        two.calls("tools/call").pop().unwrap().body,
        body,
        "bit-identical without a prefix"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d28_bad_messages_are_refused_and_reach_no_server() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    for (body, code) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"one_forecast"}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"one_forecast","name":"x"}}"#,
            -32600,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","n\u0061me":"one_forecast"}}"#,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        ("{\"jsonrpc\":", -32700),
        ("\u{feff}{}", -32700),
    ] {
        let reply = client.post(body).await;
        assert_eq!(
            (reply.status, reply.error().0),
            (400, code),
            "{body}: {}",
            reply.text
        );
    }
    let misspelt =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"one_forecast","Arguments":{}}}"#;
    assert_eq!(
        client.post(misspelt).await.json()["error"]["data"],
        json!({"member": "params.arguments", "problem": "is spelt differently"})
    );
    let too_deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{}{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    assert_eq!(client.post(too_deep).await.error().0, -32700);
    assert!(one.calls("tools/call").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d29_d30_unknown_names_are_json_rpc_errors_with_the_id() {
    let world = World::start(&[], &[]).await;
    let client = world.client().initialized().await;
    for (method, params, message) in [
        ("tools/call", json!({"name": "nope"}), "Unknown tool: nope"),
        ("prompts/get", json!({"name": "nope"}), "Unknown prompt: nope"),
        (
            "resources/read",
            json!({"uri": "file:///nope"}),
            "Resource not found",
        ),
        ("tools/call", json!({}), "missing params.name"),
        ("resources/read", json!({"uri": 7}), "missing params.uri"),
    ] {
        let reply = client.rpc(method, params).await;
        assert_eq!(
            (reply.status, reply.error(), reply.json()["id"].as_i64()),
            (200, (-32602, message.to_owned()), Some(7)),
            "{method}"
        );
    }
    let reply = client.rpc("resources/read", json!({"uri": "file:///nope"})).await;
    assert_eq!(reply.json()["error"]["data"]["uri"], "file:///nope");
    let unknown = client.rpc("tasks/list", json!({})).await;
    assert_eq!(
        (unknown.status, unknown.error()),
        (200, (-32601, "Method not found: tasks/list".to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d36_d37_a_change_is_noticed_once_and_replies_stay_json() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let stream = client
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut chunks = stream.bytes_stream();
    let first = chunks.next().await.unwrap().unwrap();
    assert_eq!(first, ": connected\n\n");
    one.tools.lock().unwrap()[0]["description"] = json!("changed");
    one.notify("notifications/tools/list_changed");
    let event = tokio::time::timeout(std::time::Duration::from_secs(10), chunks.next())
        .await
        .expect("no notice")
        .unwrap()
        .unwrap();
    let event = String::from_utf8(event.to_vec()).unwrap();
    let lines: Vec<&str> = event.split('\n').collect();
    let notice = r#"data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    assert_eq!(
        (lines[0], lines[2], lines[3], lines[4]),
        ("event: message", notice, "", "")
    );
    assert!(lines[1].starts_with("id: g1."), "{event}");
    let listed = client.rpc("tools/list", json!({})).await;
    assert_eq!(listed.json()["result"]["tools"][0]["description"], "changed");
    assert_eq!(listed.header("content-type"), Some("application/json"));
    // The same list again is no change: the next thing on the stream is the notice of a real one.
    one.notify("notifications/tools/list_changed");
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    one.notify("notifications/prompts/list_changed");
    let event = tokio::time::timeout(std::time::Duration::from_secs(10), chunks.next())
        .await
        .expect("no notice")
        .unwrap()
        .unwrap();
    let event = String::from_utf8(event.to_vec()).unwrap();
    assert!(event.contains("notifications/prompts/list_changed"), "{event}");
    let json_only = client
        .send(
            client
                .request(Method::POST, "/mcp")
                .header("content-type", "application/json")
                .header("accept", "application/json")
                .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
        )
        .await;
    assert_eq!(
        (json_only.status, json_only.text.as_str()),
        (200, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d40_a_changed_description_schema_or_annotation_is_served_with_exactly_one_notice() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let mut events = Events::of(listening(&client, None).await);
    let notice =
        |kind: &str| json!({"jsonrpc": "2.0", "method": format!("notifications/{kind}/list_changed")});
    for (number, (member, value)) in [
        ("description", json!("changed")),
        ("inputSchema", json!({"type": "object", "required": ["day"]})),
        ("annotations", json!({"readOnlyHint": false})),
        ("outputSchema", json!({"type": "object"})),
    ]
    .into_iter()
    .enumerate()
    {
        one.tools.lock().unwrap()[0][member] = value.clone();
        one.notify("notifications/tools/list_changed");
        assert_eq!(events.message().await, notice("tools"), "{member}");
        let listed = client.rpc("tools/list", json!({})).await.json()["result"]["tools"][0].take();
        assert_eq!(listed[member], value);
        // What comes next is the notice of something else: there was no second one.
        one.prompts
            .lock()
            .unwrap()
            .push(json!({"name": format!("p{number}")}));
        one.notify("notifications/prompts/list_changed");
        assert_eq!(events.message().await, notice("prompts"), "{member}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d38_initialize_without_params_and_with_curls_accept_is_the_golden_shape() {
    let world = World::start(&[], &[]).await;
    let client = world.client();
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("accept", "*/*");
    let reply = client
        .send(request.body(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#))
        .await;
    let version = env!("CARGO_PKG_VERSION");
    let golden = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"2025-11-25","capabilities":{{"completions":{{}},"logging":{{}},"prompts":{{"listChanged":true}},"resources":{{"subscribe":true,"listChanged":true}},"tools":{{"listChanged":true}}}},"serverInfo":{{"name":"Kuadrant MCP Gateway","version":"{version}"}}}}}}"#
    );
    assert_eq!((reply.status, reply.text.trim_end()), (200, golden.as_str()));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("mcp-session-id").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d39_a_call_that_reaches_the_broker_itself_is_an_error() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::broker_only(&crate::world::config(&[crate::world::entry(&one, "one_")]), &[]).await;
    let client = world.direct().initialized().await;
    for (method, params) in [
        ("tools/call", json!({"name": "one_forecast"})),
        ("prompts/get", json!({"name": "x"})),
        ("resources/read", json!({"uri": "x"})),
    ] {
        let reply = client.rpc(method, params).await;
        assert_eq!(
            (reply.status, reply.error()),
            (200, (-32603, "call must go through the gateway".to_owned())),
            "{method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_rules_are_kept_before_and_behind_envoy() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    for base in [world.client(), world.direct()] {
        let client = base.initialized().await;
        let post = |content_type: &str, accept: &str| {
            client
                .request(Method::POST, "/mcp")
                .header("content-type", content_type)
                .header("accept", accept)
                .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
        };
        let bad = client.send(post("text/plain", "*/*")).await;
        assert_eq!(
            (bad.status, bad.text.as_str()),
            (400, "Invalid content type: must be 'application/json'")
        );
        assert_eq!(
            client
                .send(post("application/json; charset=utf-8", "*/*"))
                .await
                .status,
            200
        );
        assert_eq!(
            client.send(post("application/json", "text/html")).await.status,
            406
        );
        let put = client.send(client.request(Method::PUT, "/mcp")).await;
        assert_eq!((put.status, put.header("allow").is_some()), (405, true));
        let options = client.send(client.request(Method::OPTIONS, "/mcp")).await;
        assert_eq!(
            (
                options.status,
                options.text.as_str(),
                options.header("access-control-allow-origin")
            ),
            (200, "", None)
        );
        let version = client
            .send(post("application/json", "*/*").header("mcp-protocol-version", "1999-01-01"))
            .await;
        assert_eq!(version.status, 400, "{}", version.text);
        let known = client
            .send(post("application/json", "*/*").header("mcp-protocol-version", "2025-06-18"))
            .await;
        assert_eq!(
            known.status, 200,
            "known but another than negotiated is tolerated"
        );
    }
}
