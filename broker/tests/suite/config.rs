//! Config reloads of a running broker (data-plane.md 16, D6–D13).

use crate::fixture::Server;
use crate::world::{World, config, entry, eventually};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn initializes(server: &Server) -> usize {
    server.count(|seen| seen.mcp_method() == "initialize" && seen.header("user-agent") == Some("mcp-broker"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_bad_file_leaves_the_previous_config_and_shows_its_error() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::broker_only(&config(&[entry(&one, "")]), &[]).await;
    let client = world.direct().initialized().await;
    let hash = world.status().await["config"]["hash"].clone();
    world.write_config("servers: [");
    let error = eventually("the error", || async {
        world.status().await["config"]["error"]
            .as_str()
            .map(str::to_owned)
    })
    .await;
    assert!(error.contains("not valid YAML"), "{error}");
    assert_eq!(
        (
            client.tools().await,
            world.status().await["config"]["hash"].clone()
        ),
        (vec!["forecast".to_owned()], hash)
    );
    assert_eq!(world.status().await["overallValid"], false);
    world.write_config(&config(&[]));
    eventually("recovery", || async {
        world.status().await["config"]["error"].is_null().then_some(())
    })
    .await;
    assert!(client.tools().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_d8_d9_hints_and_tags_restart_nothing_urls_do_and_removed_things_stop_counting() {
    let one = Server::start("one", &["in", "out"]).await;
    let base = config(&[entry(&one, "")]);
    let world = World::broker_only(
        &base.replace(
            "virtualServers: []\n",
            "virtualServers:\n- {name: ns/few, tools: [in]}\n",
        ),
        &[],
    )
    .await;
    let client = world
        .direct()
        .initialized()
        .await
        .with("x-mcp-virtualserver", "ns/few");
    eventually("list", || async {
        (client.tools().await == ["in"]).then_some(())
    })
    .await;
    assert_eq!(initializes(&one), 1);
    world.write_config(&base.replace("uid: one", "uid: one, hint: h, tags: [b, a], category: [c]"));
    eventually("virtual server gone", || async {
        client.tools().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(initializes(&one), 1, "no new connection");
    assert_eq!(world.status_of("one").await["ready"], true);
    world.write_config(&base.replace("/mcp'", "/mcp?v=2'"));
    eventually("a new connection", || async {
        (initializes(&one) == 2).then_some(())
    })
    .await;
    assert!(one.count(|seen| seen.path == "/mcp?v=2") > 0);
    eventually("the old session closed", || async {
        (one.count(|seen| seen.verb == reqwest::Method::DELETE) == 1).then_some(())
    })
    .await;
    eventually("ready again", || async {
        world.status_of("one").await["ready"]
            .as_bool()
            .filter(|ready| *ready)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_d12_d61_a_hung_server_delays_no_reload_and_no_other_server() {
    let (hung, fine) = (
        Server::start("hung", &["x"]).await,
        Server::start("fine", &["forecast"]).await,
    );
    let world = World::start_with(
        &config(&[entry(&hung, "h_"), entry(&fine, "f_")]),
        &[&hung, &fine],
        &["--mcp-check-interval=1"],
    )
    .await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await.len(), 2);
    hung.hang.store(true, Ordering::Relaxed);
    let checks = || hung.seen.lock().unwrap().len();
    let before = checks();
    eventually("a check that hangs", || async {
        (checks() > before).then_some(())
    })
    .await;
    let start = Instant::now();
    world.write_config(&config(&[entry(&hung, "h2_"), entry(&fine, "g_")]));
    eventually("the reload", || async {
        (client.tools().await == ["g_forecast"]).then_some(())
    })
    .await;
    // 250 ms of quiet and the connection to the fine server are part of it.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(client.call("g_forecast").await.status, 200);
    hung.hang.store(false, Ordering::Relaxed);
    world.write_config(&config(&[entry(&hung, "h3_"), entry(&fine, "g_")]));
    eventually("the successor serves", || async {
        (client.tools().await == ["g_forecast", "h3_x"]).then_some(())
    })
    .await;
    assert_eq!(client.rpc("ping", json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d13_one_bad_server_leaves_the_others_and_is_named() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::broker_only(
        &config(&["- {name: ns/bad, url: 'ftp://x'}\n".to_owned(), entry(&one, "")]),
        &[],
    )
    .await;
    assert_eq!(world.direct().initialized().await.tools().await, ["forecast"]);
    let status = world.status().await;
    assert!(
        status["config"]["error"].as_str().unwrap().contains("ns/bad"),
        "{status}"
    );
}
