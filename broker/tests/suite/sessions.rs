//! Client sessions and backend sessions (data-plane.md 16, D14–D24).

use crate::fixture::Server;
use crate::world::{World, eventually, is_direct};
use reqwest::Method;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_after_delete_every_method_is_404_and_the_server_session_is_deleted() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    let backend = one.calls("tools/call")[0]
        .header("mcp-session-id")
        .unwrap()
        .to_owned();
    let ended = client.send(client.request(Method::DELETE, "/mcp")).await;
    assert_eq!((ended.status, ended.text.as_str()), (200, ""));
    for method in ["ping", "tools/list", "tools/call", "prompts/get", "initialized"] {
        let reply = client.rpc(method, json!({"name": "one_forecast"})).await;
        assert_eq!(
            (reply.status, reply.error().0),
            (404, -32001),
            "{method}: {}",
            reply.text
        );
    }
    assert_eq!(
        client.rpc("tools/call", json!({"name": "nope"})).await.status,
        404,
        "an unknown tool tells nothing either"
    );
    assert_eq!(
        client
            .send(
                client
                    .request(Method::GET, "/mcp")
                    .header("accept", "text/event-stream")
            )
            .await
            .status,
        404
    );
    assert_eq!(
        client.send(client.request(Method::DELETE, "/mcp")).await.status,
        404
    );
    let deleted =
        || one.count(|seen| seen.verb == Method::DELETE && seen.header("mcp-session-id") == Some(&backend));
    eventually("DELETE at the server", || async {
        (deleted() == 1).then_some(())
    })
    .await;
    assert_eq!(one.calls("tools/call").len(), 1, "no call after the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d15_each_session_with_a_server_that_the_client_session_opened_is_deleted_with_it() {
    let (one, two, unused) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
        Server::start("unused", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_"), (&unused, "unused_")], &[]).await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    for name in ["one_forecast", "two_forecast"] {
        assert_eq!(client.call(name).await.status, 200);
    }
    assert_eq!(other.call("one_forecast").await.status, 200);
    let opened = |server: &Server| -> Vec<String> {
        let calls = server.calls("tools/call");
        calls
            .iter()
            .map(|seen| seen.header("mcp-session-id").unwrap().to_owned())
            .collect()
    };
    let (first, second) = (opened(&one), opened(&two));
    let ended = client.send(client.request(Method::DELETE, "/mcp")).await;
    assert_eq!(ended.status, 200);
    let deleted = |server: &Server, session: &str| {
        server.count(|seen| seen.verb == Method::DELETE && seen.header("mcp-session-id") == Some(session))
    };
    eventually("DELETE at both servers", || async {
        ((deleted(&one, &first[0]), deleted(&two, &second[0])) == (1, 1)).then_some(())
    })
    .await;
    assert_eq!(deleted(&one, &first[1]), 0, "another client's goes on");
    assert_eq!(other.call("one_forecast").await.status, 200);
    assert_eq!(unused.count(|seen| seen.verb == Method::DELETE), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_bad_sessions_are_404_and_missing_ones_400_on_router_and_broker() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    for method in ["tools/call", "tools/list", "ping"] {
        let params = json!({"name": "one_forecast"});
        let missing = world.client().rpc(method, params.clone()).await;
        assert_eq!(
            (missing.status, missing.error().0),
            (400, -32600),
            "{method}: {}",
            missing.text
        );
        let mut forged = world.client();
        forged.session = Some("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x".to_owned());
        let bad = forged.rpc(method, params).await;
        assert_eq!(
            (bad.status, bad.error()),
            (404, (-32001, "session not found".to_owned())),
            "{method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_stream_needs_a_session_and_gives_none() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let get = |client: &crate::client::Client| {
        client
            .request(Method::GET, "/mcp")
            .header("accept", "text/event-stream")
    };
    let client = world.client();
    assert_eq!(client.send(get(&client)).await.status, 400);
    let mut forged = world.client();
    forged.session = Some("x".to_owned());
    let reply = forged.send(get(&forged)).await;
    assert_eq!((reply.status, reply.header("mcp-session-id")), (404, None));
    let live = world.client().initialized().await;
    assert_eq!(
        live.send(
            live.request(Method::GET, "/mcp")
                .header("accept", "application/json")
        )
        .await
        .status,
        406
    );
    assert!(one.calls("tools/call").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d18_an_id_sent_with_initialize_is_not_adopted_and_no_second_one_is_returned() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let first = world.client().initialized().await;
    let listed = first.rpc("tools/list", json!({})).await;
    assert!(
        listed
            .header("mcp-session-id")
            .is_none_or(|id| Some(id) == first.session.as_deref())
    );
    for offered in [first.session.clone().unwrap(), "mine".to_owned()] {
        let mut client = world.client();
        client.session = Some(offered.clone());
        let reply = client.rpc("initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_ne!(reply.header("mcp-session-id"), Some(offered.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d19_ten_first_calls_at_once_make_one_backend_session() {
    let one = Server::start("one", &["forecast"]).await;
    one.init_delay_ms.store(200, Ordering::Relaxed);
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let calls = (0..10).map(|_| client.call("one_forecast"));
    for reply in futures::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(one.calls("initialize").len(), 1);
    assert_eq!(one.calls("notifications/initialized").len(), 1);
    let mut sessions: Vec<String> = one
        .calls("tools/call")
        .iter()
        .map(|seen| seen.header("mcp-session-id").unwrap().to_owned())
        .collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d20_a_server_without_session_ids_is_initialized_once_per_client_session() {
    let one = Server::start("one", &["forecast"]).await;
    one.sessions.store(false, Ordering::Relaxed);
    let world = World::start(&[(&one, "one_")], &[]).await;
    for _ in 0..2 {
        let client = world.client().initialized().await;
        for _ in 0..3 {
            assert_eq!(client.call("one_forecast").await.status, 200);
        }
    }
    assert_eq!(one.calls("initialize").len(), 2);
    assert!(
        one.calls("tools/call")
            .iter()
            .all(|seen| seen.header("mcp-session-id").is_none()),
        "the client's token stays with us"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_a_call_on_a_lost_backend_session_is_sent_once_more() {
    let one = Server::start("one", &["forecast", "ask"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world
        .client()
        .with("x-team", "a")
        .able(json!({"roots": {}}))
        .await;
    for tool in ["one_forecast", "one_ask"] {
        assert_eq!(client.call(tool).await.status, 200);
        let before = one.calls("tools/call").len();
        one.forget_sessions();
        let reply = client.call(tool).await;
        assert_eq!(reply.status, 200);
        // In place of a reply that Envoy has there can be one text only; the front streams what the server sends.
        if !is_direct() {
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
        assert!(reply.text.contains("\"id\":7"), "{}", reply.text);
        assert!(reply.text.contains("\"result\""), "{}", reply.text);
        assert_eq!(reply.header("mcp-session-id"), client.session.as_deref());
        let calls = one.calls("tools/call");
        let [lost, again] = &calls[before..] else {
            panic!("{} calls", calls.len() - before)
        };
        assert_ne!(lost.header("mcp-session-id"), again.header("mcp-session-id"));
        assert_eq!(lost.body, again.body);
        assert_eq!(
            (again.header("x-team"), again.header("x-mcp-replay")),
            (Some("a"), None)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_a_server_that_loses_every_session_is_called_twice_and_no_more() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    one.call_status.store(404, Ordering::Relaxed);
    let reply = client.call("one_forecast").await;
    let ended = "session with the MCP server ended, call again".to_owned();
    assert_eq!(
        (reply.status, reply.error()),
        (200, (-32603, ended)),
        "{}",
        reply.text
    );
    assert_eq!(one.calls("tools/call").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_a_lost_session_of_a_pool_is_replaced_and_the_call_sent_once_more() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().with("authorization", "Bearer ann");
    // Every five minutes callers get a new pool, which has lost nothing.
    eventually("the beginning of a period", async || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        (now % 300 < 285).then_some(())
    })
    .await;
    for lost in [false, true, true] {
        if lost {
            one.forget_sessions();
        }
        let reply = client.stateless("one_forecast", json!({})).await;
        let result = &reply.json()["result"];
        assert_eq!(
            (reply.status, result["content"][0]["text"].as_str()),
            (200, Some("one")),
            "{}",
            reply.text
        );
        assert_eq!(
            (&result["resultType"], &reply.json()["id"]),
            (&json!("complete"), &json!(7))
        );
        assert_eq!(reply.header("mcp-session-id"), None);
    }
    assert_eq!(one.calls("tools/call").len(), 5, "each lost call was sent twice");
    assert_eq!(one.calls("initialize").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_a_call_too_large_to_be_kept_is_an_error_once_and_the_next_call_works() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    one.forget_sessions();
    let large = json!({"name": "one_forecast", "arguments": {"text": "x".repeat(256 * 1024)}});
    let lost = client.rpc("tools/call", large).await;
    assert_eq!(
        (lost.status, lost.error()),
        (
            200,
            (-32603, "session with the MCP server ended, call again".to_owned())
        ),
        "{}",
        lost.text
    );
    assert_eq!(lost.json()["id"], 7);
    assert_eq!(lost.header("content-type"), Some("application/json"));
    assert_eq!(lost.header("mcp-session-id"), client.session.as_deref());
    let again = client.call("one_forecast").await;
    assert_eq!(
        (
            again.status,
            again.json()["result"]["content"][0]["text"].as_str()
        ),
        (200, Some("one")),
        "{}",
        again.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d24_an_opening_that_outlives_its_call_serves_the_next_one() {
    let one = Server::start("one", &["forecast"]).await;
    // One second is left for the opening, and no more can be had.
    let flags = ["--ext-proc-message-timeout=3", "--ext-proc-max-message-timeout=0"];
    let world = World::start(&[(&one, "one_")], &flags).await;
    let client = world.client().initialized().await;
    one.init_delay_ms.store(1800, Ordering::Relaxed);
    let late = client.call("one_forecast").await;
    assert_eq!((late.status, late.error().0), (504, -32603), "{}", late.text);
    assert_eq!(late.json()["id"], 7);
    eventually("a call that works", || async {
        (client.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(one.calls("initialize").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_a_session_works_for_its_identity_only() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let bearer = |subject: &str| {
        use base64::Engine as _;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(format!(r#"{{"iss":"i","sub":"{subject}"}}"#));
        format!("Bearer e30.{claims}.x")
    };
    let alice = world
        .client()
        .with("authorization", bearer("alice"))
        .initialized()
        .await;
    assert_eq!(alice.call("one_forecast").await.status, 200);
    assert_eq!(alice.rpc("ping", json!({})).await.status, 200);
    for mut thief in [
        world.client().with("authorization", bearer("bob")),
        world.client(),
    ] {
        thief.session.clone_from(&alice.session);
        assert_eq!(thief.call("one_forecast").await.status, 404);
        assert_eq!(thief.rpc("ping", json!({})).await.status, 404);
    }
    let mut anonymous = world.client().initialized().await;
    anonymous.headers.push(("authorization", bearer("alice")));
    assert_eq!(anonymous.call("one_forecast").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_fails_half_way_leaves_no_session_at_the_server() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "")], &[]).await;
    one.refuse_initialized.store(true, Ordering::Relaxed);
    let client = world.client().initialized().await;
    assert!(client.call("forecast").await.status >= 500);
    let half = one.calls("notifications/initialized")[0]
        .header("mcp-session-id")
        .unwrap()
        .to_owned();
    eventually("DELETE at the server", || async {
        let deleted = |seen: &crate::fixture::Seen| {
            seen.verb == Method::DELETE && seen.header("mcp-session-id") == Some(&half)
        };
        (one.count(deleted) == 1).then_some(())
    })
    .await;
}
