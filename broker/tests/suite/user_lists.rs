//! Servers whose lists differ by caller (data-plane.md 5.6), through a real Envoy.

use crate::client::Client;
use crate::fixture::{Server, tool};
use crate::user_tokens;
use crate::world::{World, config, entry};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn own_list(server: &Server, prefix: &str, more: &str) -> String {
    entry(server, prefix).replace("}\n", &format!(", userSpecificList: true{more}}}\n"))
}

/// One server for all, one that lists by `x-user`.
async fn world(prefix: &str) -> (World, Arc<Server>, Arc<Server>) {
    let (shared, own) = (
        Server::start("shared", &["common"]).await,
        Server::start("own", &["basic"]).await,
    );
    {
        let mut lists = own.by_user.lock().unwrap();
        lists.insert("alice".to_owned(), vec![tool("secret"), tool("basic")]);
        lists.insert("bob".to_owned(), vec![tool("basic")]);
    }
    *own.prompts.lock().unwrap() = vec![json!({"name": "ask"})];
    *own.resources.lock().unwrap() = vec![json!({"uri": "own://a", "name": "a"})];
    let config = config(&[entry(&shared, "shared_"), own_list(&own, prefix, "")]);
    let world = World::start_with(&config, &[&shared, &own], &["--discovery-tools-enabled=true"]).await;
    (world, shared, own)
}

fn of(world: &World, user: &str) -> Client {
    world.client().with("x-user", user)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d56_every_caller_sees_its_own_list_of_every_kind_by_the_servers_own_route() {
    let (world, _shared, own) = world("own_").await;
    let (alice, bob) = (
        of(&world, "alice").initialized().await,
        of(&world, "bob").initialized().await,
    );
    assert_eq!(
        alice.tools().await,
        [
            "discover_tools",
            "own_basic",
            "own_secret",
            "select_tools",
            "shared_common"
        ]
    );
    assert_eq!(
        bob.tools().await,
        ["discover_tools", "own_basic", "select_tools", "shared_common"]
    );
    assert_eq!(alice.names("prompts/list", "prompts", "name").await, ["own_ask"]);
    assert_eq!(
        alice.names("resources/list", "resources", "uri").await,
        ["own://a"]
    );
    assert_eq!(alice.call("own_secret").await.status, 200);
    assert_eq!(bob.call("own_secret").await.error().0, -32602);
    let read = alice.rpc("resources/read", json!({"uri": "own://a"})).await;
    assert_eq!(read.status, 200, "{}", read.text);
    let lists = own.calls("tools/list");
    assert!(
        lists.len() >= 2
            && lists
                .iter()
                .all(|seen| seen.header("user-agent") == Some("mcp-router"))
    );
    let found = alice
        .rpc("tools/call", json!({"name": "discover_tools", "arguments": {}}))
        .await;
    assert!(found.text.contains("own_secret"), "{}", found.text);
    let status = world.status_of("own").await;
    assert_eq!(
        status["message"],
        "userSpecificList server healthy, tools fetched per-user"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d57_a_tool_of_the_callers_own_list_without_prefix_is_called_by_the_first_request_of_a_session() {
    let (world, _shared, own) = world("").await;
    let alice = of(&world, "alice").initialized().await;
    assert_eq!(alice.call("secret").await.status, 200);
    assert_eq!(own.calls("tools/call").len(), 1);
    let bob = of(&world, "bob").initialized().await;
    let (code, message) = bob.call("secret").await.error();
    assert_eq!((code, message.as_str()), (-32602, "Unknown tool: secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d56_a_failing_server_leaves_the_rest_and_a_list_is_kept_for_a_while() {
    let (world, _shared, own) = world("own_").await;
    let alice = of(&world, "alice").initialized().await;
    let before = alice.tools().await;
    own.status.store(500, Ordering::Relaxed);
    assert_eq!(alice.tools().await, before, "kept");
    let bob = of(&world, "bob").initialized().await;
    assert_eq!(
        bob.tools().await,
        ["discover_tools", "select_tools", "shared_common"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_name_of_a_list_that_needs_a_token_first_asks_for_the_token() {
    let (shared, own) = (
        Server::start("shared", &["common"]).await,
        Server::start("own", &["basic"]).await,
    );
    let wanting = own_list(&own, "own_", ", tokenURLElicitation: {url: ''}");
    let config = config(&[entry(&shared, "shared_"), wanting]);
    let world = World::start_with(&config, &[&shared, &own], &[user_tokens::ON]).await;
    let client = user_tokens::able(world.client()).await;
    assert_eq!(client.tools().await, ["shared_common"]);
    let unknown = client.call("shared_nothing").await;
    assert_eq!(unknown.error().0, -32602, "no list of the caller alone has that");
    let id = user_tokens::elicited(&client.call("own_basic").await);
    let (_, csrf) = user_tokens::form(&client, &id).await;
    let saved = user_tokens::submit(&client, (&id, &csrf, &csrf), "Bearer own").await;
    assert_eq!(saved.status, 200, "{}", saved.text);
    assert_eq!(client.call("own_basic").await.status, 200);
    assert_eq!(client.tools().await, ["own_basic", "shared_common"]);
    assert_eq!(client.call("own_nothing").await.error().0, -32602);
    let lists = own.calls("tools/list");
    assert!(!lists.is_empty());
    for seen in lists {
        assert_eq!(seen.header("authorization"), Some("Bearer own"));
    }
}
