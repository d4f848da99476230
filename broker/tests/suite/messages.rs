//! Messages through Envoy (data-plane.md 16, D25–D39).

use crate::fixture::Server;
use crate::world::{World, eventually, is_direct};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d25_d26_d27_ids_and_bodies_pass_byte_for_byte() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["plain"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "")], &[]).await;
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
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pl\u0061in","arguments":{}}}"#;
    assert_eq!(client.post(body).await.status, 200);
    assert_eq!(
        two.calls("tools/call").pop().unwrap().body,
        body,
        "bit-identical without a prefix"
    );
    let unknown = client
        .post(r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"nope"}}"#)
        .await;
    assert_eq!(
        unknown.text.trim_end(),
        r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32602,"message":"Unknown tool: nope"}}"#
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
async fn d36_d37_d40_a_change_is_noticed_once_and_replies_stay_json() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d72_d75_bodies_have_their_limit_and_large_answers_pass() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let body = |size: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"one_forecast","arguments":{{"x":"{}"}}}}}}"#,
            "a".repeat(size)
        )
    };
    let fits = client.post(body(4_900_000)).await;
    assert_eq!(fits.status, 200);
    assert!(
        fits.text.len() > 4_900_000,
        "the echo of the body came back whole"
    );
    let large = client.post(body(5_300_000)).await;
    assert_eq!((large.status, large.error().0), (413, -32600), "{}", large.text);
    assert_eq!(one.calls("tools/call").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d79_a_failing_server_gives_json_rpc_errors_and_a_policys_answer_passes() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast", "forbidden"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    for (inner, outer) in [(500, 500), (503, 503), (401, 502), (403, 502)] {
        one.call_status.store(inner, Ordering::Relaxed);
        let reply = client.call("one_forecast").await;
        assert_eq!(
            (reply.status, reply.error().0, reply.json()["id"].as_i64()),
            (outer, -32603, Some(7)),
            "{inner}: {}",
            reply.text
        );
        assert!(!reply.text.contains("inner"), "{}", reply.text);
        assert_eq!(reply.header("www-authenticate"), None);
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    one.call_status.store(0, Ordering::Relaxed);
    let denied = client.call("one_forbidden").await;
    assert_eq!(
        (denied.status, denied.text.as_str()),
        (403, "policy says no to ns/one")
    );
    let strict = world.client().with("x-deny-init", "1").initialized().await;
    let refused = strict.call("one_forecast").await;
    assert_eq!(
        (
            refused.status,
            refused.text.as_str(),
            refused.header("www-authenticate")
        ),
        (401, "policy wants a token", Some("Bearer realm=policy"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d79_a_dead_server_gives_503_with_the_id() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    // Envoy's route leads nowhere, while the broker's own connection works: the call fails in Envoy.
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = crate::world::config(&[crate::world::entry(&one, "one_")]);
    let mut world = World::broker_only(&config, &[]).await;
    let router = world.running.as_ref().unwrap().router.unwrap();
    let plan = crate::envoy::Plan {
        listen: world.port,
        router,
        broker: world.broker,
        public_host: crate::world::PUBLIC,
        hosts: &[("one.mcp.test", dead)],
        body_limit: 5_242_880,
        tls: None,
    };
    world.envoy = Some(crate::envoy::Envoy::start(&plan).await);
    let client = world.client().initialized().await;
    let reply = client.call("one_forecast").await;
    assert_eq!(
        (reply.status, reply.error(), reply.json()["id"].as_i64()),
        (502, (-32603, "MCP server unavailable".to_owned()), Some(7)),
        "{}",
        reply.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d71_concurrent_calls_reach_the_right_server() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let client = world.client().initialized().await;
    let calls = futures::stream::iter(0..1000).map(|n| {
        let client = client.clone();
        async move {
            let server = if n % 2 == 0 { "one" } else { "two" };
            let reply = client.post(format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"{server}_forecast"}}}}"#)).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let body = reply.json();
            assert_eq!((body["result"]["content"][0]["text"].as_str(), body["id"].as_i64()), (Some(server), Some(n)));
        }
    });
    calls.buffer_unordered(64).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d78_an_idle_stream_holds_no_ext_proc_stream() {
    let world = World::start(&[], &[]).await;
    let client = world.client().initialized().await;
    let stream = client
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    let admin = format!(
        "http://{}/metrics",
        world.running.as_ref().unwrap().admin.unwrap()
    );
    eventually("no open ext_proc stream", || async {
        let text = reqwest::get(&admin).await.unwrap().text().await.unwrap();
        (text.contains("\nmcp_router_streams_active 0")
            && text.contains("\nmcp_broker_client_streams_active 1"))
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_and_resources_are_routed_as_tools_are() {
    let one = Server::start("one", &["forecast"]).await;
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    one.resources
        .lock()
        .unwrap()
        .push(json!({"uri": "ui://x", "name": "x"}));
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(
        client.names("prompts/list", "prompts", "name").await,
        ["one_greet"]
    );
    assert_eq!(
        client.names("resources/list", "resources", "uri").await,
        ["ui://x"]
    );
    assert_eq!(
        client
            .rpc("prompts/get", json!({"name": "one_greet"}))
            .await
            .status,
        200
    );
    let seen = one.calls("prompts/get").pop().unwrap();
    assert!(String::from_utf8_lossy(&seen.body).contains(r#""name":"greet""#));
    for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
        let reply = client.rpc(method, json!({"uri": "ui://x"})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(one.calls(method).len(), 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d34_completions_reach_the_server_of_their_reference() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    one.templates
        .lock()
        .unwrap()
        .push(json!({"uriTemplate": "file:///{name}", "name": "f"}));
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    assert_eq!(other.call("one_forecast").await.status, 200);
    let argument = json!({"name": "x", "value": "y"});
    let reply = client
        .rpc(
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "one_greet"}, "argument": argument}),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body: serde_json::Value =
        serde_json::from_slice(&one.calls("completion/complete").pop().unwrap().body).unwrap();
    assert_eq!(
        body["params"],
        json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": argument})
    );
    let template = json!({"ref": {"type": "ref/resource", "uri": "file:///{name}"}, "argument": argument});
    assert_eq!(client.rpc("completion/complete", template).await.status, 200);
    assert_eq!(one.calls("completion/complete").len(), 2);
    for bad in [
        json!({"type": "ref/prompt", "name": "nope"}),
        json!({"type": "ref/none"}),
        json!(7),
    ] {
        let reply = client
            .rpc("completion/complete", json!({"ref": bad, "argument": argument}))
            .await;
        assert_eq!((reply.status, reply.error().0), (200, -32602), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d33_d34_level_and_cancellation_reach_the_servers_of_the_session() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    assert_eq!(other.call("one_forecast").await.status, 200);
    assert_eq!(client.call("one_forecast").await.status, 200);
    assert_eq!(
        client
            .rpc("logging/setLevel", json!({"level": "loud"}))
            .await
            .error()
            .0,
        -32602
    );
    assert_eq!(
        client
            .rpc("logging/setLevel", json!({"level": "warning"}))
            .await
            .text
            .trim_end(),
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#
    );
    eventually("the level at the open session", || async {
        (one.calls("logging/setLevel").len() == 1).then_some(())
    })
    .await;
    assert_eq!(client.call("two_forecast").await.status, 200);
    eventually("the level at the later session", || async {
        (two.calls("logging/setLevel").len() == 1).then_some(())
    })
    .await;
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9007199254740993}}"#;
    assert_eq!(client.post(cancel).await.status, 202);
    for server in [&one, &two] {
        let seen = eventually("the cancellation", || async {
            server.calls("notifications/cancelled").pop()
        })
        .await;
        assert_eq!(seen.body, cancel);
        let own = server
            .calls("completion/complete")
            .first()
            .or(server.calls("tools/call").last())
            .unwrap()
            .header("mcp-session-id")
            .map(str::to_owned);
        assert_eq!(
            seen.header("mcp-session-id"),
            own.as_deref(),
            "only the caller's own session"
        );
        assert_eq!(server.calls("notifications/cancelled").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d70_a_route_that_does_not_lead_to_the_server_is_named_in_the_status() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let text = crate::world::config(&[crate::world::entry(&one, "one_")]);
    let world = World::start_with(&text, &[], &[]).await;
    let client = world.client().initialized().await;
    let reply = client.call("one_forecast").await;
    assert_eq!((reply.status, reply.error().0), (502, -32603), "{}", reply.text);
    let status = world.status_of("one").await;
    assert_eq!(
        status["warnings"],
        json!(["no route at the gateway for one.mcp.test/mcp"]),
        "{status}"
    );
}
