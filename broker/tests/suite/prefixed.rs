//! `resourceURIs: prefixed` (data-plane.md 5.5): URIs of a server carry its prefix towards clients, in both directions and on
//! both data paths.

use crate::client::{Client, Reply};
use crate::client_streams::listening;
use crate::fixture::{Server, tool};
use crate::relays::{Events, asking};
use crate::world::{World, config, entry, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

const EXACT: &str = "mcpgw:one_:file:///a";
const VIEW: &str = "ui://one_view";
const TEMPLATE: &str = "mcpgw:one_:db://{table}/rows";

/// A server with prefixed URIs, and one that has the same resource as it is.
async fn two() -> (Arc<Server>, Arc<Server>, World) {
    let one = Server::start("one", &["ask"]).await;
    let two = Server::start("two", &[]).await;
    for server in [&one, &two] {
        let a = json!({"uri": "file:///a", "name": "a", "x": 1});
        server.resources.lock().unwrap().push(a);
    }
    let view = json!({"uri": "ui://view", "name": "view"});
    one.resources.lock().unwrap().push(view);
    let rows = json!({"uriTemplate": "db://{table}/rows", "name": "rows"});
    one.templates.lock().unwrap().push(rows);
    one.prompts.lock().unwrap().push(json!({"name": "p"}));
    let mut shown = tool("show");
    shown["_meta"] = json!({"ui": {"resourceUri": "ui://view"}});
    one.tools.lock().unwrap().push(shown);
    let first = entry(&one, "one_").replace("}\n", ", resourceURIs: prefixed}\n");
    let text = config(&[first, entry(&two, "two_")]);
    let world = World::start_with(&text, &[&one, &two], &[]).await;
    (one, two, world)
}

/// What the server answers this method with.
fn answers(server: &Server, method: &str, result: Value) {
    let mut results = server.results.lock().unwrap();
    results.insert(method.to_owned(), result);
}

/// The body of the last request of this method.
fn last(server: &Server, method: &str) -> Value {
    let seen = server.calls(method).pop().expect("a request");
    serde_json::from_slice(&seen.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uris_are_listed_with_the_prefix_and_read_under_the_servers_own() {
    let (one, two, world) = two().await;
    let client = world.client().initialized().await;
    let resources = client.names("resources/list", "resources", "uri").await;
    assert_eq!(resources, ["file:///a", EXACT, VIEW]);
    let of_kind = "resourceTemplates";
    let templates = client
        .names("resources/templates/list", of_kind, "uriTemplate")
        .await;
    assert_eq!(templates, [TEMPLATE]);
    let tools = client.rpc("tools/list", json!({})).await.json()["result"]["tools"].take();
    assert_eq!(tools[1]["_meta"]["ui"]["resourceUri"], VIEW, "{tools}");
    let status = world.status_of("one").await;
    assert!(status.get("conflicts").is_none(), "{status}");

    for (published, own) in [
        (EXACT, "file:///a"),
        (VIEW, "ui://view"),
        ("mcpgw:one_:db://users/rows", "db://users/rows"),
    ] {
        let contents = json!({"contents": [{"uri": own, "text": own}]});
        answers(&one, "resources/read", contents);
        let reply = client.rpc("resources/read", json!({"uri": published})).await;
        assert_eq!(
            reply.json()["result"]["contents"],
            json!([{"uri": published, "text": own}]),
            "{}",
            reply.text
        );
        assert_eq!(last(&one, "resources/read")["params"]["uri"], own);
    }
    assert!(two.calls("resources/read").is_empty());
    let reply = client.rpc("resources/read", json!({"uri": "file:///a"})).await;
    assert_eq!(reply.json()["result"]["content"][0]["text"], "two");
    for unknown in [
        "ui://view",
        "mcpgw:one_:ui://view",
        "db://users/rows",
        "mcpgw:two_:file:///a",
    ] {
        let reply = client.rpc("resources/read", json!({"uri": unknown})).await;
        assert_eq!(reply.error().0, -32602, "{unknown}");
    }
    assert_eq!(one.calls("resources/read").len(), 3);

    let reference = json!({"type": "ref/resource", "uri": TEMPLATE});
    let params = json!({"ref": reference, "argument": {"name": "table", "value": "u"}});
    let reply = client.rpc("completion/complete", params).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let sent = last(&one, "completion/complete");
    assert_eq!(sent["params"]["ref"]["uri"], "db://{table}/rows");
}

/// Content with every kind of URI, as the server has it or as it is published.
fn content(uri: &str) -> Value {
    json!([
        {"type": "text", "text": "file:///a"},
        {"type": "resource_link", "uri": uri, "name": "a"},
        {"type": "resource", "resource": {"uri": uri, "text": "file:///a"}},
    ])
}

/// The same request by a client that takes no event stream.
async fn as_json(client: &Client, method: &str, params: &Value) -> Reply {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json");
    client.send(request.body(body.to_string())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_and_resources_in_results_carry_the_published_uri() {
    let (one, _two, world) = two().await;
    let client = world.client().initialized().await;
    let own = json!({"content": content("file:///a"), "structuredContent": {"uri": "file:///a"}});
    answers(&one, "tools/call", own);
    let params = json!({"name": "one_show", "arguments": {"uri": "file:///a"}});
    for reply in [
        client.rpc("tools/call", params.clone()).await,
        as_json(&client, "tools/call", &params).await,
        client.stateless("one_show", json!({})).await,
    ] {
        let result = &reply.json()["result"];
        assert_eq!(result["content"], content(EXACT), "{}", reply.text);
        assert_eq!(result["structuredContent"]["uri"], "file:///a");
    }
    let sent = one.calls("tools/call").remove(0).body;
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["params"]["arguments"]["uri"], "file:///a", "arguments stay");

    let message = |uri| json!({"messages": [{"role": "user", "content": content(uri)[2]}]});
    answers(&one, "prompts/get", message("file:///a"));
    let reply = client.rpc("prompts/get", json!({"name": "one_p"})).await;
    assert_eq!(reply.json()["result"], message(EXACT), "{}", reply.text);

    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    let mut events = asking(&client, "one_ask", json!({"say": [updated("ui://view")]})).await;
    assert_eq!(events.message().await, updated(VIEW));
    assert_eq!(events.message().await["id"], 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_and_updates_go_by_the_published_uri() {
    let (one, _two, world) = two().await;
    let client = world.client().initialized().await;
    let mut events = Events::of(listening(&client, None).await);
    let subscribed = client.rpc("resources/subscribe", json!({"uri": EXACT})).await;
    assert_eq!(subscribed.status, 200, "{}", subscribed.text);
    assert_eq!(last(&one, "resources/subscribe")["params"]["uri"], "file:///a");
    let request = one.calls("resources/subscribe").pop().unwrap();
    let backend = request.header("mcp-session-id").unwrap();
    eventually("the stream of the backend session", || async {
        (one.streams(backend) == 1).then_some(())
    })
    .await;
    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    one.say(&updated("file:///a"));
    assert_eq!(events.message().await, updated(EXACT));
    let ended = client.rpc("resources/unsubscribe", json!({"uri": EXACT})).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    assert_eq!(last(&one, "resources/unsubscribe")["params"]["uri"], "file:///a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_sessions_hear_of_and_read_the_published_uri() {
    let (one, _two, world) = two().await;
    let client = world.client();
    let stateless = |method: &str, params: Value| {
        let mut params = params;
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        let name = params["uri"].as_str().unwrap_or_default().to_owned();
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        client
            .request(Method::POST, "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .header("mcp-name", name)
            .body(body.to_string())
    };
    let contents = |uri: &str| json!([{"uri": uri, "text": "a"}]);
    answers(&one, "resources/read", json!({"contents": contents("file:///a")}));
    let reply = client
        .send(stateless("resources/read", json!({"uri": EXACT})))
        .await;
    assert_eq!(
        reply.json()["result"]["contents"],
        contents(EXACT),
        "{}",
        reply.text
    );
    assert_eq!(reply.json()["result"]["resultType"], "complete");
    assert_eq!(last(&one, "resources/read")["params"]["uri"], "file:///a");

    let wanted = json!({"notifications": {"resourceSubscriptions": [EXACT]}});
    let listen = stateless("subscriptions/listen", wanted).send().await.unwrap();
    let mut events = Events::of(listen);
    let acknowledged = events.message().await;
    assert_eq!(
        acknowledged["params"]["notifications"]["resourceSubscriptions"],
        json!([EXACT]),
        "{acknowledged}"
    );
    one.say(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}}));
    assert_eq!(events.message().await["params"]["uri"], EXACT);
}
