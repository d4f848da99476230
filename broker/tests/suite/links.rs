//! Resources that no list shows, read by those who were given a link to them (data-plane.md 5.5). On both data paths.

use crate::access;
use crate::client::{Client, Reply};
use crate::fixture::Server;
use crate::relays::asking;
use crate::shared_store::Pair;
use crate::world::{World, config, entry, is_direct};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

const MADE: &str = "made://report/1";

fn link(uri: &str) -> Value {
    json!([{"type": "resource_link", "uri": uri, "name": "x"}])
}

/// A client that can be asked something: the gateway reads the event streams that it gets.
async fn able(client: Client) -> Client {
    client.able(json!({"roots": {}})).await
}

/// The client gets a link from this tool, whose reply is an event stream.
async fn given(client: &Client, tool: &str, uri: &str) {
    let mut events = asking(client, tool, json!({"content": link(uri)})).await;
    let answer = events.message().await;
    assert_eq!(answer["result"]["content"], link(uri), "{answer}");
}

async fn read(client: &Client, uri: &str) -> Reply {
    client.rpc("resources/read", json!({"uri": uri})).await
}

/// The name of the server that answered.
async fn read_from(client: &Client, uri: &str) -> String {
    let reply = read(client, uri).await;
    let server = &reply.json()["result"]["content"][0]["text"];
    server
        .as_str()
        .unwrap_or_else(|| panic!("{}", reply.text))
        .to_owned()
}

fn unknown(reply: &Reply, uri: &str) {
    let body = reply.json();
    let told = (reply.status, reply.error(), body["error"]["data"]["uri"].as_str());
    let expected = (200, (-32602, "Resource not found".to_owned()), Some(uri));
    assert_eq!(told, expected, "{}", reply.text);
}

async fn two() -> (Arc<Server>, Arc<Server>) {
    let (one, two) = (
        Server::start("one", &["ask", "plain"]).await,
        Server::start("two", &["ask"]).await,
    );
    let listed = json!({"uri": "listed://a", "name": "a"});
    one.resources.lock().unwrap().push(listed);
    let rows = json!({"uriTemplate": "db://{table}", "name": "rows"});
    one.templates.lock().unwrap().push(rows);
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d49_what_a_session_was_given_a_link_to_is_read_from_the_server_that_gave_it() {
    let (one, two) = two().await;
    let servers = config(&[entry(&one, "one_"), entry(&two, "two_")]).replace(
        "virtualServers: []\n",
        "virtualServers:\n- {name: ns/few, tools: [one_ask], resources: [listed://a]}\n- {name: ns/tools, tools: [one_ask]}\n",
    );
    let world = World::start_with(&servers, &[&one, &two], &[]).await;
    let (client, other) = (able(world.client()).await, able(world.client()).await);
    unknown(&read(&client, MADE).await, MADE);
    given(&client, "two_ask", MADE).await;
    assert_eq!(read_from(&client, MADE).await, "two");
    // S8: what one session was given is nothing to another, also when that has called the same server.
    given(&other, "two_ask", "made://report/2").await;
    unknown(&read(&other, MADE).await, MADE);
    // S9: what the caller selects holds for links, too.
    let few = client.clone().with("x-mcp-virtualserver", "ns/few");
    unknown(&read(&few, MADE).await, MADE);
    let tools = client.clone().with("x-mcp-virtualserver", "ns/tools");
    assert_eq!(
        read_from(&tools, MADE).await,
        "two",
        "it names no resources, so it hides none"
    );
    // The last server that gave the link counts; what is listed, or covered by a template, is not asked of who gave a link.
    given(&client, "one_ask", MADE).await;
    assert_eq!(read_from(&client, MADE).await, "one");
    for uri in ["listed://a", "db://users"] {
        given(&client, "two_ask", uri).await;
        assert_eq!(read_from(&client, uri).await, "one");
    }
    let subscribed = client.rpc("resources/subscribe", json!({"uri": MADE})).await;
    assert_eq!(subscribed.error().0, -32602, "{}", subscribed.text);
    let calls = two.calls("resources/read").len();
    assert_eq!(calls, 2, "only what it gave a link to was asked of it");
    let ended = client.send(client.request(Method::DELETE, "/mcp")).await;
    assert_eq!(ended.status, 200);
    assert_eq!(read(&client, MADE).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_answers_without_a_stream_are_known_where_the_answer_is_read() {
    let (one, two) = two().await;
    let first = entry(&one, "one_").replace("}\n", ", resourceURIs: prefixed}\n");
    let world = World::start_with(&config(&[first, entry(&two, "two_")]), &[&one, &two], &[]).await;
    let client = world.client().initialized().await;
    for server in [&one, &two] {
        let prompt = json!({"name": "p"});
        server.prompts.lock().unwrap().push(prompt);
        let mut results = server.results.lock().unwrap();
        results.insert("tools/call".to_owned(), json!({"content": link(MADE)}));
    }
    two.tools.lock().unwrap().push(crate::fixture::tool("plain"));
    two.notify("notifications/tools/list_changed");
    // The answers of this server are read for the prefix of its URIs.
    let published = format!("mcpgw:one_:{MADE}");
    assert_eq!(
        client.call("one_plain").await.json()["result"]["content"],
        link(&published)
    );
    assert_eq!(read_from(&client, &published).await, "one");
    let body: Value = serde_json::from_slice(&one.calls("resources/read")[0].body).unwrap();
    assert_eq!(body["params"]["uri"], MADE);
    unknown(&read(&client, MADE).await, MADE);
    // Those of the other are read nowhere on the way through Envoy.
    crate::world::eventually("the tool", || async {
        (client.call("two_plain").await.json()["result"]["content"] == link(MADE)).then_some(())
    })
    .await;
    if is_direct() {
        assert_eq!(read_from(&client, MADE).await, "two");
    } else {
        unknown(&read(&client, MADE).await, MADE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_a_link_opens_nothing_that_policies_close() {
    let (one, two) = two().await;
    let text = access::with_policy(&[(&one, "one_"), (&two, "two_")], "me", "*");
    let world = World::start_with(&text, &[&one, &two], &[]).await;
    let client = able(access::bearer(&world)).await;
    given(&client, "two_ask", MADE).await;
    unknown(&read(&client, MADE).await, MADE);
    world.write_config(&text.replace("kind: tool", "kind: resource"));
    crate::world::eventually("the rule about resources", || async {
        (read(&client, MADE).await.json()["result"]["content"][0]["text"] == "two").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_any_replica_knows_the_links_of_a_session_until_it_ends() {
    let (one, two) = two().await;
    let pair = Pair::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let client = able(pair.worlds[0].client()).await;
    given(&client, "two_ask", MADE).await;
    let there = pair.on(1, &client);
    assert_eq!(read_from(&there, MADE).await, "two");
    let links = async || {
        let keys = pair.redis.command(&["KEYS", "mcpgw:links:*"]).await.unwrap();
        redis::from_redis_value::<Vec<String>>(keys).unwrap()
    };
    let keys = links().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        // D23.
        let left = pair.redis.command(&["TTL", &key]).await.unwrap();
        assert!(redis::from_redis_value::<i64>(left).unwrap() > 0, "{key}");
    }
    // S23: the last thousand.
    let many: Vec<Value> = (0..1001)
        .map(|n| link(&format!("made://{n}"))[0].clone())
        .collect();
    let mut events = asking(&client, "one_ask", json!({"content": many})).await;
    events.message().await;
    for gone in [MADE, "made://0"] {
        unknown(&read(&there, gone).await, gone);
    }
    for kept in ["made://1", "made://1000"] {
        assert_eq!(read_from(&there, kept).await, "one");
    }
    let ended = there.send(there.request(Method::DELETE, "/mcp")).await;
    assert_eq!(ended.status, 200);
    assert!(links().await.is_empty());
}
