//! Calls of clients with sessions on a server without, which asks by its answers (data-plane.md 10.6), held open by the
//! front that forwards.

use crate::client::Client;
use crate::relays::{Events, asking};
use crate::world::World;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Which requests of calls the server saw.
type Calls = Arc<AtomicUsize>;

/// A server of the stateless revision with the tool `ask`, whose arguments say what it does:
/// `rounds` questions one after the other, `questions` at once, then `status` with a JSON-RPC error, or `silence` before a
/// result that never comes.
async fn server() -> (SocketAddr, Calls) {
    let calls = Calls::default();
    let app = axum::Router::new()
        .route("/mcp", post(handle))
        .with_state(Arc::clone(&calls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    (address, calls)
}

async fn handle(State(calls): State<Calls>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap();
    let id = &message["id"];
    let result = match message["method"].as_str().unwrap() {
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "ttlMs": 0, "cacheScope": "private",
        }),
        "tools/list" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{"name": "ask", "inputSchema": {"type": "object"}}],
        }),
        "tools/call" => {
            assert_eq!(headers["mcp-name"], "ask");
            calls.fetch_add(1, Ordering::Relaxed);
            return called(id, &message["params"]).await;
        }
        _ => {
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}});
            return (StatusCode::NOT_FOUND, axum::Json(error)).into_response();
        }
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

async fn called(id: &Value, params: &Value) -> Response {
    let arguments = &params["arguments"];
    let round: u64 = params["requestState"]
        .as_str()
        .map_or(0, |state| state.parse().unwrap());
    if round < arguments["rounds"].as_u64().unwrap_or_default() {
        return asked(id, arguments, round + 1);
    }
    if let Some(status) = arguments["status"].as_u64() {
        let error =
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no such argument"}});
        let status = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap();
        return (status, axum::Json(error)).into_response();
    }
    if let Some(silence) = arguments["silence"].as_u64() {
        tokio::time::sleep(Duration::from_millis(silence)).await;
        let body = futures::stream::pending::<Result<String, std::convert::Infallible>>();
        return ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response();
    }
    let result = json!({
        "resultType": "complete",
        "content": [{"type": "text", "text": format!("after {round} rounds")}],
        "answers": params["inputResponses"],
    });
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

fn asked(id: &Value, arguments: &Value, next: u64) -> Response {
    let form = json!({"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}});
    let mut requests = json!({"who": form});
    if arguments["also"].is_string() {
        requests["also"] = json!({"method": arguments["also"], "params": {}});
    }
    let result =
        json!({"resultType": "input_required", "requestState": next.to_string(), "inputRequests": requests});
    axum::Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

/// A gateway whose calls of the server take no longer than `limit`.
async fn world(server: SocketAddr, limit: &str, flags: &[&str]) -> (World, Client) {
    let config = format!(
        "servers:\n- {{name: ns/one, url: 'http://{server}/mcp', prefix: one_, protocol: modern{limit}}}\n"
    );
    let flags: Vec<&str> = flags.iter().copied().chain(["--data-path=direct"]).collect();
    let world = World::broker_only(&config, &flags).await;
    let client = world.direct().able(json!({"elicitation": {}})).await;
    assert_eq!(client.tools().await, ["one_ask"]);
    (world, client)
}

async fn answer(client: &Client, events: &mut Events) -> String {
    let question = events.message().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let reply =
        json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {}}});
    assert_eq!(client.post(reply.to_string()).await.status, 202);
    reply.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_waits_for_is_not_kept() {
    let (server, _) = server().await;
    let (_world, client) = world(server, "", &[]).await;
    let mut events = asking(&client, "one_ask", json!({"rounds": 1})).await;
    let answered = answer(&client, &mut events).await;
    assert_eq!(client.post(answered).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_call_is_answered_after_eight_rounds_and_not_after_nine() {
    let (server, calls) = server().await;
    let (_world, client) = world(server, "", &[]).await;
    let mut events = asking(&client, "one_ask", json!({"rounds": 8})).await;
    for _ in 0..8 {
        answer(&client, &mut events).await;
    }
    let result = events.message().await;
    assert_eq!(
        result["result"]["content"][0]["text"], "after 8 rounds",
        "{result}"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 9);
    let mut events = asking(&client, "one_ask", json!({"rounds": 9})).await;
    for _ in 0..8 {
        answer(&client, &mut events).await;
    }
    let result = events.message().await;
    assert_eq!(result["result"]["isError"], true, "{result}");
    assert_eq!(calls.load(Ordering::Relaxed), 18, "the ninth question was read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_repeated_call_is_the_servers_own() {
    let (server, _) = server().await;
    let (_world, client) = world(server, "", &[]).await;
    for status in [400, 404, 500] {
        let mut events = asking(&client, "one_ask", json!({"rounds": 1, "status": status})).await;
        answer(&client, &mut events).await;
        let reply = events.message().await;
        assert_eq!(
            (
                reply["id"].as_i64(),
                reply["error"]["code"].as_i64(),
                &reply["error"]["message"]
            ),
            (Some(7), Some(-32602), &json!("no such argument")),
            "{status}: {reply}"
        );
    }
    // The first round has no question to be answered before it.
    let refused = client
        .rpc(
            "tools/call",
            json!({"name": "one_ask", "arguments": {"status": 400}}),
        )
        .await;
    assert_eq!(refused.error().0, -32602, "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_cannot_be_asked_ends_the_call_before_the_other_answers() {
    let (server, calls) = server().await;
    let (_world, client) = world(server, "", &["--bridge-wait=300"]).await;
    let arguments = json!({"rounds": 1, "also": "sampling/createMessage"});
    let mut events = asking(&client, "one_ask", arguments).await;
    let first = events.message().await;
    let result = if first["method"].is_string() {
        // Nobody answers it.
        events.message().await
    } else {
        first
    };
    assert_eq!(result["result"]["isError"], true, "{result}");
    let text = result["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("sampling/createMessage"), "{text}");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_call_counts_once_and_to_the_end_of_its_answer() {
    let (server, _) = server().await;
    let (_world, client) = world(server, ", callTimeout: 2s", &[]).await;
    let mut waits = asking(&client, "one_ask", json!({"rounds": 1})).await;
    let question = waits.message().await;
    assert_eq!(question["method"], "elicitation/create");
    // The head of the reply comes before the limit, the answer never: without a limit on it this waits for minutes.
    let mut events = asking(&client, "one_ask", json!({"silence": 100})).await;
    let late = events.message().await;
    assert_eq!(
        (late["id"].as_i64(), late["error"]["message"].as_str()),
        (Some(7), Some("MCP server timed out")),
        "{late}"
    );
    // A person who thinks for longer than the server may take ends nothing.
    let reply =
        json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {}}});
    assert_eq!(client.post(reply.to_string()).await.status, 202);
    assert_eq!(
        waits.message().await["result"]["content"][0]["text"],
        "after 1 rounds"
    );
}
