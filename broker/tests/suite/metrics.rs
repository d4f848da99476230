//! What the metrics of sessions and relays count (data-plane.md 18.2), on the admin listener of real processes' parts.

use crate::client::Client;
use crate::fixture::Server;
use crate::relays::{Events, asking, question, two_servers};
use crate::shared_store::Pair;
use crate::world::{World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

impl World {
    /// The exposition text.
    pub async fn metrics(&self) -> String {
        let admin = self.running.as_ref().unwrap().admin.unwrap();
        let text = reqwest::get(format!("http://{admin}/metrics")).await.unwrap();
        text.text().await.unwrap()
    }

    /// The value of a series now; 0 when there is none.
    pub async fn value(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series has this value.
    pub async fn counts(&self, series: &str, value: f64) {
        eventually(&format!("{series} {value}"), || async {
            (self.value(series).await == value).then_some(())
        })
        .await;
    }
}

const ACTIVE: &str = "mcp_sessions_active";
const DELETED: &str = r#"mcp_session_ended_total{reason="delete"}"#;

fn backends(server: &str) -> String {
    format!(r#"mcp_session_backend_active{{server="ns/{server}"}}"#)
}

async fn delete(client: &Client) {
    let ended = client.send(client.request(Method::DELETE, "/mcp")).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gauges_of_sessions_return_when_the_session_ends() {
    let (one, _two, world) = two_servers().await;
    let (first, second) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    assert_eq!(world.value(ACTIVE).await, 2.0);
    assert_eq!(
        world.value(&backends("one")).await,
        0.0,
        "nothing is opened before a call"
    );
    for (client, tool) in [
        (&first, "one_forecast"),
        (&first, "two_ask"),
        (&second, "one_forecast"),
    ] {
        assert_eq!(client.call(tool).await.status, 200);
    }
    assert_eq!(world.value(&backends("one")).await, 2.0);
    assert_eq!(world.value(&backends("two")).await, 1.0);
    // A session that the server lost is replaced, not added.
    one.forget_sessions();
    eventually("a new session with the server", || async {
        (first.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
    world.counts(&backends("one"), 2.0).await;
    delete(&first).await;
    assert_eq!(world.value(ACTIVE).await, 1.0);
    assert_eq!(world.value(&backends("one")).await, 1.0);
    assert_eq!(world.value(&backends("two")).await, 0.0);
    delete(&second).await;
    assert_eq!(
        (world.value(ACTIVE).await, world.value(DELETED).await),
        (0.0, 2.0)
    );
    assert_eq!(world.value(&backends("one")).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_shared_store_each_session_is_counted_by_the_replica_that_made_it() {
    let one = Server::start("one", &["forecast"]).await;
    let pair = Pair::start(&[(&one, "one_")], &[]).await;
    let [maker, other] = &pair.worlds;
    let first = maker.client().initialized().await;
    let there = pair.on(1, &first);
    // Made on one replica, opened and lost on the other, ended there.
    assert_eq!(there.call("one_forecast").await.status, 200);
    assert_eq!((maker.value(ACTIVE).await, other.value(ACTIVE).await), (1.0, 0.0));
    maker.counts(&backends("one"), 0.0).await;
    other.counts(&backends("one"), 1.0).await;
    one.forget_sessions();
    eventually("a new session with the server", || async {
        (first.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
    let sum = async || maker.value(&backends("one")).await + other.value(&backends("one")).await;
    eventually("one session with the server", || async {
        (sum().await == 1.0).then_some(())
    })
    .await;
    delete(&there).await;
    maker.counts(ACTIVE, 0.0).await;
    for world in &pair.worlds {
        world.counts(&backends("one"), 0.0).await;
    }
    assert_eq!(
        (maker.value(DELETED).await, other.value(DELETED).await),
        (0.0, 1.0)
    );
}

/// The answer of a client to a question, and the end of the call.
async fn answer(client: &Client, (events, asked): (&mut Events, &Value), (member, value): (&str, Value)) {
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], member: value});
    let reply = client.post(answer.to_string()).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert_eq!(events.message().await["id"], 7);
}

fn relayed(kind: &str, outcome: &str) -> String {
    format!(r#"mcp_relay_requests_total{{kind="{kind}",outcome="{outcome}"}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_of_servers_are_counted_by_what_became_of_them() {
    let (_one, _two, world) = two_servers().await;
    let client = world
        .client()
        .able(json!({"sampling": {}, "elicitation": {}}))
        .await;
    let ask = |method: &str| json!({"ask": question(&json!(1), method, &json!({"message": "Who?", "messages": []}))});
    for (method, given) in [
        ("sampling/createMessage", ("result", json!({"role": "assistant"}))),
        (
            "elicitation/create",
            ("error", json!({"code": -1, "message": "no"})),
        ),
    ] {
        let mut events = asking(&client, "one_ask", ask(method)).await;
        let asked = events.message().await;
        answer(&client, (&mut events, &asked), given).await;
    }
    // The client did not say that it has roots: the server learns it at once.
    let mut events = asking(&client, "one_ask", ask("roots/list")).await;
    assert_eq!(events.message().await["id"], 7);
    // A client that goes away answers nothing.
    let mut events = asking(&client, "two_ask", ask("sampling/createMessage")).await;
    events.message().await;
    drop(events);
    for (kind, outcome) in [
        ("sampling", "ok"),
        ("elicitation", "client_error"),
        ("roots", "denied"),
        ("sampling", "timeout"),
    ] {
        world.counts(&relayed(kind, outcome), 1.0).await;
    }
    for kind in ["sampling", "elicitation"] {
        let series = format!(r#"mcp_relay_wait_seconds_count{{kind="{kind}"}}"#);
        assert_eq!(world.value(&series).await, 1.0);
    }
    let rewritten = world
        .value(r#"mcp_router_rewritten_bytes_total{plan="relay"}"#)
        .await;
    assert!(rewritten > 500.0, "{rewritten}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_to_another_replica_is_counted_where_it_was_asked() {
    let one = Server::start("one", &["ask"]).await;
    let pair = Pair::start(&[(&one, "one_")], &[]).await;
    let able = json!({"sampling": {}});
    let client = pair.worlds[0].client().able(able).await;
    let ask = question(&json!(1), "sampling/createMessage", &json!({"messages": []}));
    let mut events = asking(&client, "one_ask", json!({"ask": ask})).await;
    let asked = events.message().await;
    let given = ("result", json!({"role": "assistant"}));
    let other = pair.on(1, &client);
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], given.0: given.1});
    assert_eq!(other.post(answer.to_string()).await.status, 202);
    pair.worlds[0].counts(&relayed("sampling", "ok"), 1.0).await;
    assert_eq!(events.message().await["id"], 7);
    assert_eq!(pair.worlds[1].value(&relayed("sampling", "ok")).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_are_counted_by_kind_and_direction() {
    let (one, _two, world) = two_servers().await;
    let client = world.client().able(json!({"roots": {"listChanged": true}})).await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    let stream = client
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream");
    let mut events = Events::of(stream.send().await.unwrap());
    let get = r#"mcp_broker_client_streams_active{kind="get"}"#;
    assert_eq!(world.value(get).await, 1.0);
    eventually("the notice stream of the broker", || async {
        (one.count(|seen| seen.verb == Method::GET) > 0).then_some(())
    })
    .await;
    one.tools.lock().unwrap().push(crate::fixture::tool("later"));
    one.notify("notifications/tools/list_changed");
    assert_eq!(
        events.message().await["method"],
        "notifications/tools/list_changed"
    );
    let of = |kind: &str, direction: &str| {
        format!(r#"mcp_broker_notifications_total{{kind="{kind}",direction="{direction}"}}"#)
    };
    world.counts(&of("tools/list_changed", "to_client"), 1.0).await;
    assert!(world.value(&of("tools/list_changed", "from_server")).await >= 1.0);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(client.post(changed).await.status, 202);
    world.counts(&of("roots/list_changed", "to_server"), 1.0).await;
    drop(events);
    world.counts(get, 0.0).await;
}
