//! Config reloads of a running broker (data-plane.md 16, D6–D13).

use crate::fixture::Server;
use crate::world::{World, config, entry, eventually};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

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
async fn d7_hints_and_tags_restart_nothing_urls_do_and_removed_things_stop_counting() {
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
async fn d11_a_hung_server_delays_no_reload_and_no_other_server() {
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
    world.write_config(&config(&[entry(&hung, "h2_"), entry(&fine, "g_")]));
    // Waits less than a check that hangs lasts.
    eventually("the reload", || async {
        (client.tools().await == ["g_forecast"]).then_some(())
    })
    .await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_tags_categories_and_policies_removed_from_the_config_stop_having_effect_with_that_reload() {
    let one = Server::start("one", &["forecast"]).await;
    let base = config(&[entry(&one, "")]);
    let tagged = base.replace("uid: one", "uid: one, tags: [weather], category: [outdoors]");
    let world = World::start_with(&tagged, &[&one], &["--discovery-tools-enabled=true"]).await;
    let client = world.client().initialized().await;
    let own = [
        "discover_tools",
        "filter_tools_by_tags",
        "list_tags",
        "select_tools",
    ];
    eventually("the list", || async {
        let listed = client.tools().await;
        own.iter()
            .all(|name| listed.iter().any(|tool| tool == name))
            .then_some(())
    })
    .await;
    let found = |category: &'static str| {
        let client = client.clone();
        async move {
            let params = json!({"name": "discover_tools", "arguments": {"category": category}});
            let reply = client.rpc("tools/call", params).await;
            reply.json()["result"]["content"][0]["text"]
                .as_str()
                .unwrap()
                .contains("forecast")
        }
    };
    assert!(found("outdoors").await && !found("uncategorised").await);
    let closing = "authPolicies:\n- {name: ns/p, valid: true, targets: [{kind: MCPServerRegistration, name: ns/one}]}\n";
    world.write_config(&format!("{base}{closing}"));
    eventually("the policy, and no tags", || async {
        (client.tools().await == ["discover_tools", "select_tools"]).then_some(())
    })
    .await;
    let tags = client.call("list_tags").await;
    assert_eq!(tags.error(), (-32602, "Unknown tool: list_tags".to_owned()));
    assert_eq!(client.call("forecast").await.error().0, -32602);
    world.write_config(&base);
    eventually("no policy", || async {
        (client.tools().await == ["discover_tools", "forecast", "select_tools"]).then_some(())
    })
    .await;
    assert_eq!(client.call("forecast").await.status, 200);
    assert!(
        found("uncategorised").await && !found("outdoors").await,
        "no category"
    );
    assert_eq!(initializes(&one), 1, "without a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_a_config_with_tags_reloads_and_answers_lists_status_and_readiness_as_any_other() {
    let one = Server::start("one", &["forecast"]).await;
    let tagged = config(&[entry(&one, "a_")]).replace("uid: one", "uid: one, tags: [b, a]");
    let world = World::start_with(&tagged, &[&one], &[]).await;
    let client = world.client().initialized().await;
    for prefix in ["a_", "b_"] {
        world.write_config(&tagged.replace("prefix: 'a_'", &format!("prefix: '{prefix}'")));
        eventually("the list", || async {
            (client.tools().await == [format!("{prefix}forecast")]).then_some(())
        })
        .await;
        let status = world.status_of("one").await;
        assert_eq!(
            (&status["ready"], &status["totalTools"]),
            (&json!(true), &json!(1)),
            "{status}"
        );
        let ready = reqwest::get(format!("http://{}/readyz", world.broker))
            .await
            .unwrap();
        assert_eq!(ready.status(), 200);
        assert_eq!(client.call(&format!("{prefix}forecast")).await.status, 200);
    }
    assert_eq!(world.status().await["config"].get("error"), None::<&Value>);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_replaced_connection_that_ends_late_removes_nothing_of_its_successor() {
    let (before, after) = (
        Server::start("one", &["old"]).await,
        Server::start("two", &["new"]).await,
    );
    let text = config(&[entry(&before, "")]);
    let world = World::start_with(&text, &[&before], &["--mcp-check-interval=1"]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["old"]);
    before.hang.store(true, Ordering::Relaxed);
    let seen = before.seen.lock().unwrap().len();
    eventually("a check that hangs", || async {
        (before.seen.lock().unwrap().len() > seen).then_some(())
    })
    .await;
    // The same server by its name, at another address.
    world.write_config(&text.replace(&before.url(), &after.url()));
    eventually("the successor's list", || async {
        (client.tools().await == ["new"]).then_some(())
    })
    .await;
    // The one that was replaced ends only now: it says goodbye to its server.
    eventually("its end", || async {
        let ended = before.count(|seen| seen.verb == reqwest::Method::DELETE);
        (ended == 1).then_some(())
    })
    .await;
    let checks = || after.count(|seen| seen.mcp_method() == "tools/list");
    let until = checks() + 2;
    eventually("two more checks of the successor", || async {
        assert_eq!(client.tools().await, ["new"]);
        (checks() >= until).then_some(())
    })
    .await;
    let status = world.status_of("one").await;
    assert_eq!(
        (&status["ready"], &status["totalTools"]),
        (&json!(true), &json!(1)),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d61_a_server_that_never_answers_delays_no_list_no_status_and_no_readiness() {
    let (hung, fine) = (
        Server::start("hung", &["x"]).await,
        Server::start("fine", &["forecast"]).await,
    );
    hung.hang.store(true, Ordering::Relaxed);
    // Readiness is waited for here: it comes while the first attempt at the one server is still under way.
    let world = World::start_with(
        &config(&[entry(&hung, "h_"), entry(&fine, "f_")]),
        &[&hung, &fine],
        &[],
    )
    .await;
    let client = world.client().initialized().await;
    eventually("the other server's list", || async {
        (client.tools().await == ["f_forecast"]).then_some(())
    })
    .await;
    let status = world.status_of("hung").await;
    assert_eq!(status["ready"], false, "{status}");
    assert_eq!(world.status_of("fine").await["ready"], true);
    assert_eq!(client.call("f_forecast").await.status, 200);
    let ready = reqwest::get(format!("http://{}/readyz", world.broker))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
}
