//! What Envoy carries for the gateway, and what it carries beside it (data-plane.md 16, D70–D79).

use crate::client::Client;
use crate::envoy::{Envoy, Plan};
use crate::fixture::Server;
use crate::relays::asking;
use crate::world::{PUBLIC, World, config, entry, eventually, is_direct};
use axum::body::Body;
use axum::http::HeaderMap;
use futures::StreamExt as _;
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d70_a_route_that_does_not_lead_to_the_server_is_named_in_the_status() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let text = config(&[entry(&one, "one_")]);
    let world = World::start_with(&text, &[], &[]).await;
    let client = world.client().initialized().await;
    let reply = client.call("one_forecast").await;
    assert_eq!((reply.status, reply.error().0), (502, -32603), "{}", reply.text);
    let status = world.status_of("one").await;
    assert_eq!(
        status["warnings"],
        json!(["no route at the gateway for one.mcp.test/mcp"]),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d71_concurrent_calls_reach_the_right_server() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    // A session may have 64 calls under way.
    let clients: Vec<Client> = join_all((0..16).map(|_| world.client().initialized())).await;
    let calls = (0..1000).zip(clients.iter().cycle()).map(|(n, client)| async move {
        let server = if (n / 16) % 2 == 0 { "one" } else { "two" };
        let reply = client.post(format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"{server}_forecast"}}}}"#)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let body = reply.json();
        assert_eq!((body["result"]["content"][0]["text"].as_str(), body["id"].as_i64()), (Some(server), Some(n)));
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d72_d75_bodies_have_their_limit_and_large_answers_pass() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let body = |size: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"one_forecast","arguments":{{"x":"{}"}}}}}}"#,
            "a".repeat(size)
        )
    };
    let fits = client.post(body(4_900_000)).await;
    assert_eq!(fits.status, 200);
    assert!(
        fits.text.len() > 4_900_000,
        "the echo of the body came back whole"
    );
    let large = client.post(body(5_300_000)).await;
    assert_eq!((large.status, large.error().0), (413, -32600), "{}", large.text);
    assert_eq!(one.calls("tools/call").len(), 1);
}

/// A server of somebody else behind the same listener: it tells of the first bytes, and answers with the number of all and of
/// the headers that the gateway would take away.
async fn elsewhere() -> (SocketAddr, Arc<Notify>) {
    let begun = Arc::<Notify>::default();
    let told = Arc::clone(&begun);
    let upload = move |headers: HeaderMap, body: Body| {
        let told = Arc::clone(&told);
        async move {
            let (mut pieces, mut size) = (body.into_data_stream(), 0);
            while let Some(piece) = pieces.next().await {
                size += piece.unwrap().len();
                told.notify_one();
            }
            let own = ["x-mcp-toolname", "mcp-session-id", "router-key"];
            format!(
                "{size} {}",
                own.iter().filter(|name| headers.contains_key(**name)).count()
            )
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/mcp", axum::routing::post(upload));
    let app = app.layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async { axum::serve(listener, app).await });
    (address, begun)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d4_with_every_server_down_the_process_is_ready_and_other_hosts_of_the_listener_work() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let (address, _begun) = elsewhere().await;
    let text = config(&[entry(&one, "one_"), entry(&two, "two_")]);
    let mut world = World::broker_only(&text, &["--mcp-check-interval=1"]).await;
    let hosts = [
        ("one.mcp.test", one.address),
        ("two.mcp.test", two.address),
        ("shop.test", address),
    ];
    let plan = Plan {
        listen: world.port,
        router: world.running.as_ref().unwrap().router.unwrap(),
        broker: world.broker,
        public_host: PUBLIC,
        hosts: &hosts,
        body_limit: 5_242_880,
        tls: None,
    };
    world.envoy = Some(Envoy::start(&plan).await);
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["one_forecast", "two_forecast"]);
    for server in [&one, &two] {
        server.reset.store(true, Ordering::Relaxed);
    }
    eventually("every server is down", || async {
        let status = world.status().await;
        (status["healthyServers"] == 0 && client.tools().await.is_empty()).then_some(())
    })
    .await;
    let ready = reqwest::get(format!("http://{}/readyz", world.broker))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(client.rpc("ping", json!({})).await.status, 200);
    let mut shop = world.client();
    shop.host = "shop.test".to_owned();
    let reply = shop.post("{}").await;
    assert_eq!((reply.status, reply.text.as_str()), (200, "2 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d73_twenty_megabytes_to_another_host_are_streamed_untouched() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (address, begun) = elsewhere().await;
    let mut world = World::broker_only(&config(&[]), &[]).await;
    let plan = Plan {
        listen: world.port,
        router: world.running.as_ref().unwrap().router.unwrap(),
        broker: world.broker,
        public_host: PUBLIC,
        hosts: &[("shop.test", address)],
        body_limit: 5_242_880,
        tls: None,
    };
    world.envoy = Some(Envoy::start(&plan).await);
    let mut client = world.client().with("x-mcp-toolname", "mine");
    client.host = "shop.test".to_owned();
    // What follows the first megabyte is sent only once that has arrived: nobody gathers the body.
    let first = futures::stream::iter([bytes::Bytes::from(vec![b'a'; 1 << 20])]);
    let rest = futures::stream::once(async move {
        begun.notified().await;
        bytes::Bytes::from(vec![b'b'; 19 << 20])
    });
    let body = first.chain(rest).map(Ok::<_, std::convert::Infallible>);
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("mcp-session-id", "not ours")
        .header("router-key", "not ours")
        .body(reqwest::Body::wrap_stream(body));
    let reply = tokio::time::timeout(Duration::from_secs(20), client.send(request)).await;
    let reply = reply.expect("somebody waits for the end of the body");
    assert_eq!((reply.status, reply.text.as_str()), (200, "20971520 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d75_a_large_answer_arrives_before_its_end_byte_for_byte() {
    let one = Server::start("one", &["ask"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    let data = "a".repeat(4 << 20);
    let large = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}});
    // The server's answer comes after one that nobody gives.
    let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
    let mut events = asking(&client, "one_ask", json!({"say": [large], "ask": ask})).await;
    assert_eq!(events.message().await, large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d78_an_idle_stream_holds_no_ext_proc_stream() {
    let world = World::start(&[], &[]).await;
    let client = world.client().initialized().await;
    let stream = client
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    let admin = format!(
        "http://{}/metrics",
        world.running.as_ref().unwrap().admin.unwrap()
    );
    eventually("no open ext_proc stream", || async {
        let text = reqwest::get(&admin).await.unwrap().text().await.unwrap();
        (text.contains("\nmcp_router_streams_active 0")
            && text.contains("\nmcp_broker_client_streams_active{kind=\"get\"} 1"))
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d79_a_failing_server_gives_json_rpc_errors_and_a_policys_answer_passes() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast", "forbidden"]).await;
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    for (inner, outer) in [(500, 500), (503, 503), (401, 502), (403, 502)] {
        one.call_status.store(inner, Ordering::Relaxed);
        let reply = client.call("one_forecast").await;
        assert_eq!(
            (reply.status, reply.error().0, reply.json()["id"].as_i64()),
            (outer, -32603, Some(7)),
            "{inner}: {}",
            reply.text
        );
        assert!(!reply.text.contains("inner"), "{}", reply.text);
        assert_eq!(reply.header("www-authenticate"), None);
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    one.call_status.store(0, Ordering::Relaxed);
    let denied = client.call("one_forbidden").await;
    assert_eq!(
        (denied.status, denied.text.as_str()),
        (403, "policy says no to ns/one")
    );
    let strict = world.client().with("x-deny-init", "1").initialized().await;
    let refused = strict.call("one_forecast").await;
    assert_eq!(
        (
            refused.status,
            refused.text.as_str(),
            refused.header("www-authenticate")
        ),
        (401, "policy wants a token", Some("Bearer realm=policy"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d79_a_dead_server_gives_503_with_the_id() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    // Envoy's route leads nowhere, while the broker's own connection works: the call fails in Envoy.
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = config(&[entry(&one, "one_")]);
    let mut world = World::broker_only(&config, &[]).await;
    let router = world.running.as_ref().unwrap().router.unwrap();
    let plan = crate::envoy::Plan {
        listen: world.port,
        router,
        broker: world.broker,
        public_host: crate::world::PUBLIC,
        hosts: &[("one.mcp.test", dead)],
        body_limit: 5_242_880,
        tls: None,
    };
    world.envoy = Some(crate::envoy::Envoy::start(&plan).await);
    let client = world.client().initialized().await;
    let reply = client.call("one_forecast").await;
    assert_eq!(
        (reply.status, reply.error(), reply.json()["id"].as_i64()),
        (502, (-32603, "MCP server unavailable".to_owned()), Some(7)),
        "{}",
        reply.text
    );
}
