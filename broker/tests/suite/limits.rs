//! Bounds of data-plane.md 15.1, each at the bound and past it (S23). Those of one type are tested beside it.

use crate::client::Client;
use crate::client_streams::listening;
use crate::fixture::Server;
use crate::world::{PUBLIC, World, config, entry, eventually, free_port};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use mcp_gateway_broker::run::Environment;
use mcp_gateway_broker::run::bounds::Bounds;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;

/// A gateway that forwards calls itself and has these bounds.
async fn bounded(bounds: Bounds, config: &str, flags: &[&str]) -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    let environment = Environment {
        bounds,
        ..World::environment(None)
    };
    let flags: Vec<&str> = flags.iter().copied().chain(["--data-path=direct"]).collect();
    World::broker_in(environment, free_port(), folder, &flags).await
}

/// The value of a metric without labels.
async fn metric(world: &World, name: &str) -> f64 {
    let admin = world.running.as_ref().unwrap().admin.unwrap();
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.parse().unwrap());
    metrics.lines().find_map(line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_streams_of_envoy_past_the_bound_are_refused_by_grpc() {
    let bounds = Bounds {
        router_streams: 2,
        ..Bounds::default()
    };
    let world = bounded(bounds, &config(&[]), &[]).await;
    let router = world.running.as_ref().unwrap().router.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{router}")).unwrap();
    let client = ExternalProcessorClient::new(endpoint.connect().await.unwrap());
    let open = || {
        let mut client = client.clone();
        async move {
            let (sender, requests) = mpsc::channel(1);
            let replies = client.process(ReceiverStream::new(requests)).await;
            replies.map(|replies| (sender, replies))
        }
    };
    let first = open().await.unwrap();
    let _second = open().await.unwrap();
    assert_eq!(open().await.unwrap_err().code(), Code::ResourceExhausted);
    drop(first);
    eventually("the place of the stream that ended", || async {
        open().await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_streams_of_servers_past_the_bound_are_not_opened_but_counted() {
    let one = Server::start("one", &["forecast"]).await;
    let bounds = Bounds {
        backend_streams: 1,
        ..Bounds::default()
    };
    let world = bounded(bounds, &config(&[entry(&one, "")]), &[]).await;
    let opened =
        || one.count(|seen| seen.verb == Method::GET && seen.header("user-agent") == Some("mcp-router"));
    let overflows = "mcp_broker_stream_overflows_total";
    let mut streams = Vec::new();
    for turned_away in [0.0, 1.0] {
        let client = world.direct().able(json!({"roots": {}})).await;
        streams.push(listening(&client, None).await);
        assert_eq!(client.call("forecast").await.status, 200);
        eventually("the stream, or that there is none", || async {
            let known = (opened(), metric(&world, overflows).await);
            (known == (1, turned_away)).then_some(())
        })
        .await;
    }
}

/// The status line of the answer to a request with these headers.
async fn status_line(world: &World, headers: &str) -> String {
    let mut stream = TcpStream::connect(world.broker).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {PUBLIC}\r\nconnection: close\r\n{headers}\r\n");
    // The answer may come before the end of what is too much.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_two_hundred_header_fields_and_64_kib_of_them() {
    let world = World::broker_only(&config(&[]), &[]).await;
    // Two are there already.
    assert_eq!(
        status_line(&world, &"x-n: v\r\n".repeat(198)).await,
        "HTTP/1.1 200"
    );
    assert_eq!(
        status_line(&world, &"x-n: v\r\n".repeat(199)).await,
        "HTTP/1.1 431"
    );
    let large = |size: usize| format!("x-n: {}\r\n", "v".repeat(size));
    assert_eq!(status_line(&world, &large(64 * 1024 - 200)).await, "HTTP/1.1 200");
    assert_eq!(status_line(&world, &large(64 * 1024 + 200)).await, "HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_batch_has_twenty_messages() {
    let world = World::start(&[], &[]).await;
    let client = world.client().opened("2025-03-26", json!({})).await;
    let pings = |count: usize| {
        let pings: Vec<Value> = (0..count)
            .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"}))
            .collect();
        json!(pings).to_string()
    };
    let fits = client.post(pings(20)).await;
    assert_eq!(
        (fits.status, fits.json().as_array().map(Vec::len)),
        (200, Some(20)),
        "{}",
        fits.text
    );
    let more = client.post(pings(21)).await;
    assert_eq!((more.status, more.error().0), (400, -32600), "{}", more.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_pages_end_by_number_and_by_size_and_lists_of_servers_by_number() {
    let (many, large) = (
        Server::start("many", &[]).await,
        Server::start("large", &[]).await,
    );
    let tool = |name: String, text: &str| json!({"name": name, "description": text, "inputSchema": {"type": "object"}});
    many.page_size.store(5000, Ordering::Relaxed);
    many.tools
        .lock()
        .unwrap()
        .extend((0..10_001).map(|number| tool(format!("m{number:05}"), "")));
    let text = "x".repeat(250_000);
    large
        .tools
        .lock()
        .unwrap()
        .extend((0..20).map(|number| tool(format!("l{number:02}"), &text)));
    let text = config(&[entry(&many, ""), entry(&large, "")]);
    let world = World::broker_only(&text, &[]).await;
    let status = eventually("the list", || async {
        let status = world.status_of("many").await;
        (status["totalTools"] == 10_000).then_some(status)
    })
    .await;
    assert_eq!(status["truncated"], true, "{status}");
    let client = world.direct().initialized().await;
    let page = |cursor: Option<String>| {
        let client = client.clone();
        async move {
            let params = cursor.map_or(json!({}), |cursor| json!({"cursor": cursor}));
            let reply = client.rpc("tools/list", params).await;
            let size = reply.text.len();
            let result = reply.json()["result"].take();
            let names = result["tools"].as_array().unwrap().len();
            (names, size, result["nextCursor"].as_str().map(str::to_owned))
        }
    };
    // The large ones come first by name: what fits into 4 MiB, and the rest with as many others as a page has.
    let (names, size, next) = page(None).await;
    assert_eq!(names, 16, "{size} bytes");
    assert!(size <= 4 * 1024 * 1024 + 64 * 1024, "{size}");
    let (names, _, next) = page(next).await;
    assert_eq!(names, 1000);
    let mut all = 16 + names;
    let mut cursor = next;
    while cursor.is_some() {
        let (names, _, next) = page(cursor).await;
        (all, cursor) = (all + names, next);
    }
    assert_eq!(all, 10_020);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_uri_has_8_kib() {
    let one = Server::start("one", &[]).await;
    let uri = |size: usize| format!("file:///{}", "x".repeat(size - 8));
    one.resources.lock().unwrap().extend([
        json!({"uri": uri(8192), "name": "fits"}),
        json!({"uri": uri(8193), "name": "long"}),
    ]);
    let world = World::broker_only(&config(&[entry(&one, "")]), &[]).await;
    let client = world.direct().initialized().await;
    assert_eq!(
        client.names("resources/list", "resources", "name").await,
        ["fits"]
    );
    let status = world.status_of("one").await;
    assert!(status["warnings"].to_string().contains("8192"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_person_has_a_hundred_streams_and_somebody_else_goes_on() {
    let world = World::broker_only(&config(&[]), &[]).await;
    let person = |name: &str| {
        let claims = json!({"iss": "https://issuer", "sub": name}).to_string();
        let token = format!("Bearer e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        world.direct().with("authorization", token)
    };
    let stream = |client: Client| async move {
        let client = client.initialized().await;
        let request = client.request(Method::GET, "/mcp");
        request
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..100 {
        let opened = stream(person("alice")).await;
        assert_eq!(opened.status(), 200);
        open.push(opened);
    }
    assert_eq!(stream(person("alice")).await.status(), 429);
    assert_eq!(stream(person("bob")).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_two_hundred_and_fifty_tools_are_selected_at_once() {
    let one = Server::start("one", &[]).await;
    let names: Vec<String> = (0..251).map(|number| format!("t{number}")).collect();
    one.tools
        .lock()
        .unwrap()
        .extend(names.iter().map(|name| crate::fixture::tool(name)));
    one.page_size.store(300, Ordering::Relaxed);
    let flags = ["--discovery-tools-enabled=true"];
    let world = World::start_with(&config(&[entry(&one, "")]), &[&one], &flags).await;
    let client = world.client().initialized().await;
    let select = |count: usize| {
        let arguments = json!({"tools": names.iter().take(count).collect::<Vec<_>>()});
        let params = json!({"name": "select_tools", "arguments": arguments});
        let client = client.clone();
        async move { client.rpc("tools/call", params).await.json()["result"].take() }
    };
    let refused = select(251).await;
    assert_eq!(refused["isError"], true, "{refused}");
    assert_eq!(
        refused["content"][0]["text"],
        "too many tools requested (max 250)"
    );
    let done = select(250).await;
    assert!(done.to_string().contains("scope set to 250 tools"), "{done}");
}
