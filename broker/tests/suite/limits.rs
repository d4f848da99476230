//! Bounds of data-plane.md 15.1, each at the bound and past it (S23). Those of one type are tested beside it.

use crate::client::Client;
use crate::fixture::Server;
use crate::world::{PUBLIC, World, config, entry, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
