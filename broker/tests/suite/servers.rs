//! Connections to MCP servers (data-plane.md 16, D59–D64).

use crate::fixture::Server;
use crate::world::{World, config, entry, eventually};
use serde_json::json;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d59_two_failures_keep_the_tools_the_third_withdraws_and_a_success_restores() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::broker_only(&config(&[entry(&one, "")]), &["--mcp-check-interval=1"]).await;
    let client = world.direct().initialized().await;
    assert_eq!(client.tools().await, ["forecast"]);
    one.status.store(500, Ordering::Relaxed);
    for failures in 1..=2 {
        let status = eventually("a failure", || async {
            let status = world.status_of("one").await;
            (status["consecutiveFailures"] == failures).then_some(status)
        })
        .await;
        assert_eq!(
            (
                status["stale"].as_bool(),
                status["ready"].as_bool(),
                status["totalTools"].as_u64()
            ),
            (Some(true), Some(true), Some(1)),
            "{status}"
        );
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .contains(&format!("[serving last known tools, failure {failures} of 3]")),
            "{status}"
        );
        assert_eq!(client.tools().await, ["forecast"]);
    }
    let status = eventually("the third", || async {
        let status = world.status_of("one").await;
        (status["consecutiveFailures"] == 3).then_some(status)
    })
    .await;
    assert_eq!(
        (status["ready"].as_bool(), status["totalTools"].as_u64()),
        (Some(false), Some(0))
    );
    assert!(
        status["message"].as_str().unwrap().ends_with("[removed tools]"),
        "{status}"
    );
    assert!(client.tools().await.is_empty());
    one.status.store(0, Ordering::Relaxed);
    eventually("restored", || async {
        (client.tools().await == ["forecast"]).then_some(())
    })
    .await;
    assert_eq!(world.status_of("one").await["consecutiveFailures"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d60_an_unreachable_server_is_tried_again_soon_and_readiness_does_not_wait() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = format!("servers:\n- {{name: ns/late, url: 'http://{port}/mcp'}}\n");
    let world = World::broker_only(&text, &["--mcp-check-interval=3600"]).await;
    let status = world.status_of("late").await;
    assert_eq!(status["ready"], false);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("failed to connect to upstream mcp ns/late::127.0.0.1: connection refused"),
        "{status}"
    );
    let listener = tokio::net::TcpListener::bind(port).await.unwrap();
    // Waits far less than the hour between two checks.
    let _late = Server::start_on(listener, "late", &["x"]).await;
    eventually("connected", || async {
        world.status_of("late").await["ready"]
            .as_bool()
            .filter(|ready| *ready)
    })
    .await;
    assert_eq!(world.status().await["config"]["error"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d62_a_server_without_a_stream_stays_ready_and_is_not_asked_again() {
    for status in [405, 404] {
        let one = Server::start("one", &["forecast"]).await;
        one.get_status.store(status, Ordering::Relaxed);
        let world = World::broker_only(&config(&[entry(&one, "")]), &["--mcp-check-interval=1"]).await;
        let pings = || one.count(|seen| seen.mcp_method() == "ping");
        eventually("two checks", || async { (pings() >= 2).then_some(()) }).await;
        assert_eq!(world.status_of("one").await["ready"], true);
        let gets = one.count(|seen| seen.verb == reqwest::Method::GET);
        let initializes = one.count(|seen| seen.mcp_method() == "initialize");
        assert_eq!((gets, initializes), (1, 1), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d63_failing_prompts_leave_the_tools() {
    let one = Server::start("one", &["forecast"]).await;
    one.prompts_fail.store(true, Ordering::Relaxed);
    let world = World::broker_only(&config(&[entry(&one, "")]), &["--mcp-check-interval=1"]).await;
    let lists = || one.count(|seen| seen.mcp_method() == "prompts/list");
    eventually("four lists", || async { (lists() >= 4).then_some(()) }).await;
    assert_eq!(world.direct().initialized().await.tools().await, ["forecast"]);
    let status = world.status_of("one").await;
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("failed to list prompts"),
        "{status}"
    );
    assert_eq!(status["ready"], true);
    // Failures of a kind are none of the checks: the first of those leaves the tools, too.
    one.pings_fail.store(1, Ordering::Relaxed);
    let status = eventually("a failed ping", || async {
        let status = world.status_of("one").await;
        status["message"]
            .as_str()?
            .contains("failed to ping")
            .then_some(status)
    })
    .await;
    assert_eq!(
        (
            status["consecutiveFailures"].as_u64(),
            status["stale"].as_bool(),
            status["totalTools"].as_u64()
        ),
        (Some(1), Some(true), Some(1)),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d64_older_servers_serve_clients_of_every_version() {
    for server_version in ["2025-03-26", "2025-06-18", "2024-11-05"] {
        let one = Server::start("one", &["forecast"]).await;
        *one.version.lock().unwrap() = server_version.to_owned();
        let world = World::start(&[(&one, "")], &[]).await;
        for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let mut client = world.client();
            let reply = client.rpc("initialize", json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}})).await;
            assert_eq!(reply.json()["result"]["protocolVersion"], version);
            client.session = reply.header("mcp-session-id").map(str::to_owned);
            assert_eq!(
                client.call("forecast").await.status,
                200,
                "{server_version} {version}"
            );
            let sent = one
                .calls("tools/call")
                .pop()
                .unwrap()
                .header("mcp-protocol-version")
                .map(str::to_owned);
            assert_eq!(
                sent.as_deref(),
                (server_version == "2025-06-18").then_some("2025-06-18")
            );
        }
    }
    let odd = Server::start("odd", &["x"]).await;
    *odd.version.lock().unwrap() = "2031-01-01".to_owned();
    let world = World::broker_only(&config(&[entry(&odd, "")]), &[]).await;
    let status = world.status_of("odd").await;
    assert_eq!(
        (
            status["message"].as_str(),
            status["protocolValidation"]["isValid"].as_bool()
        ),
        (Some("unsupported protocol version 2031-01-01"), Some(false))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_redirects_are_not_followed_with_the_credential() {
    let other = Server::start("other", &["x"]).await;
    let target = other.url();
    let app =
        axum::Router::new().fallback(move || async move { axum::response::Redirect::temporary(&target) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let world = World::broker_only(
        &format!("servers:\n- {{name: ns/moved, url: 'http://{address}/mcp', credential: secret}}\n"),
        &[],
    )
    .await;
    let status = world.status_of("moved").await;
    assert!(
        status["message"].as_str().unwrap().contains("HTTP status 307"),
        "{status}"
    );
    assert!(other.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_have_their_fixed_names() {
    let one = Server::start("one", &["forecast"]).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = config(&[
        entry(&one, ""),
        format!("- {{name: ns/dead, url: 'http://{dead}/mcp'}}\n"),
    ]);
    let world = World::broker_only(&text, &[]).await;
    world.direct().initialized().await.tools().await;
    let url = format!(
        "http://{}/metrics",
        world.running.as_ref().unwrap().admin.unwrap()
    );
    let text = eventually("gauges", || async {
        let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        text.contains(r#"mcp_broker_server_up{server_name="ns/one"} 1"#)
            .then_some(text)
    })
    .await;
    for line in [
        r#"mcp_broker_discovery_total{server_name="ns/one",status="success"} 1"#,
        r#"mcp_broker_discovery_duration_seconds_count{server_name="ns/one"} 1"#,
        r#"mcp_broker_tools_discovered{server_name="ns/one"} 1"#,
        r#"mcp_broker_upstream_connection_failures_total{server_name="ns/dead"}"#,
        r#"mcp_broker_tools_list_response_bytes_count 1"#,
        r#"mcp_broker_list_duration_seconds_count{kind="tool",cached="false"} 1"#,
        r#"mcp_broker_server_last_success_timestamp_seconds{server_name="ns/one"} 1"#,
        r#"mcp_gateway_config_reloads_total{result="success"} 1"#,
        r#"mcp_gateway_build_info{version="#,
        r#"mcp_broker_items_conflicting{server_name="ns/one",kind="tool"} 0"#,
        r#"mcp_broker_client_streams_active{kind="get"} 0"#,
        r#"mcp_sessions_active 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
