//! The whole path through a real Envoy.

use crate::fixture::Server;
use crate::world::World;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_initializes_lists_and_calls_both_servers_through_envoy() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast", "add"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["one_forecast", "two_add", "two_forecast"]);
    for (tool, server, original) in [("one_forecast", &one, "forecast"), ("two_add", &two, "add")] {
        let reply = client.call(tool).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let result = &reply.json()["result"];
        assert_eq!(result["content"][0]["text"], server.name);
        let body: serde_json::Value = serde_json::from_str(result["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": original, "arguments": {}}})
        );
        assert_eq!(
            reply.header("mcp-session-id"),
            client.session.as_deref(),
            "the client sees its own session"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_nothing_on_the_path_without_sessions() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let reply = client
        .stateless_at("/mcp/stateless", "one_forecast", json!({}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["result"]["resultType"], "complete", "{}", reply.text);
    assert_eq!(reply.header("mcp-session-id"), None);
}
