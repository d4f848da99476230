//! Security invariants through Envoy (data-plane.md 17).

use crate::fixture::{Seen, Server};
use crate::world::{World, eventually, is_direct};
use mcp_gateway_broker::auth::hairpin::{Door, Purpose, mint};
use mcp_gateway_broker::auth::{clock, keys::Keys};
use mcp_gateway_broker::secret::Secret;
use reqwest::Method;
use serde_json::json;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_forged_internal_headers_are_read_by_nobody() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    // The policy between the filters would refuse this tool name.
    let client = world
        .client()
        .with("x-mcp-toolname", "forbidden")
        .with("x-mcp-anything", "1")
        .with("gateway-server-id", "x")
        .initialized()
        .await;
    let reply = client.call("one_forecast").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let seen = one.calls("tools/call").pop().unwrap();
    let internal: Vec<&str> = seen
        .headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| name.starts_with("x-mcp-") || *name == "gateway-server-id" || *name == "router-key")
        .collect();
    assert!(internal.is_empty(), "{internal:?}");
    let mut forged = client.clone();
    forged.headers.push(("mcp-init-host", "one.mcp.test".to_owned()));
    let reply = forged.call("one_forecast").await;
    assert_eq!((reply.status, reply.text.as_str()), (400, "bad request"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_naming_a_servers_host_leads_to_the_broker() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let before = one.seen.lock().unwrap().len();
    let mut intruder = world.client();
    for host in ["one.mcp.test", "ONE.mcp.test:80", "127.0.0.1"] {
        intruder.host = host.to_owned();
        let reply = intruder.rpc("initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})).await;
        assert_eq!(
            reply.json()["result"]["serverInfo"]["name"],
            "Kuadrant MCP Gateway",
            "{host}"
        );
    }
    assert_eq!(
        one.seen.lock().unwrap().len(),
        before,
        "nothing reached the server"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_hairpin_token_opens_its_own_door_only() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let before = one.seen.lock().unwrap().len();
    let keys = Keys::new(Secret::new(crate::world::KEY), None);
    let token = |host: &str, now: u64| {
        mint(
            &keys,
            &Door {
                purpose: Purpose::BackendInit,
                host,
                path: "/mcp",
                server: "ns/one",
                method: "initialize",
                own_authorization: false,
            },
            now,
        )
    };
    let send = async |host: &str, token: String| {
        let client = world
            .client()
            .with("mcp-init-host", host)
            .with("router-key", token);
        client.rpc("initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})).await
    };
    let now = clock::now();
    assert_eq!(
        send("two.mcp.test", token("one.mcp.test", now)).await.status,
        400,
        "another host"
    );
    assert_eq!(
        send("two.mcp.test", token("two.mcp.test", now)).await.status,
        400,
        "server and host differ"
    );
    assert_eq!(
        send("other.test", token("other.test", now)).await.status,
        400,
        "not configured"
    );
    assert_eq!(
        send("one.mcp.test", token("one.mcp.test", now - 60)).await.status,
        400,
        "expired"
    );
    assert_eq!(send("one.mcp.test", "x".to_owned()).await.status, 400, "garbage");
    assert_eq!(
        one.seen.lock().unwrap().len(),
        before,
        "nothing reached the server"
    );
    let good = send("one.mcp.test", token("one.mcp.test", now)).await;
    assert_eq!(good.json()["result"]["serverInfo"]["name"], "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_credentials_and_tokens_stay_on_their_side() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let forwarding = Server::start("three", &["forecast"]).await;
    let three =
        crate::world::entry(&forwarding, "three_").replace("}\n", ", forwardHeaders: [Authorization]}\n");
    let config = crate::world::config(&[
        crate::world::entry(&one, "one_").replace("}\n", ", credential: 'Bearer of-the-gateway'}\n"),
        three,
    ]);
    let world = World::start_with(&config, &[&one, &forwarding], &[]).await;
    let client = world
        .client()
        .with("authorization", "Bearer of-the-client")
        .with("cookie", "a=b")
        .with("x-team", "blue")
        .initialized()
        .await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    for seen in one.calls("tools/call").iter().chain(&one.calls("initialize")) {
        assert_eq!(
            (seen.header("authorization"), seen.header("cookie")),
            (None, None),
            "{}",
            seen.mcp_method()
        );
        assert_eq!(seen.header("x-team"), Some("blue"), "policies' inputs travel");
        assert_ne!(seen.header("mcp-session-id"), client.session.as_deref());
    }
    let own = one.count(|seen| {
        seen.header("user-agent") == Some("mcp-broker")
            && seen.header("authorization") == Some("Bearer of-the-gateway")
    });
    assert!(own >= 2, "the broker's own connection uses the credential");
    assert_eq!(client.call("three_forecast").await.status, 200);
    let seen = forwarding.calls("tools/call").pop().unwrap();
    assert_eq!(
        (seen.header("authorization"), seen.header("cookie")),
        (Some("Bearer of-the-client"), None),
        "asked for by name"
    );
    let injected = client.clone().with("x-inject", "1");
    assert_eq!(injected.call("one_forecast").await.status, 200);
    assert_eq!(
        one.calls("tools/call").pop().unwrap().header("authorization"),
        Some("Bearer injected"),
        "what a policy sets stays"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_no_client_learns_the_id_of_a_servers_session_and_no_server_the_clients_token() {
    let one = Server::start("one", &["ask", "forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    for client in [
        world.client().initialized().await,
        world.client().able(json!({"roots": {}, "elicitation": {}})).await,
    ] {
        let token = client.session.clone().unwrap();
        let mut got = Vec::new();
        got.push(client.call("one_forecast").await);
        got.push(client.call("one_ask").await);
        got.push(client.rpc("logging/setLevel", json!({"level": "debug"})).await);
        for status in [401, 403, 404, 500] {
            one.call_status.store(status, Ordering::Relaxed);
            got.push(client.call("one_forecast").await);
        }
        one.call_status.store(0, Ordering::Relaxed);
        one.forget_sessions();
        got.push(client.call("one_forecast").await);
        got.push(client.send(client.request(Method::DELETE, "/mcp")).await);
        let seen = one.seen.lock().unwrap().clone();
        let of_session = |seen: &Seen| seen.header("mcp-session-id").map(str::to_owned);
        let sessions: Vec<String> = seen.iter().filter_map(of_session).collect();
        assert!(sessions.len() > 5, "{sessions:?}");
        for session in sessions {
            for reply in &got {
                // The fixture repeats in its answer what it was sent.
                let headers = format!("{:?}", reply.headers);
                assert!(!headers.contains(&session), "{session}: {headers}");
                let said = reply
                    .text
                    .replace(&format!(r#"["mcp-session-id","{session}"]"#), "");
                assert!(!said.contains(&format!("\"{session}\"")), "{session}: {said}");
            }
        }
        for seen in &seen {
            let (headers, body) = (format!("{:?}", seen.headers), String::from_utf8_lossy(&seen.body));
            assert!(
                !headers.contains(&token) && !body.contains(&token),
                "{headers} {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_without_the_router_nothing_gets_through() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let mut world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let before = one.seen.lock().unwrap().len();
    world.running.take().unwrap().drain().await;
    let reply = client.call("one_forecast").await;
    assert!(reply.status >= 500, "{} {}", reply.status, reply.text);
    let mut named = world.client();
    named.host = "one.mcp.test".to_owned();
    assert!(named.call("forecast").await.status >= 500);
    let calls = || one.count(|seen| seen.header("user-agent") != Some("mcp-broker"));
    assert!(
        one.seen.lock().unwrap().len() <= before + 2 && calls() == 0,
        "only the broker's own farewell"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_urls_given_by_servers_are_never_fetched() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let visited = tokio::spawn(async move { listener.accept().await.is_ok() });
    let one = Server::start("one", &[]).await;
    let schema = json!({"$schema": format!("{url}/dialect.json"), "type": "object",
        "properties": {"day": {"$ref": format!("{url}/schema.json")}}});
    let icons = json!([{"src": format!("{url}/icon.png")}]);
    *one.tools.lock().unwrap() = vec![json!({"name": "linked", "inputSchema": schema, "icons": icons})];
    let document = format!("{url}/document");
    *one.resources.lock().unwrap() = vec![json!({"uri": document, "name": "document", "icons": icons})];
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["one_linked"]);
    assert_eq!(client.call("one_linked").await.status, 200);
    let read = client.rpc("resources/read", json!({"uri": document})).await;
    assert_eq!(read.status, 200, "{}", read.text);
    assert_eq!(
        one.calls("resources/read").len(),
        1,
        "the server is asked, not the address"
    );
    assert!(!visited.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_nothing_is_profiled_on_any_listener_unless_a_flag_says_so() {
    let world = World::start(&[], &[]).await;
    let admin = world.running.as_ref().unwrap().admin.unwrap();
    for base in [format!("http://{admin}"), format!("http://{}", world.broker)] {
        for path in ["/debug/pprof", "/debug/pprof/profile"] {
            let status = reqwest::get(format!("{base}{path}")).await.unwrap().status();
            assert_eq!(status, 404, "{base}{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_private_paths_are_404_through_the_gateway() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let world = World::start(&[], &[]).await;
    let client = world.client();
    for path in [
        "/status",
        "/status/ns/one",
        "/healthz",
        "/readyz",
        "/metrics",
        "/mcp/elicitation",
        "/mcp/repair",
    ] {
        assert_eq!(
            client.send(client.request(Method::GET, path)).await.status,
            404,
            "{path}"
        );
        assert_eq!(
            client.send(client.request(Method::POST, path)).await.status,
            404,
            "POST {path}"
        );
    }
    let direct = world.direct();
    for path in ["/status", "/healthz", "/readyz"] {
        assert_eq!(
            direct.send(direct.request(Method::GET, path)).await.status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        direct
            .send(direct.request(Method::POST, "/mcp/repair"))
            .await
            .status,
        404,
        "repair needs a seal"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_foreign_origins_and_hosts_are_403_before_any_effect() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &["--allowed-origins=https://app.example.com"]).await;
    let client = world.client().initialized().await;
    for base in [client.clone(), {
        let mut direct = world.direct();
        direct.session.clone_from(&client.session);
        direct
    }] {
        for origin in ["https://evil.example", "null"] {
            let foreign = base.clone().with("origin", origin);
            let reply = foreign.rpc("ping", json!({})).await;
            assert_eq!(
                (reply.status, reply.error().1.as_str()),
                (403, "origin not allowed")
            );
            assert_eq!(
                foreign.send(foreign.request(Method::DELETE, "/mcp")).await.status,
                403
            );
        }
        for origin in [
            "https://app.example.com",
            "http://mcp.test:8001",
            "http://localhost:3000",
        ] {
            assert_eq!(
                base.clone()
                    .with("origin", origin)
                    .rpc("ping", json!({}))
                    .await
                    .status,
                200,
                "{origin}"
            );
        }
    }
    let mut foreign = world.direct();
    foreign.host = "evil.example".to_owned();
    assert_eq!(foreign.rpc("ping", json!({})).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_hosts_of_the_listener_are_untouched() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (one, other) = (
        Server::start("one", &["forecast"]).await,
        Server::start("other", &[]).await,
    );
    other.sessions.store(false, std::sync::atomic::Ordering::Relaxed);
    let config = crate::world::config(&[crate::world::entry(&one, "one_")]);
    let world = World::start_with(&config, &[&one, &other], &[]).await;
    let mut client = world
        .client()
        .with("x-mcp-toolname", "theirs")
        .with("authorization", "Bearer theirs");
    client.host = "other.mcp.test".to_owned();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"echo","params":{{"x":"{}"}}}}"#,
        "a".repeat(20 * 1024 * 1024)
    );
    let reply = client.post(body.clone()).await;
    assert_eq!(reply.status, 200, "d73: {}", reply.text);
    assert!(other.calls("echo").pop().unwrap().body == body, "d73: untouched");
    let reply = client.rpc("echo", json!({})).await;
    assert_eq!(reply.status, 200);
    let seen = other.calls("echo").pop().unwrap();
    assert_eq!(
        (seen.header("x-mcp-toolname"), seen.header("authorization")),
        (Some("theirs"), Some("Bearer theirs"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_no_secret_is_in_status_metrics_or_envoys_log() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let config = crate::world::config(&[
        crate::world::entry(&one, "one_").replace("}\n", ", credential: 'Bearer hunter2'}\n")
    ]);
    let world = World::start_with(&config, &[&one], &[]).await;
    let client = world
        .client()
        .with("authorization", "Bearer hunter3")
        .initialized()
        .await;
    one.forget_sessions();
    client.call("one_forecast").await;
    let admin = world.running.as_ref().unwrap().admin.unwrap();
    let mut text = world.envoy.as_ref().unwrap().log();
    for path in ["metrics", "status", "status/ns/one"] {
        text += &reqwest::get(format!("http://{admin}/{path}"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
    }
    for secret in [
        "hunter2",
        "hunter3",
        crate::world::KEY,
        client.session.as_deref().unwrap(),
    ] {
        assert!(!text.contains(secret));
    }
    eventually("status", || async {
        world.status_of("one").await["ready"]
            .as_bool()
            .filter(|ready| *ready)
    })
    .await;
}
