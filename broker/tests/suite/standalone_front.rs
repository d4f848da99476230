//! What the front of `mcp-gateway-broker run` can be told in its file: a certificate, clients of 2024-11-05, one process for
//! all sessions (data-plane.md 13).

use crate::client::Client;
use crate::standalone::{Gateway, children, command, lives, said, signal};
use crate::tls::Authority;
use crate::world::{PUBLIC, eventually, free_port};
use futures::{Stream, StreamExt as _};
use mcp_gateway_broker::protocol::sse;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;

const SERVER: &str = "servers:\n- {name: a, command: '${GATEWAY_PROGRAM}', args: [example-server]}\n";

struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a pair of this authority in place, as tools that renew certificates do it.
    fn renew(&self, authority: &Authority) {
        let (certificate, key) = authority.issue(&[PUBLIC]);
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            std::fs::write(self.path("next"), text).unwrap();
            std::fs::rename(self.path("next"), self.path(name)).unwrap();
        }
    }

    fn config(&self) -> PathBuf {
        let text = format!(
            "{SERVER}publicHosts: [{PUBLIC}]\ntls: {{certFile: '{}', keyFile: '{}'}}\n",
            self.path("tls.crt").display(),
            self.path("tls.key").display()
        );
        std::fs::write(self.path("config.yaml"), text).unwrap();
        self.path("config.yaml")
    }
}

/// A client that trusts this authority, once the front shows it a certificate that it issued.
async fn trusting(port: u16, authority: &Authority) -> Client {
    eventually("a certificate of the authority", || async {
        let client = Client::tls(port, &authority.pem());
        let ready = client.request(reqwest::Method::GET, "/readyz").send().await;
        ready.is_ok_and(|reply| reply.status() == 200).then_some(client)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_front_speaks_tls_with_the_pair_of_its_file_and_follows_it() {
    let (first, second) = (Authority::new(), Authority::new());
    let pair = Pair {
        folder: tempfile::tempdir().unwrap(),
    };
    pair.renew(&first);
    let (file, port) = (pair.config(), free_port());
    let child = command(&file, port).stdout(Stdio::null()).spawn().unwrap();
    let gateway = Gateway { child, port };
    let client = trusting(port, &first).await.initialized().await;
    eventually("the tools", || async {
        (client.tools().await == ["add", "greet"]).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/readyz").await, None, "no plain HTTP");

    pair.renew(&second);
    let client = trusting(port, &second).await.initialized().await;
    assert_eq!(said(&client, "greet", json!({})).await, "Hello, world!");
    std::fs::write(pair.path("tls.key"), "no key").unwrap();
    let status = eventually("the warning", || async {
        let request = client.request(reqwest::Method::GET, "/status");
        let text = client.send(request).await.text;
        text.contains("tls.key holds no private key").then_some(text)
    })
    .await;
    assert!(status.contains("is served on"), "{status}");
    trusting(port, &second).await;
    gateway.interrupt().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_served_ends_the_start() {
    let pair = Pair {
        folder: tempfile::tempdir().unwrap(),
    };
    let output = command(&pair.config(), free_port()).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("tls.crt: entity not found") && !text.contains("Broker listens"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_others_reach_without_policies_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "servers: []\n").unwrap();
    let port = free_port();
    let child = command(&file, port)
        .arg(format!("--mcp-broker-public-address=0.0.0.0:{port}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let gateway = Gateway { child, port };
    let status = eventually("the status", || async { gateway.get("/status").await })
        .await
        .1;
    assert!(
        status.contains("whoever reaches it can call every tool"),
        "{status}"
    );
    gateway.interrupt().await;
    let gateway = Gateway::start(&file).await;
    assert!(!gateway.status().await.to_string().contains("whoever reaches"));
    gateway.interrupt().await;
}

/// A client of 2024-11-05.
struct Older {
    base: String,
    endpoint: String,
    events: Pin<Box<dyn Stream<Item = sse::Event> + Send>>,
}

impl Older {
    async fn open(port: u16) -> Self {
        let base = format!("http://127.0.0.1:{port}");
        let response = reqwest::get(format!("{base}/sse")).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut decoder = sse::Decoder::default();
        let chunks = response.bytes_stream();
        let mut events = Box::pin(
            chunks.flat_map(move |chunk| futures::stream::iter(decoder.push(&chunk.unwrap()).unwrap())),
        );
        let endpoint = events.next().await.unwrap().data;
        Self {
            base,
            endpoint,
            events,
        }
    }

    async fn send(&self, message: Value) -> u16 {
        let request = reqwest::Client::new()
            .post(format!("{}{}", self.base, self.endpoint))
            .header("content-type", "application/json")
            .body(message.to_string());
        request.send().await.unwrap().status().as_u16()
    }

    /// The answer, which comes on the stream.
    async fn asked(&mut self, id: u64, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        assert_eq!(self.send(request).await, 202);
        let answered = async {
            loop {
                let event = self.events.next().await.expect("the stream ended");
                let message: Value = serde_json::from_str(&event.data).unwrap();
                if message["id"] == id {
                    return message;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), answered)
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_older_transport_is_answered_on_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, SERVER).unwrap();
    let gateway = Gateway::start(&file).await;
    gateway.client(&["add", "greet"]).await;
    assert_eq!(gateway.get("/sse").await.unwrap().0, 404, "not asked for");
    std::fs::write(&file, format!("{SERVER}legacySSE: true\n")).unwrap();
    eventually("/sse", || async {
        let stream = reqwest::get(format!("http://127.0.0.1:{}/sse", gateway.port)).await;
        stream.is_ok_and(|stream| stream.status() == 200).then_some(())
    })
    .await;

    let mut client = Older::open(gateway.port).await;
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "o", "version": "1"}});
    let hello = client.asked(1, "initialize", hello).await;
    assert_eq!(hello["result"]["protocolVersion"], "2024-11-05");
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(client.send(initialized).await, 202);
    let listed = client.asked(2, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 2);
    let called = client
        .asked(
            3,
            "tools/call",
            json!({"name": "add", "arguments": {"a": 40, "b": 2}}),
        )
        .await;
    assert_eq!(called["result"]["content"][0]["text"], "42");
    let unknown = client.asked(4, "tools/call", json!({"name": "no"})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");

    let stranger = Older {
        base: client.base.clone(),
        endpoint: "/messages?sessionId=7e57ed00-0000-4000-8000-000000000000".to_owned(),
        events: Box::pin(futures::stream::empty()),
    };
    let ping = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"});
    assert_eq!(stranger.send(ping.clone()).await, 404);
    let gone = Older {
        endpoint: client.endpoint.clone(),
        ..stranger
    };
    drop(client);
    eventually("the end of the session", || async {
        (gone.send(ping.clone()).await == 404).then_some(())
    })
    .await;
    gateway.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_a_gateway_that_is_killed_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    // It reads no input, whose end would tell it.
    let text = format!(
        "servers:\n- {{name: k, url: 'http://127.0.0.1:{}/mcp', command: sh, args: [-c, 'echo $$ >> {}/children; exec sleep 600']}}\n",
        free_port(),
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let mut gateway = Gateway::start(&file).await;
    let child = eventually("the child", || async { children(folder.path()).first().copied() }).await;
    assert!(lives(child));
    gateway.child.kill().await.unwrap();
    eventually("the end of the child", || async { (!lives(child)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_a_program_behind_a_url_is_started_again_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let (notes, address) = (folder.path().display(), format!("127.0.0.1:{}", free_port()));
    let text = format!(
        "servers:\n- {{name: u, url: 'http://{address}/mcp', command: sh, args: [-c, 'echo $$ >> {notes}/children; \
        exec \"$P\" example-server --http {address}'], env: {{P: '${{GATEWAY_PROGRAM}}'}}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let gateway = Gateway::start(&file).await;
    let client = gateway.client(&["add", "greet"]).await;
    for ended in 1..=2 {
        let child = *children(folder.path()).last().unwrap();
        signal("KILL", child);
        eventually("another child", || async {
            (children(folder.path()).len() > ended).then_some(())
        })
        .await;
        eventually("its answer", || async {
            let sum = json!({"name": "add", "arguments": {"a": 40, "b": 2}});
            let reply = client.rpc("tools/call", sum).await;
            (reply.status == 200 && reply.text.contains("42")).then_some(())
        })
        .await;
    }
    gateway.interrupt().await;
}

/// A server whose one process notes that it was started.
fn shared(folder: &Path) -> String {
    format!(
        "servers:\n- {{name: s, isolation: shared, command: sh, args: [-c, 'echo $$ >> {}/children; exec \"$P\" example-server'], \
        env: {{P: '${{GATEWAY_PROGRAM}}'}}}}\n",
        folder.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_one_process_where_the_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, shared(folder.path())).unwrap();
    let gateway = Gateway::start(&file).await;
    let (one, two) = (
        gateway.client(&["add", "greet"]).await,
        gateway.client(&["add", "greet"]).await,
    );
    let calls = (0..20).flat_map(|number| [(&one, number), (&two, 2 * number)]);
    let calls = calls.map(|(client, number)| async move {
        let sum = said(client, "add", json!({"a": number, "b": 1000})).await;
        assert_eq!(sum, (number + 1000).to_string());
    });
    futures::future::join_all(calls).await;
    let [child] = children(folder.path())[..] else {
        panic!("{:?}", children(folder.path()))
    };
    one.send(one.request(reqwest::Method::DELETE, "/mcp")).await;
    assert_eq!(said(&two, "greet", json!({})).await, "Hello, world!");
    signal("KILL", child);
    eventually("another process", || async {
        let reply = two
            .rpc("tools/call", json!({"name": "greet", "arguments": {}}))
            .await;
        (reply.status == 200 && reply.json().get("result").is_some()).then_some(())
    })
    .await;
    assert_eq!(children(folder.path()).len(), 2);
    gateway.interrupt().await;
}
