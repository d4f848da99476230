//! Two replicas over one real Redis (data-plane.md 12): any replica serves any session, one that is killed loses none,
//! and without the store the documented error.

use crate::client::Client;
use crate::fixture::Server;
use crate::programs::cached;
use crate::world::{World, config, entry, eventually, free_port, is_direct};
use mcp_gateway_broker::run::Running;
use reqwest::Method;
use serde_json::json;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A redis-server of its own.
pub struct Redis {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    pub async fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let redis = Self {
            child: Self::spawn(port, &folder),
            port,
            folder,
        };
        redis.answers().await;
        redis
    }

    fn spawn(port: u16, folder: &tempfile::TempDir) -> Child {
        Command::new(cached("MCPGW_REDIS", "redis", "redis-server"))
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                "hunter2",
                "--port",
            ])
            .arg(port.to_string())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn answers(&self) {
        eventually("redis", || async {
            self.command(&["PING"]).await.is_some().then_some(())
        })
        .await;
    }

    pub fn url(&self) -> String {
        format!("redis://:hunter2@127.0.0.1:{}/0", self.port)
    }

    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.folder);
        self.answers().await;
    }

    pub async fn command(&self, words: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await.ok()
    }

    /// All hashes as text.
    pub async fn everything(&self) -> String {
        let mut text = String::new();
        for key in self.keys().await {
            let value = self.command(&["HGETALL", &key]).await;
            text.push_str(&format!("{key} {value:?}\n"));
        }
        text
    }

    async fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.command(&["KEYS", "*"]).await.unwrap()).unwrap()
    }
}

/// Two replicas, each behind an Envoy of its own.
pub struct Pair {
    pub redis: Redis,
    pub worlds: [World; 2],
}

impl Pair {
    pub async fn start(servers: &[(&Arc<Server>, &str)], flags: &[&str]) -> Self {
        let entries: Vec<String> = servers
            .iter()
            .map(|(server, prefix)| entry(server, prefix))
            .collect();
        let servers: Vec<&Arc<Server>> = servers.iter().map(|(server, _)| *server).collect();
        Self::start_with(&config(&entries), &servers, flags).await
    }

    pub async fn start_with(config: &str, servers: &[&Arc<Server>], flags: &[&str]) -> Self {
        let redis = Redis::start().await;
        let store = format!("--cache-connection-string={}", redis.url());
        let flags: Vec<&str> = flags.iter().copied().chain([store.as_str()]).collect();
        let worlds = [
            World::start_with(config, servers, &flags).await,
            World::start_with(config, servers, &flags).await,
        ];
        for world in &worlds {
            eventually("the servers", || async {
                (world.status().await["unHealthyServers"] == 0).then_some(())
            })
            .await;
        }
        Self { redis, worlds }
    }

    /// The same session, on the other replica.
    pub fn on(&self, replica: usize, client: &Client) -> Client {
        let mut other = self.worlds[replica].client();
        other.session.clone_from(&client.session);
        other.headers.clone_from(&client.headers);
        other
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_d19_any_replica_serves_a_session_with_one_backend_session_until_any_ends_it() {
    let one = Server::start("one", &["forecast"]).await;
    one.init_delay_ms.store(200, Ordering::Relaxed);
    let pair = Pair::start(&[(&one, "one_")], &[]).await;
    let first = pair.worlds[0].client().initialized().await;
    let second = pair.on(1, &first);
    let calls = (0..10).map(|at| {
        let client = if at % 2 == 0 { &first } else { &second };
        client.call("one_forecast")
    });
    for reply in futures::future::join_all(calls).await {
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(
        one.calls("initialize").len(),
        1,
        "one backend session for both replicas"
    );
    let ended = second.send(second.request(Method::DELETE, "/mcp")).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    for (replica, client) in [(0, &first), (1, &second)] {
        assert_eq!(
            client.rpc("ping", json!({})).await.status,
            404,
            "ping on {replica}"
        );
        eventually("the router's 404", || async {
            (client.call("one_forecast").await.status == 404).then_some(())
        })
        .await;
    }
    let deleted =
        || one.count(|seen| seen.verb == Method::DELETE && seen.header("user-agent") == Some("mcp-router"));
    eventually("DELETE at the server", || async {
        (deleted() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d51_lists_are_the_same_on_every_replica() {
    let (one, two) = (
        Server::start("one", &["b", "a"]).await,
        Server::start("two", &["b", "c"]).await,
    );
    let pair = Pair::start(&[(&one, "w_"), (&two, "w_")], &[]).await;
    let first = pair.worlds[0].client().initialized().await;
    let second = pair.on(1, &first);
    assert_eq!(first.tools().await, ["w_a", "w_b", "w_c"]);
    for method in [
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    ] {
        let there = second.rpc(method, json!({})).await.text;
        assert_eq!(first.rpc(method, json!({})).await.text, there, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_a_replica_that_starts_later_knows_which_sessions_ended() {
    let one = Server::start("one", &["forecast"]).await;
    let mut pair = Pair::start(&[(&one, "one_")], &[]).await;
    let (kept, ended) = (
        pair.worlds[0].client().initialized().await,
        pair.worlds[0].client().initialized().await,
    );
    for client in [&kept, &ended] {
        assert_eq!(client.call("one_forecast").await.status, 200);
    }
    ended.send(ended.request(Method::DELETE, "/mcp")).await;
    pair.worlds[0].running.take().map(Running::drain).unwrap().await;
    assert_eq!(pair.on(1, &ended).call("one_forecast").await.status, 404);
    let inits = one.calls("initialize").len();
    assert_eq!(pair.on(1, &kept).call("one_forecast").await.status, 200);
    assert_eq!(
        one.calls("initialize").len(),
        inits,
        "the backend session lives on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d23_every_key_has_a_time_to_live_from_the_write_that_made_it() {
    let one = Server::start("one", &["forecast"]).await;
    let pair = Pair::start(&[(&one, "one_")], &[]).await;
    let (first, ended) = (
        pair.worlds[0].client().initialized().await,
        pair.worlds[0].client().initialized().await,
    );
    for client in [&first, &ended] {
        assert_eq!(client.call("one_forecast").await.status, 200);
        client.rpc("logging/setLevel", json!({"level": "debug"})).await;
    }
    ended.send(ended.request(Method::DELETE, "/mcp")).await;
    let keys = pair.redis.keys().await;
    assert!(keys.len() >= 2, "{keys:?}");
    for key in keys {
        let ttl: i64 = redis::from_redis_value(pair.redis.command(&["TTL", &key]).await.unwrap()).unwrap();
        assert!((1..=86_400).contains(&ttl), "{key} lives {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_calls_are_503_and_lists_of_the_status_go_on_until_it_is_back() {
    let one = Server::start("one", &["forecast"]).await;
    let mut pair = Pair::start(&[(&one, "one_")], &[]).await;
    let client = pair.worlds[0].client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    pair.redis.stop();
    // What the replica knows of the session is good for two seconds.
    let refused = eventually("the store's absence to be noticed", || async {
        let reply = client.call("one_forecast").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.error(), (-32603, "session store unavailable".to_owned()));
    assert_eq!(
        (refused.json()["id"].clone(), refused.header("retry-after")),
        (json!(7), Some("1"))
    );
    let broker = pair.worlds[0].broker;
    assert_eq!(
        reqwest::get(format!("http://{broker}/readyz"))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(pair.worlds[0].status().await["healthyServers"], 1);
    pair.redis.start_again().await;
    eventually("calls to work again", || async {
        (client.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_at_most_one_round_trip_to_the_store() {
    let one = Server::start("one", &["forecast"]).await;
    let pair = Pair::start(&[(&one, "one_")], &[]).await;
    let client = pair.worlds[0].client().initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    let other = pair.on(1, &client);
    let commands = async |redis: &Redis| -> usize {
        let info: String =
            redis::from_redis_value(redis.command(&["INFO", "commandstats"]).await.unwrap()).unwrap();
        let of = |name: &str| {
            let line = info
                .lines()
                .find(|line| line.starts_with(&format!("cmdstat_{name}:")));
            line.and_then(|line| line.split(['=', ',']).nth(1))
                .and_then(|calls| calls.parse::<usize>().ok())
                .unwrap_or(0)
        };
        assert!(of("exists") >= of("hgetall"), "{info}");
        of("hgetall")
    };
    let before = commands(&pair.redis).await;
    assert_eq!(other.call("one_forecast").await.status, 200);
    let first = commands(&pair.redis).await;
    assert_eq!(
        first - before,
        1,
        "one pipelined question for a session seen for the first time"
    );
    for _ in 0..20 {
        assert_eq!(other.call("one_forecast").await.status, 200);
    }
    assert!(commands(&pair.redis).await - first <= 20);
}

#[tokio::test]
async fn s13_a_store_that_is_not_there_ends_the_start_without_a_word_of_its_password() {
    use mcp_gateway_broker::secret::Secret;
    use mcp_gateway_broker::sessions::shared::SharedStore;
    mcp_gateway_broker::transport::client::install_crypto();
    let port = free_port();
    let address = Secret::new(format!("redis://:hunter2@127.0.0.1:{port}/0"));
    let Err(error) = SharedStore::connect(&address).await else {
        panic!("connected to nothing");
    };
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    let named = format!("session store at 127.0.0.1:{port} unavailable: connection refused; ");
    assert!(error.to_string().starts_with(&named), "{error}");
    let Err(error) = SharedStore::connect(&Secret::new("redis://:hunter2@[")).await else {
        panic!("connected to nothing");
    };
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_in_mid_load_loses_no_session() {
    if is_direct() {
        return; // It is about Envoy.
    }
    let one = Server::start("one", &["forecast"]).await;
    let redis = Redis::start().await;
    let store = format!("--cache-connection-string={}", redis.url());
    let text = config(&[entry(&one, "one_")]);
    // The runtime is the process: when it is dropped, every task and socket ends at once and nothing is said to anybody.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (first, flags) = (Arc::clone(&one), store.clone());
    let doomed = {
        let text = text.clone();
        process.spawn(async move { World::start_with(&text, &[&first], &[&flags]).await })
    };
    let doomed = doomed.await.unwrap();
    let left = World::start_with(&text, &[&one], &[&store]).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let client = doomed.client().initialized().await;
        assert_eq!(client.call("one_forecast").await.status, 200);
        sessions.push(client);
    }
    let calls = sessions.iter().map(
        async |client| {
            while client.call("one_forecast").await.status == 200 {}
        },
    );
    let load = futures::future::join_all(calls);
    let kill = async {
        eventually("load", || async {
            (one.calls("tools/call").len() > 50).then_some(())
        })
        .await;
        process.shutdown_background();
    };
    tokio::join!(load, kill);
    let opened = one.calls("initialize").len();
    for client in &sessions {
        let mut moved = left.client();
        moved.session.clone_from(&client.session);
        let reply = moved.call("one_forecast").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    assert_eq!(
        one.calls("initialize").len(),
        opened,
        "the backend sessions live on"
    );
}
