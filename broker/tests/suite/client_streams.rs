//! Streams of clients outside of calls: taken up again, what servers say on them, subscriptions (data-plane.md 4.6, 10.5).

use crate::client::Client;
use crate::relays::{Events, question, two_servers};
use crate::world::eventually;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_server_is_taken_up_again_at_the_server_that_was_called_last() {
    let (one, two, world) = two_servers().await;
    let (client, plain) = (
        world.client().able(json!({"roots": {}})).await,
        world.client().initialized().await,
    );
    for (server, call) in [(&one, "one_forecast"), (&two, "two_ask"), (&one, "one_forecast")] {
        for session in [&client, &plain] {
            assert_eq!(session.call(call).await.status, 200);
            let resume = |event: String| {
                session
                    .request(Method::GET, "/mcp")
                    .header("accept", "text/event-stream")
                    .header("last-event-id", event)
            };
            let events = eventually("the stream of the server called last", || async {
                let response = resume(format!("{}-1", server.name)).send().await.unwrap();
                (response.status() == 200).then_some(response)
            })
            .await;
            let sent = events.headers().get("mcp-session-id").cloned().unwrap();
            assert_eq!(Some(sent.to_str().unwrap()), session.session.as_deref());
            let mut events = Events::of(events);
            let asked = events.message().await;
            let relayed = asked["id"].as_str().is_some_and(|id| id.starts_with("g1."));
            assert_eq!(relayed, session.session == client.session, "{asked}");
            let result = events.message().await;
            assert_eq!(result["result"]["after"], format!("{}-1", server.name));
        }
    }
    // What the server refuses is its answer, and a lost backend session does not look like the end of the client's.
    let resume = |event: &str| {
        let request = client.request(Method::GET, "/mcp");
        client.send(
            request
                .header("accept", "text/event-stream")
                .header("last-event-id", event.to_owned()),
        )
    };
    assert_eq!(resume("unknown").await.status, 400);
    let seen = one.count(|seen| seen.verb == Method::GET && seen.header("last-event-id") == Some("unknown"));
    assert_eq!(seen, 1);
    one.get_status.store(404, std::sync::atomic::Ordering::Relaxed);
    let lost = resume("one-1").await;
    assert_eq!((lost.status, lost.error().0), (400, -32603), "{}", lost.text);
}

/// The GET stream of a client.
pub async fn listening(client: &Client, last: Option<&str>) -> reqwest::Response {
    let request = client
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream");
    let request = match last {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_lost_its_stream_gets_what_it_missed() {
    let (one, _two, world) = two_servers().await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    let change = |text: &str| {
        one.tools.lock().unwrap()[0]["description"] = json!(text);
        one.notify("notifications/tools/list_changed");
    };
    let mut events = Events::of(listening(&client, None).await);
    let mut witness = Events::of(listening(&other, None).await);
    change("first");
    let (first, notice) = events.event().await;
    assert_eq!(notice["method"], "notifications/tools/list_changed");
    let (foreign, _) = witness.event().await;
    drop(events);
    change("second");
    assert_eq!(witness.event().await.1["method"], notice["method"]);
    let mut events = Events::of(listening(&client, Some(&first)).await);
    let (second, missed) = events.event().await;
    assert_eq!(missed, notice);
    assert_ne!(first, second);
    change("third");
    assert_eq!(events.event().await.1, notice, "and then what comes");
    // S8: an event id of another session, or one that was changed, opens nothing.
    let mut forged = first.clone().into_bytes();
    forged[9] ^= 1;
    for bad in [foreign, String::from_utf8(forged).unwrap(), "g1.x".to_owned()] {
        assert_eq!(listening(&client, Some(&bad)).await.status(), 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_outside_of_calls_reaches_the_stream_of_its_client() {
    let (one, _two, world) = two_servers().await;
    let client = world.client().able(json!({"roots": {}})).await;
    let mut events = Events::of(listening(&client, None).await);
    assert_eq!(client.call("one_forecast").await.status, 200);
    let backend = one.calls("tools/call")[0]
        .header("mcp-session-id")
        .unwrap()
        .to_owned();
    let opened = || async { (one.streams(&backend) == 1).then_some(()) };
    eventually("the stream of the backend session", opened).await;
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "logger": "db", "data": 1}});
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///x"}});
    one.say(&updated);
    one.say(&log);
    let said = events.message().await;
    assert_eq!(said["params"]["logger"], "ns/one/db", "nobody subscribed: {said}");
    let answer = one.ask(&backend, &question(&json!(4), "roots/list", &json!({})));
    let asked = events.message().await;
    let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}});
    assert_eq!(client.post(reply.to_string()).await.status, 202);
    assert_eq!(
        answer.await.unwrap(),
        json!({"jsonrpc": "2.0", "id": 4, "result": {"roots": []}})
    );
    let refused = one.ask(
        &backend,
        &question(&json!(5), "sampling/createMessage", &json!({})),
    );
    assert_eq!(refused.await.unwrap()["error"]["code"], -32601);
    drop(events);
    assert_eq!(one.streams(&backend), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d34_a_subscription_is_kept_over_the_loss_of_a_backend_session() {
    let (one, _two, world) = two_servers().await;
    one.resources.lock().unwrap().extend([
        json!({"uri": "file:///x", "name": "x"}),
        json!({"uri": "file:///y", "name": "y"}),
    ]);
    one.notify("notifications/resources/list_changed");
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    eventually("the resources", || async {
        (client.names("resources/list", "resources", "uri").await.len() == 2).then_some(())
    })
    .await;
    let mut events = Events::of(listening(&client, None).await);
    let _silent = listening(&other, None).await;
    for session in [&client, &other] {
        assert_eq!(session.call("one_forecast").await.status, 200);
    }
    let reply = client
        .rpc("resources/subscribe", json!({"uri": "file:///x"}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let backend = |method: &str| {
        one.calls(method)
            .pop()
            .unwrap()
            .header("mcp-session-id")
            .unwrap()
            .to_owned()
    };
    let first = backend("resources/subscribe");
    let stream_of = |session: String| {
        let one = &one;
        async move {
            let opened = || async { (one.streams(&session) == 1).then_some(()) };
            eventually("the stream of the backend session", opened).await;
        }
    };
    stream_of(first.clone()).await;
    let updated = |uri: &str| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}});
    one.say(&updated("file:///y"));
    one.say(&updated("file:///x"));
    assert_eq!(events.message().await, updated("file:///x"), "and not of y");
    one.forget_sessions();
    assert_eq!(client.call("one_forecast").await.status, 200);
    let second = client.call("one_forecast").await;
    assert_eq!(second.json()["result"]["content"][0]["text"], "one");
    eventually("the subscription at the new session", || async {
        (one.calls("resources/subscribe").len() == 2).then_some(())
    })
    .await;
    let second = backend("resources/subscribe");
    assert_ne!(first, second);
    stream_of(second).await;
    one.say(&updated("file:///x"));
    assert_eq!(events.message().await, updated("file:///x"));
    let others =
        one.count(|seen| seen.verb == Method::GET && seen.header("user-agent") == Some("mcp-router"));
    assert_eq!(others, 2, "a client that wants nothing costs no stream");
}
