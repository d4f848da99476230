//! The catalog as clients see it (data-plane.md 16, D40–D54).

use crate::client::Client;
use crate::client_streams::listening;
use crate::fixture::{Server, tool};
use crate::relays::Events;
use crate::world::{World, config, entry, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An entry with another creation time.
fn born(server: &Server, prefix: &str, created: &str) -> String {
    entry(server, prefix).replace("2026-01-01T00:00:00Z", created)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d41_items_are_served_with_the_servers_own_bytes() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::broker_only(&config(&[entry(&one, "weather_")]), &[]).await;
    let reply = world
        .direct()
        .initialized()
        .await
        .rpc("tools/list", json!({}))
        .await;
    let own = tool("forecast").to_string();
    let expected = own.replace(r#""name":"forecast""#, r#""name":"weather_forecast""#);
    assert_eq!(
        reply.text,
        format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{{\"tools\":[{expected}]}}}}\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d43_all_pages_are_served_and_an_endless_cursor_is_reported() {
    let names: Vec<String> = (0..250).map(|n| format!("t{n:03}")).collect();
    let many = Server::start("many", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let endless = Server::start("endless", &["x"]).await;
    endless.endless.store(true, Ordering::Relaxed);
    let world = World::broker_only(
        &config(&[entry(&many, ""), entry(&endless, "e_")]),
        &["--page-size=100"],
    )
    .await;
    let client = world.direct().initialized().await;
    let (mut listed, mut params, mut pages) = (Vec::new(), json!({}), 0);
    loop {
        let result = client.rpc("tools/list", params).await.json()["result"].clone();
        listed.extend(
            result["tools"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tool| tool["name"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(cursor) = result["nextCursor"].as_str() else {
            break;
        };
        params = json!({"cursor": cursor});
    }
    listed.retain(|name| name.starts_with('t'));
    assert_eq!((listed, pages), (names, 3));
    let status = world.status_of("endless").await;
    assert_eq!(
        (status["truncated"].as_bool(), status["ready"].as_bool()),
        (Some(true), Some(true)),
        "{status}"
    );
    let garbage = client.rpc("tools/list", json!({"cursor": "x"})).await;
    assert_eq!((garbage.status, garbage.error().0), (200, -32602));
    let first = client.rpc("tools/list", json!({})).await.json()["result"]["nextCursor"].clone();
    let foreign = client.rpc("prompts/list", json!({"cursor": first})).await;
    assert_eq!(foreign.error().0, -32602, "a cursor belongs to its list");
}

/// An older and a younger server that want the same name.
async fn rivals() -> (Arc<Server>, Arc<Server>, World) {
    let (old, young) = (
        Server::start("old", &["now", "a"]).await,
        Server::start("young", &["now", "b"]).await,
    );
    let entries = [
        born(&young, "w_", "2026-02-01T00:00:00Z"),
        born(&old, "w_", "2026-01-01T00:00:00Z"),
    ];
    let world = World::start_with(&config(&entries), &[&old, &young], &["--mcp-check-interval=1"]).await;
    (old, young, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d46_a_name_whose_owner_is_down_is_served_by_nobody_else() {
    let (old, _young, world) = rivals().await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["w_a", "w_b", "w_now"]);
    old.status.store(500, Ordering::Relaxed);
    eventually("the items of the failed server go", || async {
        (client.tools().await == ["w_b"]).then_some(())
    })
    .await;
    let unknown = client.call("w_now").await;
    assert_eq!(unknown.error().0, -32602, "nobody else serves the name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d44_a_name_belongs_to_the_oldest_registration_until_that_is_gone() {
    let (_old, young, world) = rivals().await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["w_a", "w_b", "w_now"]);
    assert_eq!(
        client.call("w_now").await.json()["result"]["content"][0]["text"],
        "old"
    );
    let status = world.status_of("young").await;
    assert_eq!(
        status["conflicts"],
        json!([{"kind": "tool", "name": "w_now", "owner": "ns/old"}]),
        "{status}"
    );
    assert_eq!(
        (
            status["ready"].as_bool(),
            world.status().await["toolConflicts"].as_u64()
        ),
        (Some(true), Some(1))
    );
    world.write_config(&config(&[born(&young, "w_", "2026-02-01T00:00:00Z")]));
    eventually("the next oldest serves it", || async {
        (client.tools().await == ["w_b", "w_now"]).then_some(())
    })
    .await;
    assert_eq!(
        client.call("w_now").await.json()["result"]["content"][0]["text"],
        "young"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d45_the_next_oldest_serves_the_name_of_a_deleted_owner_and_clients_are_told() {
    let servers = [
        Server::start("old", &["now"]).await,
        Server::start("middle", &["now"]).await,
        Server::start("young", &["now"]).await,
    ];
    let entries: Vec<String> = servers
        .iter()
        .zip([
            "2026-01-01T00:00:00Z",
            "2026-02-01T00:00:00Z",
            "2026-03-01T00:00:00Z",
        ])
        .map(|(server, created)| {
            server.tools.lock().unwrap()[0]["description"] = json!(server.name);
            born(server, "w_", created)
        })
        .rev()
        .collect();
    let world = World::start_with(&config(&entries), &[&servers[0], &servers[1], &servers[2]], &[]).await;
    let client = world.client().initialized().await;
    let mut events = Events::of(listening(&client, None).await);
    for (left, owner) in [(3, "old"), (2, "middle"), (1, "young")] {
        if left < 3 {
            world.write_config(&config(&entries[..left]));
            assert_eq!(
                events.message().await["method"],
                "notifications/tools/list_changed"
            );
        }
        let listed = client.rpc("tools/list", json!({})).await.json()["result"]["tools"].take();
        assert_eq!(
            (&listed[0]["name"], &listed[0]["description"]),
            (&json!("w_now"), &json!(owner))
        );
        assert_eq!(listed.as_array().unwrap().len(), 1);
        let called = client.call("w_now").await;
        assert_eq!(called.json()["result"]["content"][0]["text"], owner);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d47_overlapping_and_empty_prefixes_call_their_own_server() {
    let (a, ab, none) = (
        Server::start("a", &["b_x", "y"]).await,
        Server::start("ab", &["x2", "y"]).await,
        Server::start("none", &["a_z", "y"]).await,
    );
    let world = World::start(&[(&a, "a_"), (&ab, "a_b_"), (&none, "")], &[]).await;
    let client = world.client().initialized().await;
    for (tool, server) in [
        ("a_b_x", "a"),
        ("a_y", "a"),
        ("a_b_x2", "ab"),
        ("a_b_y", "ab"),
        ("a_z", "none"),
        ("y", "none"),
    ] {
        assert_eq!(
            client.call(tool).await.json()["result"]["content"][0]["text"],
            server,
            "{tool}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d48_a_name_over_128_characters_is_left_out_and_reported() {
    let (fits, long) = ("x".repeat(126), "x".repeat(127));
    let one = Server::start("one", &[&fits, &long]).await;
    let world = World::broker_only(&config(&[entry(&one, "p_")]), &[]).await;
    assert_eq!(
        world.direct().initialized().await.tools().await,
        [format!("p_{fits}")]
    );
    let status = world.status_of("one").await;
    assert!(
        status["warnings"][0]
            .as_str()
            .unwrap()
            .contains("longer than 128"),
        "{status}"
    );
    assert_eq!(status["ready"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d51_lists_are_stable_and_empty_ones_are_empty_arrays() {
    let one = Server::start("one", &["b", "a", "c"]).await;
    let world = World::broker_only(&config(&[entry(&one, "")]), &[]).await;
    let client = world.direct().initialized().await;
    assert_eq!(client.tools().await, ["a", "b", "c"]);
    let first = client.rpc("tools/list", json!({})).await.text;
    assert_eq!(client.rpc("tools/list", json!({})).await.text, first);
    for (method, member) in [
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ] {
        assert_eq!(
            client.rpc(method, json!({})).await.json()["result"],
            json!({member: []})
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d53_a_virtual_server_restricts_lists_and_calls_alike() {
    let one = Server::start("one", &["in", "out"]).await;
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    let servers = config(&[entry(&one, "")]).replace(
        "virtualServers: []\n",
        "virtualServers:\n- {name: ns/few, tools: [in], prompts: []}\n",
    );
    let world = World::start_with(&servers, &[&one], &[]).await;
    let client = world.client().initialized().await;
    let few = client.clone().with("x-mcp-virtualserver", "ns/few");
    assert_eq!(few.tools().await, ["in"]);
    assert_eq!(
        few.names("prompts/list", "prompts", "name").await,
        Vec::<String>::new()
    );
    assert_eq!(few.call("in").await.status, 200);
    for hidden in ["out", "nope"] {
        let reply = few.call(hidden).await;
        assert_eq!(
            (reply.status, reply.error()),
            (200, (-32602, format!("Unknown tool: {hidden}"))),
            "hidden and unknown look alike"
        );
    }
    assert_eq!(
        few.rpc("prompts/get", json!({"name": "greet"})).await.error().0,
        -32602
    );
    for bad in [
        client.clone().with("x-mcp-virtualserver", "ns/none"),
        client.clone().with("x-mcp-virtualserver", ""),
        few.clone().with("x-mcp-virtualserver", "ns/few"),
    ] {
        assert_eq!(bad.tools().await, Vec::<String>::new());
        assert_eq!(bad.call("in").await.error().0, -32602);
    }
    assert_eq!(one.calls("tools/call").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d54_what_is_outside_the_virtual_server_is_not_called_read_completed_or_subscribed_to() {
    let one = Server::start("one", &["in", "out"]).await;
    for name in ["in", "out"] {
        one.prompts.lock().unwrap().push(json!({"name": name}));
        let resource = json!({"uri": format!("file:///{name}"), "name": name});
        one.resources.lock().unwrap().push(resource);
        let template = json!({"uriTemplate": format!("{name}://{{x}}"), "name": name});
        one.templates.lock().unwrap().push(template);
    }
    let few = "virtualServers:\n- {name: ns/few, tools: [in], prompts: [in], resources: ['file:///in', 'in://{x}']}\n";
    let text = config(&[entry(&one, "")]).replace("virtualServers: []\n", few);
    let world = World::start_with(&text, &[&one], &[]).await;
    let client = world
        .client()
        .initialized()
        .await
        .with("x-mcp-virtualserver", "ns/few");
    let requests = |name: &str| {
        let argument = json!({"name": "x", "value": "y"});
        let of = |reference: Value| json!({"ref": reference, "argument": argument});
        [
            ("tools/call", json!({"name": name})),
            ("prompts/get", json!({"name": name})),
            ("resources/read", json!({"uri": format!("file:///{name}")})),
            ("resources/read", json!({"uri": format!("{name}://1")})),
            ("resources/subscribe", json!({"uri": format!("file:///{name}")})),
            ("resources/unsubscribe", json!({"uri": format!("file:///{name}")})),
            (
                "completion/complete",
                of(json!({"type": "ref/prompt", "name": name})),
            ),
            (
                "completion/complete",
                of(json!({"type": "ref/resource", "uri": format!("{name}://{{x}}")})),
            ),
        ]
    };
    for (method, params) in requests("out") {
        let reply = client.rpc(method, params.clone()).await;
        assert_eq!(
            (reply.status, reply.error().0),
            (200, -32602),
            "{method} {params}: {}",
            reply.text
        );
        assert!(one.calls(method).is_empty(), "{method}");
    }
    for (method, params) in requests("in") {
        let reply = client.rpc(method, params.clone()).await;
        assert!(
            reply.json().get("result").is_some(),
            "{method} {params}: {}",
            reply.text
        );
        assert!(!one.calls(method).is_empty(), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_kept_is_shown_to_nobody_else_and_not_after_a_change() {
    let one = Server::start("one", &["in", "out"]).await;
    // Longer than what is sent in one piece.
    let mut long = tool("long");
    long["description"] = "x".repeat(40_000).into();
    one.tools.lock().unwrap().push(long);
    let servers = config(&[entry(&one, "")]).replace(
        "virtualServers: []\n",
        "virtualServers:\n- {name: ns/few, tools: [in]}\n- {name: ns/long, tools: [long]}\n",
    );
    let world = World::broker_only(&servers, &["--discovery-tools-enabled=true"]).await;
    let client = world.direct().initialized().await;
    let of = |name: &str| client.clone().with("x-mcp-virtualserver", name);
    let scoped = world.direct().initialized().await;
    let own = ["discover_tools", "select_tools"].map(str::to_owned);
    let with = |names: &[&str]| {
        let mut all: Vec<String> = names
            .iter()
            .map(|&name| name.to_owned())
            .chain(own.clone())
            .collect();
        all.sort();
        all
    };
    for _ in 0..2 {
        assert_eq!(client.tools().await, with(&["in", "long", "out"]));
        assert_eq!(of("ns/few").tools().await, ["in"]);
        assert_eq!(of("ns/long").tools().await, ["long"]);
        assert_eq!(of("ns/none").tools().await, Vec::<String>::new());
        let chosen = json!({"name": "select_tools", "arguments": {"tools": ["out"]}});
        assert_eq!(scoped.rpc("tools/call", chosen).await.status, 200);
        assert_eq!(scoped.tools().await, with(&["out"]));
    }
    one.tools.lock().unwrap().push(tool("new"));
    one.notify("notifications/tools/list_changed");
    eventually("the new tool in the list", || async {
        (client.tools().await == with(&["in", "long", "new", "out"])).then_some(())
    })
    .await;
    assert_eq!(of("ns/few").tools().await, ["in"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d52_only_sessions_that_see_a_change_are_told() {
    use futures::StreamExt as _;
    let one = Server::start("one", &["in", "out"]).await;
    let servers = config(&[entry(&one, "")]).replace(
        "virtualServers: []\n",
        "virtualServers:\n- {name: ns/few, tools: [in]}\n",
    );
    let world = World::broker_only(&servers, &[]).await;
    let open = async |client: crate::client::Client| {
        let stream = client
            .request(reqwest::Method::GET, "/mcp")
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap();
        let mut chunks = stream.bytes_stream();
        assert_eq!(chunks.next().await.unwrap().unwrap(), ": connected\n\n");
        (client, chunks)
    };
    let (_, first) = open(world.direct().initialized().await).await;
    let (_, second) = open(world.direct().initialized().await).await;
    let few = world
        .direct()
        .initialized()
        .await
        .with("x-mcp-virtualserver", "ns/few");
    let (_, third) = open(few).await;
    let mut streams = [first, second, third];
    // What two of them see is told to those two, what all three see to all three; the next thing on each is the keep-alive,
    // which comes much later.
    for (tool, told) in [(1, 2), (0, 3)] {
        one.tools.lock().unwrap()[tool]["description"] = json!("changed");
        one.notify("notifications/tools/list_changed");
        for stream in &mut streams[..told] {
            let event = tokio::time::timeout(std::time::Duration::from_secs(10), stream.next()).await;
            let event = String::from_utf8(event.unwrap().unwrap().unwrap().to_vec()).unwrap();
            let data: Vec<&str> = event.lines().filter(|line| line.starts_with("data:")).collect();
            let notice = r#"data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
            assert_eq!(data, [notice]);
        }
    }
    for stream in &mut streams {
        let rest = futures::FutureExt::now_or_never(stream.next());
        assert!(rest.is_none(), "{rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d49_resources_of_any_scheme_are_read_from_their_server() {
    let one = Server::start("one", &[]).await;
    *one.resources.lock().unwrap() = vec![
        json!({"uri": "ui://x", "name": "x"}),
        json!({"uri": "odd+scheme:y", "name": "y"}),
    ];
    let world = World::start(&[(&one, "")], &[]).await;
    let client = world.client().initialized().await;
    for uri in ["ui://x", "odd+scheme:y"] {
        is_read_from(&client, uri, "one").await;
    }
    is_unknown(&client, "none://z").await;
}

async fn is_read_from(client: &Client, uri: &str, server: &str) {
    let reply = client.rpc("resources/read", json!({"uri": uri})).await;
    let text = &reply.json()["result"]["content"][0]["text"];
    assert_eq!(text, server, "{uri}: {}", reply.text);
}

async fn is_unknown(client: &Client, uri: &str) {
    let reply = client.rpc("resources/read", json!({"uri": uri})).await;
    let named = reply.json()["error"]["data"]["uri"].take();
    assert_eq!((reply.error().0, named.as_str()), (-32602, Some(uri)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d50_templates_are_listed_and_what_they_cover_is_read_from_their_server() {
    let (one, two) = (Server::start("one", &[]).await, Server::start("two", &[]).await);
    *one.templates.lock().unwrap() = vec![
        json!({"uriTemplate": "file:///{+path}", "name": "files"}),
        json!({"uriTemplate": "tie://{a}", "name": "t"}),
    ];
    *two.templates.lock().unwrap() = vec![
        json!({"uriTemplate": "file:///logs/{name}", "name": "logs"}),
        json!({"uriTemplate": "tie://{b}", "name": "t"}),
    ];
    let world = World::start(&[(&one, ""), (&two, "")], &[]).await;
    let client = world.client().initialized().await;
    let templates = client
        .names("resources/templates/list", "resourceTemplates", "uriTemplate")
        .await;
    assert_eq!(
        templates,
        ["file:///logs/{name}", "file:///{+path}", "tie://{a}", "tie://{b}"]
    );
    is_read_from(&client, "file:///a/b", "one").await;
    is_read_from(&client, "file:///logs/today", "two").await;
    for uri in ["tie://z", "none://z"] {
        is_unknown(&client, uri).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_config_with_policies_closes_what_they_name() {
    let (one, two) = (
        Server::start("one", &["a"]).await,
        Server::start("two", &["b"]).await,
    );
    let open = config(&[entry(&one, ""), entry(&two, "")]);
    let policy = "authPolicies:\n- {name: ns/p, valid: true, targets: [{kind: MCPServerRegistration, name: ns/one}]}\n";
    let world = World::start_with(&format!("{open}{policy}"), &[&one, &two], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["b"]);
    assert_eq!(
        (client.call("a").await.error().0, client.call("b").await.status),
        (-32602, 200)
    );
    world.write_config(&format!("{open}authRequired: true\n"));
    eventually("everything closed", || async {
        client.tools().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(client.call("b").await.error().0, -32602);
    let capabilities = client.clone().with("x-mcp-authorized", "forged");
    world.write_config(&open);
    eventually("open again", || async {
        (client.tools().await.len() == 2).then_some(())
    })
    .await;
    assert!(
        capabilities.tools().await.is_empty(),
        "what cannot be verified shows nothing"
    );
    assert_eq!(capabilities.call("b").await.error().0, -32602);
}
