//! What only the front that forwards does (data-plane.md 13, design.md 5): the whole suite runs on it too, with
//! `MCPGW_DATA_PATH=direct`; here is what differs from the way through Envoy.

use crate::access::{TOKEN, with_policy};
use crate::fixture::{Seen, Server};
use crate::world::{World, config, entry, eventually};
use mcp_gateway_broker::front::slots::OF_SESSION;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

async fn direct(servers: &[&Arc<Server>]) -> World {
    let entries: Vec<String> = servers
        .iter()
        .map(|server| entry(server, &format!("{}_", server.name)))
        .collect();
    World::broker_only(&config(&entries), &["--data-path=direct"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sees_its_own_host_and_nothing_of_the_gateways_own_headers() {
    let one = Server::start("one", &["forecast"]).await;
    let world = direct(&[&one]).await;
    let client = world
        .direct()
        .with("authorization", "Bearer clients-own")
        .with("cookie", "a=b")
        .with("x-mcp-toolname", "forged")
        .with("router-key", "forged")
        .with("x-team", "a")
        .initialized()
        .await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    for method in ["initialize", "tools/call"] {
        let seen = one.calls(method).pop().unwrap();
        assert_eq!(
            seen.header("host"),
            Some(one.address.to_string().as_str()),
            "{method}"
        );
        assert_eq!(seen.header("x-team"), Some("a"), "{method}");
        for name in [
            "authorization",
            "cookie",
            "router-key",
            "mcp-init-host",
            "x-mcp-toolname",
            "x-mcp-servername",
        ] {
            assert_eq!(seen.header(name), None, "{method}: {name}");
        }
        assert_ne!(
            seen.header("mcp-session-id"),
            client.session.as_deref(),
            "s6: {method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_server_become_json_rpc_errors_with_the_id() {
    let one = Server::start("one", &["forecast"]).await;
    let world = direct(&[&one]).await;
    let client = world.direct().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    for (server, status) in [(500, 500), (401, 502), (403, 502)] {
        one.call_status.store(server, Ordering::Relaxed);
        let reply = client.call("one_forecast").await;
        assert_eq!(
            (reply.status, reply.error().0, reply.json()["id"].as_i64()),
            (status, -32603, Some(7)),
            "{}",
            reply.text
        );
        assert_eq!(reply.header("www-authenticate"), None);
        assert_eq!(reply.header("mcp-session-id"), client.session.as_deref());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_call_that_its_client_left_is_cancelled_at_the_server() {
    let one = Server::start("one", &["forecast"]).await;
    let world = direct(&[&one]).await;
    let client = world
        .direct()
        .with("mcp-protocol-version", "2026-07-28")
        .with("mcp-method", "tools/call")
        .with("mcp-name", "one_forecast");
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let call = || {
        client.rpc(
            "tools/call",
            json!({"name": "one_forecast", "arguments": {}, "_meta": meta}),
        )
    };
    assert_eq!(call().await.status, 200);
    one.call_status.store(500, Ordering::Relaxed);
    assert_eq!(call().await.status, 500);
    one.call_status.store(0, Ordering::Relaxed);
    one.hang_calls.store(true, Ordering::Relaxed);
    let server_has_it = eventually("the call at the server", || async {
        (one.calls("tools/call").len() == 3).then_some(())
    });
    tokio::select! {
        reply = call() => panic!("{}", reply.text),
        () = server_has_it => {}
    }
    let number = |seen: &Seen| serde_json::from_slice::<Value>(&seen.body).unwrap();
    let cancelled = eventually("the cancellation", || async {
        one.calls("notifications/cancelled").pop()
    })
    .await;
    let left = one.calls("tools/call").pop().unwrap();
    assert_eq!(number(&cancelled)["params"]["requestId"], number(&left)["id"]);
    assert_eq!(one.calls("notifications/cancelled").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_streams_that_are_taken_up_again_count_among_the_running_calls() {
    let one = Server::start("one", &["forecast"]).await;
    let world = direct(&[&one]).await;
    let client = world.direct().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    one.hang.store(true, Ordering::Relaxed);
    let resume = || {
        client
            .request(Method::GET, "/mcp")
            .header("accept", "text/event-stream")
            .header("last-event-id", "one-1")
    };
    let mut held: Vec<_> = (0..OF_SESSION).map(|_| tokio::spawn(resume().send())).collect();
    let resumed = || one.count(|seen| seen.header("last-event-id").is_some());
    eventually("as many as may be", || async {
        (resumed() == OF_SESSION as usize).then_some(())
    })
    .await;
    assert_eq!(resume().send().await.unwrap().status(), 429);
    held.drain(..).for_each(|stream| stream.abort());
    one.hang.store(false, Ordering::Relaxed);
    eventually("room again", || async {
        (resume().send().await.unwrap().status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_older_stream_ends_its_session_whatever_became_of_the_token() {
    let one = Server::start("one", &["forecast"]).await;
    let accepted = with_policy(&[(&one, "one_")], "me", "*") + "legacySSE: true\n";
    let world = World::broker_only(&accepted, &["--data-path=direct"]).await;
    let client = world.direct().with("authorization", format!("Bearer {TOKEN}"));
    let open = || client.request(Method::GET, "/sse").send();
    let mut stream = open().await.unwrap();
    let first = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let endpoint = first.split_once("data: ").unwrap().1.trim().to_owned();
    let send = async |method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = client.request(Method::POST, &endpoint);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 202);
    };
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "o", "version": "1"}});
    send("initialize", hello).await;
    let backend = eventually("a call", || async {
        send("tools/call", json!({"name": "one_forecast"})).await;
        let call = one.calls("tools/call").pop()?;
        call.header("mcp-session-id").map(str::to_owned)
    })
    .await;
    world.write_config(&accepted.replace("issuer: me", "issuer: another"));
    eventually("a token that is refused", || async {
        (open().await.unwrap().status() == 401).then_some(())
    })
    .await;
    drop(stream);
    eventually("DELETE at the server", || async {
        let deleted = |seen: &Seen| {
            seen.verb == Method::DELETE && seen.header("mcp-session-id") == Some(backend.as_str())
        };
        (one.count(deleted) == 1).then_some(())
    })
    .await;
}
