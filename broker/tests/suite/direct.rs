//! What only the front that forwards does (data-plane.md 13, design.md 5): the whole suite runs on it too, with
//! `MCPGW_DATA_PATH=direct`; here is what differs from the way through Envoy.

use crate::fixture::Server;
use crate::world::{World, config, entry};
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
