//! Updates of single resources for clients without a session, from servers of each kind.

use super::client::{Client, Events};
use super::seat::{SERVERS, STATELESS, Server, eventually};
use mcp_gateway_conformance::fixture::Kind;
use mcp_gateway_conformance::harness::gateway::{Front, Gateway};
use serde_json::{Value, json};

const WATCHED: &str = "test://watched-resource";

async fn updated(client: &Client, uri: &str) {
    let reply = client
        .call("test_trigger_resource_update", json!({"uri": uri}))
        .await;
    assert!(reply.text().contains(uri), "{reply:?}");
}

async fn next_update(events: &mut Events) -> Value {
    let notice = events.next().await.expect("the stream ended");
    assert_eq!(notice["method"], "notifications/resources/updated");
    assert_eq!(
        notice["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        "l"
    );
    notice["params"]["uri"].clone()
}

async fn hears(way: Front, server: Server) {
    let gateway = Gateway::start(way, vec![server.behind("fixture", "")], &[])
        .await
        .unwrap();
    let client = Client::connect(&gateway.url(), STATELESS).await;
    let wanted = json!({"toolsListChanged": true, "resourceSubscriptions": [WATCHED, "test://none"]});
    let (honoured, mut events) = client.listen(wanted).await;
    let expected = json!({"toolsListChanged": true, "resourceSubscriptions": [WATCHED]});
    assert_eq!(honoured, expected, "{way:?} {}", server.name);
    updated(&client, WATCHED).await;
    assert_eq!(next_update(&mut events).await, WATCHED);
    // Nobody asked for this one: it would come before the other.
    updated(&client, "test://static-text").await;
    updated(&client, WATCHED).await;
    assert_eq!(next_update(&mut events).await, WATCHED);
    // Whoever lost the stream for a while does not know what was missed.
    client.call("test_break_streams", json!({})).await;
    assert_eq!(next_update(&mut events).await, WATCHED);
    updated(&client, WATCHED).await;
    assert_eq!(next_update(&mut events).await, WATCHED);
    drop(events);
    if server.has_sessions_only() {
        let journal = gateway.seen_by("fixture").unwrap();
        let is_end = |kind: Kind, method: &str| kind == Kind::Http && method == "DELETE";
        let ended = || {
            journal
                .entries()
                .iter()
                .any(|entry| is_end(entry.kind, &entry.method))
        };
        eventually(ended)
            .await
            .expect("the session of the stream ends with it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateless_client_hears_of_the_resources_that_it_names_through_envoy() {
    for server in SERVERS {
        hears(Front::Envoy, server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateless_client_hears_of_the_resources_that_it_names_through_the_front() {
    for server in SERVERS {
        hears(Front::Direct, server).await;
    }
}

/// Whether the server was asked for updates of the resource, in its own way.
fn is_asked(gateway: &Gateway) -> bool {
    let journal = gateway.seen_by("fixture").unwrap();
    let ways = ["resources/subscribe", "subscriptions/listen"];
    journal
        .entries()
        .iter()
        .any(|entry| ways.contains(&entry.method.as_str()) && entry.target.as_deref() == Some(WATCHED))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_resources_that_the_caller_cannot_see_are_not_subscribed_to() {
    let request = |uris: Value| json!({"notifications": {"resourceSubscriptions": uris}});
    for server in SERVERS {
        let gateway = Gateway::start(Front::Direct, vec![server.behind("fixture", "")], &[])
            .await
            .unwrap();
        let client = Client::connect(&gateway.url(), STATELESS).await;
        let hidden = client.send("subscriptions/listen", request(json!([WATCHED])), &json!("l"));
        let response = hidden
            .header("x-mcp-virtualserver", "ns/none")
            .send()
            .await
            .unwrap();
        let mut events = Events::of(response);
        let first = events.next().await.unwrap();
        assert_eq!(
            first["params"]["notifications"],
            json!({"resourceSubscriptions": []}),
            "{}",
            server.name
        );
        assert!(!is_asked(&gateway), "{}", server.name);
        // Who sees it is heard by the server, so that a question would have been seen.
        let (honoured, _events) = client.listen(json!({"resourceSubscriptions": [WATCHED]})).await;
        assert_eq!(
            honoured["resourceSubscriptions"],
            json!([WATCHED]),
            "{}",
            server.name
        );
        assert!(is_asked(&gateway), "{}", server.name);
        let many: Vec<String> = (0..101).map(|number| format!("test://{number}")).collect();
        let reply = client.request("subscriptions/listen", request(json!(many))).await;
        assert_eq!(reply.answer()["error"]["code"], -32602, "{reply:?}");
    }
}
