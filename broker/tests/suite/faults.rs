//! MCP servers that misbehave beside one that does not: its calls go on, and every failure reaches its caller as an error
//! with the caller's id.

use crate::audit::{keep_records, records};
use crate::client::Client;
use crate::fixture::{Server, tool};
use crate::world::{World, config, entry, eventually, is_direct};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LIMITED: &str = ", callTimeout: 1s}\n";

/// A server in good health, some others, and their gateway.
async fn beside(names: &[&'static str]) -> (World, Arc<Server>, Vec<Arc<Server>>) {
    let good = Server::start("good", &["work"]).await;
    let mut others = Vec::new();
    let mut entries = vec![entry(&good, "good_")];
    for name in names {
        let server = Server::start(name, &["work"]).await;
        entries.push(entry(&server, &format!("{name}_")).replace("}\n", LIMITED));
        others.push(server);
    }
    let all: Vec<&Arc<Server>> = std::iter::once(&good).chain(&others).collect();
    let world = World::start_with(&config(&entries), &all, &[]).await;
    eventually("all lists", || async {
        (world.status().await["healthyServers"] == all.len()).then_some(())
    })
    .await;
    (world, good, others)
}

async fn works(client: &Client, times: usize) {
    for _ in 0..times {
        let reply = client.call("good_work").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
}

/// Whether the answer to this call breaks off, for whoever reads it as it comes.
async fn is_broken_off(client: &Client, tool: &str) -> bool {
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool}});
    let request = client
        .request(Method::POST, "/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(call.to_string());
    let mut answer = request.send().await.unwrap().bytes_stream();
    let read = async { while let Some(Ok(_)) = answer.next().await {} };
    let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
    ended.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_a_server_reaches_its_caller_and_the_others_go_on() {
    let (world, _good, bad) = beside(&["hung", "failing", "resetting", "garbage", "flood"]).await;
    let client = world.client().initialized().await;
    for server in &bad {
        assert_eq!(client.call(&format!("{}_work", server.name)).await.status, 200);
    }
    for server in &bad {
        match server.name {
            "hung" => server.hang.store(true, Ordering::Relaxed),
            "resetting" => server.reset.store(true, Ordering::Relaxed),
            "failing" => server.call_status.store(500, Ordering::Relaxed),
            "garbage" => server.garbage.store(true, Ordering::Relaxed),
            _ => server.flood.store(true, Ordering::Relaxed),
        }
        // The broker's own connection meets the same.
        server.notify("notifications/tools/list_changed");
    }
    let calls = async {
        for (name, status) in [("hung", 504), ("failing", 500), ("resetting", 503)] {
            let reply = client.call(&format!("{name}_work")).await;
            assert_eq!(
                (reply.status, reply.error().0),
                (status, -32603),
                "{name}: {}",
                reply.text
            );
            assert_eq!(reply.json()["id"], 7);
        }
        // An answer passes as the server wrote it: this is no JSON for the client either.
        let garbage = client.call("garbage_work").await;
        assert_eq!((garbage.status, garbage.text.as_str()), (200, "{]"));
        assert!(is_broken_off(&client, "flood_work").await);
    };
    tokio::join!(calls, works(&client, 50));
    for name in ["garbage", "flood"] {
        eventually("the failure in the status", || async {
            let status = world.status_of(name).await;
            (status["consecutiveFailures"].as_u64() >= Some(1) || status["stale"] == true).then_some(())
        })
        .await;
    }
    let listed = client.tools().await;
    assert!(listed.contains(&"good_work".to_owned()), "{listed:?}");
    works(&client, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_flaps_and_one_that_changes_all_the_time_disturb_nobody() {
    let (world, _good, others) = beside(&["flapping", "restless"]).await;
    let client = world.client().initialized().await;
    let (flapping, restless) = (Arc::clone(&others[0]), Arc::clone(&others[1]));
    let churn = tokio::spawn(async move {
        for round in 0..200 {
            flapping
                .status
                .store(if round % 20 < 10 { 503 } else { 0 }, Ordering::Relaxed);
            *restless.tools.lock().unwrap() = vec![tool(&format!("work{round}"))];
            restless.notify("notifications/tools/list_changed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    while !churn.is_finished() {
        works(&client, 5).await;
        let reply = client.call("flapping_work").await;
        let (body, code) = (reply.json(), reply.error().0);
        // It answered, it failed (with the status of how), or it was down for so long that its tools are gone.
        let known = (reply.status, code) == (200, 0) || [-32603, -32602].contains(&code);
        assert!(known, "{} {}", reply.status, reply.text);
        assert_eq!(body["id"], 7);
    }
    churn.await.unwrap();
    eventually("the last list", || async {
        let tools = client.tools().await;
        tools.contains(&"restless_work199".to_owned()).then_some(())
    })
    .await;
    let reply = client.call("restless_work199").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(client.call("restless_work0").await.error().0, -32602);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d80_two_clients_with_one_id_at_the_same_time_get_each_its_own_answer() {
    keep_records();
    let (world, good, _) = beside(&[]).await;
    let clients = [
        world.client().initialized().await,
        world.client().initialized().await,
    ];
    let calls = (0..40).map(|at| {
        let client = &clients[at % 2];
        let params = serde_json::json!({"name": "good_work", "arguments": {"at": at}});
        async move { (at, client.rpc("tools/call", params).await) }
    });
    for (at, reply) in futures::future::join_all(calls).await {
        let body = reply.json();
        assert_eq!(body["id"], 7);
        let sent: serde_json::Value = serde_json::from_str(body["result"]["body"].as_str().unwrap()).unwrap();
        assert_eq!(sent["params"]["arguments"]["at"], at);
    }
    let mut sessions: Vec<String> = good
        .calls("tools/call")
        .iter()
        .map(|seen| seen.header("mcp-session-id").unwrap().to_owned())
        .collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 2, "a backend session for each");
    for client in &clients {
        let records = records(client);
        assert_eq!(records.len(), 20);
        assert!(records.iter().all(|record| record["jsonrpc_id"] == "7"));
        let mut arguments: Vec<_> = records
            .iter()
            .map(|record| record["arguments_hmac"].as_str())
            .collect();
        arguments.sort_unstable();
        arguments.dedup();
        assert_eq!(arguments.len(), 20, "each record is that of one call");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d77_a_compressing_server_is_rewritten_where_planned_and_passes_as_it_is_elsewhere() {
    let (world, good, _) = beside(&[]).await;
    good.gzip.store(true, Ordering::Relaxed);
    let plain = world.client().with("accept-encoding", "gzip").initialized().await;
    let reply = plain.call("good_work").await;
    assert_eq!(
        (reply.status, reply.header("content-encoding")),
        (200, Some("gzip"))
    );
    let able = world
        .client()
        .with("accept-encoding", "gzip")
        .able(serde_json::json!({"elicitation": {}}))
        .await;
    let reply = able.call("good_work").await;
    assert_eq!(
        (reply.status, reply.header("content-encoding")),
        (200, None),
        "{}",
        reply.text
    );
    assert_eq!(reply.json()["result"]["content"][0]["text"], "good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d74_policies_see_the_final_host_path_and_names_also_of_hairpins() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let (world, good, _) = beside(&[]).await;
    let client = world.client().initialized().await;
    works(&client, 1).await;
    for (method, saw) in [
        ("tools/call", "good.mcp.test /mcp tools/call work ns/good"),
        ("initialize", "good.mcp.test /mcp initialize - ns/good"),
    ] {
        let calls = good.calls(method);
        assert_eq!(calls.len(), 1, "{method}");
        assert_eq!(calls[0].header("x-policy-saw"), Some(saw));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d68_legacy_lists_have_no_hints_of_the_modern_era() {
    let (world, _good, _) = beside(&[]).await;
    let client = world.client().initialized().await;
    for method in [
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    ] {
        let reply = client.rpc(method, serde_json::json!({})).await;
        let result = reply.json()["result"].clone();
        let members: Vec<&String> = result.as_object().unwrap().keys().collect();
        assert_eq!(members.len(), 1, "{method}: {members:?}");
    }
}
