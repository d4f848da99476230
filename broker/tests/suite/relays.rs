//! What servers say to clients, through Envoy (data-plane.md 10, 16: D31–D37).

use crate::client::Client;
use crate::fixture::Server;
use crate::world::{World, eventually};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

/// The events of a reply or stream, one JSON message after the other.
pub struct Events {
    response: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Events {
    pub fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// The next event's text.
    pub async fn block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return block;
            }
            let piece = tokio::time::timeout(std::time::Duration::from_secs(15), self.response.next());
            let piece = piece.await.expect("no event within 15 s").expect("stream ended");
            self.text
                .push_str(std::str::from_utf8(&piece.unwrap()).expect("text"));
        }
    }

    /// The next event that is no comment: its id and its message.
    pub async fn event(&mut self) -> (String, Value) {
        loop {
            let block = self.block().await;
            let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = line("data: ") {
                return (
                    line("id: ").unwrap_or_default().to_owned(),
                    serde_json::from_str(data).unwrap(),
                );
            }
        }
    }

    /// The next message, comments left out.
    pub async fn message(&mut self) -> Value {
        loop {
            let block = self.block().await;
            if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

/// A call of the tool that asks, as a stream.
pub async fn asking(client: &Client, tool: &str, arguments: Value) -> Events {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body.to_string());
    Events::of(request.send().await.unwrap())
}

pub async fn two_servers() -> (Arc<Server>, Arc<Server>, World) {
    let (one, two) = (
        Server::start("one", &["ask", "forecast"]).await,
        Server::start("two", &["ask"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    (one, two, world)
}

pub fn question(id: &Value, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d31_d32_answers_and_errors_of_a_client_reach_the_server_that_asked() {
    let (one, two, world) = two_servers().await;
    let client = world
        .client()
        .able(json!({"sampling": {}, "elicitation": {}, "roots": {}}))
        .await;
    for id in [json!(1), json!("1")] {
        let mut calls = Vec::new();
        for (tool, method) in [
            ("one_ask", "sampling/createMessage"),
            ("two_ask", "elicitation/create"),
        ] {
            let arguments =
                json!({"ask": question(&id, method, &json!({"message": "Who?", "messages": []}))});
            let mut events = asking(&client, tool, arguments).await;
            let asked = events.message().await;
            assert_eq!(asked["method"], method);
            calls.push((events, asked));
        }
        assert_ne!(calls[0].1["id"], calls[1].1["id"]);
        assert_eq!(calls[0].1["params"]["message"], "Who?");
        assert_eq!(calls[1].1["params"]["message"], "[ns/two] Who?");
        let outcomes = [
            ("result", json!({"role": "assistant"})),
            ("error", json!({"code": -1, "message": "no"})),
        ];
        // The later question is answered first.
        for ((events, asked), (member, value)) in calls.iter_mut().zip(&outcomes).rev() {
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], *member: value});
            let reply = client.post(answer.to_string()).await;
            assert_eq!((reply.status, reply.text.as_str()), (202, ""));
            let result = events.message().await;
            assert_eq!(result["id"], 7);
            assert_eq!(
                result["result"]["answer"],
                json!({"jsonrpc": "2.0", "id": id, *member: value})
            );
            let again = client.post(answer.to_string()).await;
            assert_eq!(again.status, 400, "the server waits no longer: {}", again.text);
        }
    }
    for (server, own) in [(&one, "one-"), (&two, "two-")] {
        let answers = server.calls("");
        let sessions = answers.iter().map(|seen| seen.header("mcp-session-id").unwrap());
        let posts = sessions.filter(|session| !session.is_empty()).collect::<Vec<_>>();
        assert!(posts.iter().all(|session| session.starts_with(own)), "{posts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s8_an_answer_with_a_forged_or_foreign_id_reaches_no_server() {
    let (one, _two, world) = two_servers().await;
    let able = json!({"roots": {}});
    let (client, thief) = (
        world.client().able(able.clone()).await,
        world.client().able(able).await,
    );
    assert_eq!(thief.call("one_forecast").await.status, 200);
    let ask = json!({"ask": question(&json!(5), "roots/list", &json!({}))});
    let mut events = asking(&client, "one_ask", ask).await;
    let id = events.message().await["id"].as_str().unwrap().to_owned();
    let with = |id: &str| json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}}).to_string();
    let stolen = thief.post(with(&id)).await;
    assert_eq!(
        (stolen.status, stolen.error().0),
        (403, -32600),
        "{}",
        stolen.text
    );
    let mut forged = id.clone().into_bytes();
    forged[10] ^= 1;
    for (id, status) in [
        (String::from_utf8(forged).unwrap(), 400),
        ("g1.".to_owned(), 400),
        ("5".to_owned(), 400),
    ] {
        let reply = client.post(with(&id)).await;
        assert_eq!((reply.status, reply.error().0), (status, -32600), "{id}");
    }
    assert_eq!(
        one.count(|seen| String::from_utf8_lossy(&seen.body).contains("\"roots\":[]")),
        0
    );
    assert_eq!(client.post(with(&id)).await.status, 202);
    assert_eq!(events.message().await["result"]["answer"]["id"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_a_server_learns_at_once_what_it_may_not_ask() {
    let (one, _two, world) = two_servers().await;
    let client = world.client().able(json!({"roots": {}})).await;
    for (asked, expected) in [
        (
            "sampling/createMessage",
            json!({"code": -32601, "message": "Method not found: sampling/createMessage"}),
        ),
        ("ping", Value::Null),
    ] {
        let mut events = asking(
            &client,
            "one_ask",
            json!({"ask": question(&json!(5), asked, &json!({}))}),
        )
        .await;
        // The client sees the result and not the question.
        let answer = events.message().await["result"]["answer"].clone();
        assert_eq!(
            answer.get("error").cloned().unwrap_or_default(),
            expected,
            "{answer}"
        );
    }
    let opened = one.calls("initialize").pop().unwrap();
    let body: Value = serde_json::from_slice(&opened.body).unwrap();
    assert_eq!(body["params"]["capabilities"], json!({"roots": {}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d34_progress_of_a_client_reaches_the_server_with_its_own_token() {
    let (one, _two, world) = two_servers().await;
    let client = world
        .client()
        .able(json!({"sampling": {}, "roots": {"listChanged": true}}))
        .await;
    let asked = question(
        &json!(5),
        "sampling/createMessage",
        &json!({"messages": [], "_meta": {"progressToken": 3}}),
    );
    let mut events = asking(&client, "one_ask", json!({"ask": asked})).await;
    let asked = events.message().await;
    let token = &asked["params"]["_meta"]["progressToken"];
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    assert_eq!(client.post(progress.to_string()).await.status, 202);
    let seen: Value = serde_json::from_slice(&one.calls("notifications/progress")[0].body).unwrap();
    assert_eq!(seen["params"], json!({"progressToken": 3, "progress": 1}));
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(client.post(changed).await.status, 202);
    eventually("the change of roots", || async {
        (one.calls("notifications/roots/list_changed").len() == 1).then_some(())
    })
    .await;
    // A client without roots has none to change.
    let other = world.client().initialized().await;
    assert_eq!(other.call("one_forecast").await.status, 200);
    assert_eq!(other.post(changed).await.status, 202);
    assert_eq!(client.post(changed).await.status, 202);
    eventually("the next change of roots", || async {
        (one.calls("notifications/roots/list_changed").len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d37_a_client_that_takes_json_only_gets_the_answer_of_an_event_stream_as_json() {
    let (_one, _two, world) = two_servers().await;
    let client = world.client().able(json!({"roots": {}})).await;
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
    let asked = question(&json!(5), "roots/list", &json!({}));
    let arguments = json!({"say": [progress], "ask": asked});
    let body = json!({"jsonrpc": "2.0", "id": "7", "method": "tools/call", "params": {"name": "one_ask", "arguments": arguments}});
    for accept in [Some("application/json"), None] {
        let mut request = client
            .request(Method::POST, "/mcp")
            .header("content-type", "application/json")
            .body(body.to_string());
        request = request.header("accept", accept.unwrap_or(""));
        let reply = client.send(request).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("application/json")),
            "{}",
            reply.text
        );
        assert_eq!(reply.json()["id"], "7");
        assert_eq!(reply.json()["result"]["answer"]["error"]["code"], -32601);
        assert_eq!(reply.header("mcp-session-id"), client.session.as_deref());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d35_a_batch_of_the_one_version_that_has_them_is_answered_by_one_array() {
    let (one, two, world) = two_servers().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one_forecast"}},
        {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": {"name": "two_ask"}},
        {"jsonrpc": "2.0", "id": 3, "method": "ping"},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "nope"}},
        {"jsonrpc": "2.0", "id": 5, "method": "initialize"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
    ]);
    let client = world.client().opened("2025-03-26", json!({"roots": {}})).await;
    let reply = client.post(batch.to_string()).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json")),
        "{}",
        reply.text
    );
    assert_eq!(reply.header("mcp-session-id"), client.session.as_deref());
    let answers = reply.json();
    assert_eq!(answers.as_array().unwrap().len(), 5);
    let of = |id: Value| {
        let found = answers
            .as_array()
            .unwrap()
            .iter()
            .find(|answer| answer["id"] == id);
        found.cloned().unwrap_or_else(|| panic!("{id}: {answers}"))
    };
    assert_eq!(of(json!(1))["result"]["content"][0]["text"], "one");
    assert_eq!(of(json!("b"))["result"]["content"][0]["text"], "asked");
    assert_eq!(of(json!(3))["result"], json!({}));
    assert_eq!(of(json!(4))["error"]["message"], "Unknown tool: nope");
    assert_eq!(of(json!(5))["error"]["code"], -32600);
    assert_eq!(
        (one.calls("tools/call").len(), two.calls("tools/call").len()),
        (1, 1)
    );
    let notices = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    let taken = client.post(notices).await;
    assert_eq!((taken.status, taken.text.as_str()), (202, ""));
    let later = world.client().initialized().await;
    let refused = later.post(batch.to_string()).await;
    assert_eq!((refused.status, refused.error().0), (400, -32600));
    assert_eq!(world.client().post(batch.to_string()).await.status, 400);
    client.send(client.request(Method::DELETE, "/mcp")).await;
    assert_eq!(client.post(batch.to_string()).await.status, 404);
    assert_eq!(one.calls("tools/call").len(), 1);
}
