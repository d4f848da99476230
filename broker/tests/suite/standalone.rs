//! `mcp-gateway-broker run` as somebody without a cluster uses it (data-plane.md 13).

use crate::client::Client;
use crate::world::{eventually, free_port};
use axum::extract::State;
use axum::routing::{get, post};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncBufReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::broadcast;

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-gateway-broker");

/// A gateway in a process of its own, and its port.
pub struct Gateway {
    pub child: Child,
    pub port: u16,
}

pub fn command(file: &Path, port: u16) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["run", "--config"])
        .arg(file)
        .arg(format!("--mcp-broker-public-address=127.0.0.1:{port}"))
        .args(["--metrics-addr=", "--discovery-tools-enabled=false"])
        .env("GATEWAY_PROGRAM", BINARY)
        .env("A_SECRET_OF_THE_GATEWAY", "must not be inherited")
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Gateway {
    pub async fn start(file: &Path) -> Self {
        Self::start_with(file, (Stdio::null(), &[])).await
    }

    async fn start_with_output(file: &Path, output: Stdio) -> Self {
        Self::start_with(file, (output, &[])).await
    }

    /// A gateway with its output there, and these variables.
    pub async fn start_with(file: &Path, (output, variables): (Stdio, &[(&str, &str)])) -> Self {
        mcp_gateway_broker::transport::client::install_crypto();
        let port = free_port();
        let mut command = command(file, port);
        let child = command
            .envs(variables.iter().copied())
            .stdout(output)
            .spawn()
            .unwrap();
        let gateway = Self { child, port };
        eventually("readiness", || async {
            let status = gateway.get("/readyz").await?;
            (status.0 == 200).then_some(())
        })
        .await;
        gateway
    }

    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port))
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    pub async fn status(&self) -> Value {
        let (_, text) = self.get("/status").await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub async fn client(&self, tools: &[&str]) -> Client {
        let mut client = Client::new(format!("http://127.0.0.1:{}", self.port));
        client.host = format!("localhost:{}", self.port);
        let client = client.initialized().await;
        eventually("the tools", || async {
            (client.tools().await == tools).then_some(())
        })
        .await;
        client
    }

    /// Ends it as Ctrl-C does.
    pub async fn interrupt(mut self) {
        signal("INT", self.child.id().unwrap());
        assert!(self.child.wait().await.unwrap().success());
    }
}

pub fn signal(name: &str, process: u32) {
    let status = std::process::Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(status.unwrap().success());
}

pub async fn said(client: &Client, tool: &str, arguments: Value) -> String {
    let reply = client
        .rpc("tools/call", json!({"name": tool, "arguments": arguments}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_of_the_readme_answers_calls_of_a_command_and_of_a_url() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/standalone.yaml");
    let gateway = Gateway::start(&sample).await;
    let client = gateway
        .client(&["hello_add", "hello_greet", "sums_add", "sums_greet"])
        .await;
    assert_eq!(
        said(&client, "hello_greet", json!({"name": "you"})).await,
        "Hello, you!"
    );
    assert_eq!(said(&client, "sums_add", json!({"a": 1, "b": 2})).await, "3");
    gateway.interrupt().await;
}

/// As an IDE writes it: by name, with comments, a variable, and a child that notes its number and its environment.
fn ide(folder: &Path) -> String {
    format!(
        r#"{{
  // what the IDE keeps
  "mcpServers": {{
    "local": {{"command": "sh", "args": ["-c", "echo $$ >> {0}/children; env > {0}/env; exec \"$PROGRAM\" example-server"], "env": {{"PROGRAM": "${{GATEWAY_PROGRAM}}"}}}},
    "off": {{"command": "false", "disabled": true}},
    "unset": {{"command": "${{env:NO_SUCH_VARIABLE}}"}},
  }},
}}"#,
        folder.display()
    )
}

pub fn children(folder: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join("children")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub fn lives(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_children_of_an_ides_file_inherit_nothing_and_end_with_their_session_and_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    std::fs::write(&file, ide(folder.path())).unwrap();
    let gateway = Gateway::start(&file).await;
    let client = gateway.client(&["add", "greet"]).await;
    assert_eq!(said(&client, "greet", json!({})).await, "Hello, world!");
    let status = gateway.status().await.to_string();
    assert!(status.contains("NO_SUCH_VARIABLE"), "{status}");
    let environment = std::fs::read_to_string(folder.path().join("env")).unwrap();
    assert!(environment.contains("PROGRAM=") && !environment.contains("A_SECRET_OF_THE_GATEWAY"));

    let [_, own] = children(folder.path())[..] else {
        panic!("one for the lists, one for the session")
    };
    signal("KILL", own);
    eventually("the end of the child", || async { (!lives(own)).then_some(()) }).await;
    eventually("another child", || async {
        let reply = client
            .rpc("tools/call", json!({"name": "greet", "arguments": {}}))
            .await;
        (reply.status == 200 && reply.json().get("result").is_some()).then_some(())
    })
    .await;
    let again = *children(folder.path()).last().unwrap();
    assert_ne!(own, again);
    client.send(client.request(reqwest::Method::DELETE, "/mcp")).await;
    eventually("the end of the session's child", || async {
        (!lives(again)).then_some(())
    })
    .await;
    gateway.interrupt().await;
    let left: Vec<u32> = children(folder.path())
        .into_iter()
        .filter(|child| lives(*child))
        .collect();
    assert!(left.is_empty(), "these outlive the gateway: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_named_with_its_place_and_the_good_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let server = |prefix: &str| {
        format!(
            "servers:\n- {{name: a, prefix: {prefix}_, command: '${{GATEWAY_PROGRAM}}', args: [example-server]}}\n"
        )
    };
    let replace = |text: &str| {
        // As editors do it.
        let next = folder.path().join(".config.yaml.swp");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &file).unwrap();
    };
    replace(&server("one"));
    let gateway = Gateway::start(&file).await;
    let client = gateway.client(&["one_add", "one_greet"]).await;
    replace("servers:\n  - name: [\n");
    let error = eventually("the error", || async {
        gateway.status().await["config"]["error"]
            .as_str()
            .map(str::to_owned)
    })
    .await;
    assert!(error.starts_with(&format!("{}:", file.display())), "{error}");
    assert!(error.contains(":3:") || error.contains(":2:"), "{error}");
    assert_eq!(said(&client, "one_greet", json!({})).await, "Hello, world!");
    replace(&server("two"));
    let client = gateway.client(&["two_add", "two_greet"]).await;
    assert_eq!(said(&client, "two_greet", json!({})).await, "Hello, world!");
    assert_eq!(gateway.status().await["config"].get("error"), None);
    gateway.interrupt().await;
}

#[tokio::test]
async fn what_hinders_the_start_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.yaml"), folder.path().join("bad.yaml"));
    std::fs::write(&good, "servers: []\n").unwrap();
    std::fs::write(&bad, "servers: {a: [}\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (file, port, expected) in [
        (
            good,
            port,
            vec!["Address already in use", "--mcp-broker-public-address"],
        ),
        (bad.clone(), free_port(), vec!["bad.yaml:1:"]),
        (
            folder.path().join("none.yaml"),
            free_port(),
            vec!["none.yaml", "No such file", "--config"],
        ),
        (
            folder.path().to_owned(),
            free_port(),
            vec!["Is a directory", "--config"],
        ),
    ] {
        let output = command(&file, port).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in expected {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

/// A TLS server on loopback whose certificate nobody knows.
fn stranger() -> u16 {
    mcp_gateway_broker::transport::client::install_crypto();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let (config, listener) = (
        Arc::new(config),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // The client hangs up.
            drop(connection.complete_io(&mut stream));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_of_a_file_is_named_in_the_status_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let (closed, stranger) = (free_port(), stranger());
    let text = format!(
        "servers:\n\
        - {{name: missing, command: no-such-program}}\n\
        - {{name: dies, command: sh, args: [-c, 'exit 3']}}\n\
        - {{name: nowhere, command: sh, cwd: /no/such/folder}}\n\
        - {{name: closed, url: 'http://127.0.0.1:{closed}/mcp'}}\n\
        - {{name: stranger, url: 'https://localhost:{stranger}/mcp'}}\n\
        - {{name: first, prefix: p_, command: '${{GATEWAY_PROGRAM}}', args: [example-server]}}\n\
        - {{name: second, prefix: p_, command: '${{GATEWAY_PROGRAM}}', args: [example-server]}}\n\
        - {{name: misspelt, urll: 'http://127.0.0.1/mcp'}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let gateway = Gateway::start(&file).await;
    let refused = format!(
        "connection refused at 127.0.0.1:{closed}: nothing listens there; start the server, or correct the port"
    );
    let place = format!("{}:9: server \"misspelt\": ", file.display());
    let config = &gateway.status().await["config"];
    let said = |member: &str, words: &str| {
        config[member]
            .to_string()
            .replace('\\', "")
            .contains(&(place.clone() + words))
    };
    assert!(said("error", "url is missing"), "{config}");
    assert!(said("warnings", "unknown key \"urll\" ignored"), "{config}");
    for (server, expected) in [
        ("missing", "start no-such-program: no such program in PATH"),
        ("dies", "its process ended with exit status: 3"),
        ("nowhere", "cwd /no/such/folder is no folder"),
        ("closed", &refused),
        (
            "stranger",
            "unknown authority; give the authority as the server's caCert",
        ),
        ("second", "names taken by first"),
    ] {
        eventually(server, || async {
            let status = gateway.status().await;
            let servers = status["servers"].as_array().unwrap();
            let found = servers.iter().find(|entry| entry["name"] == server).unwrap();
            found["message"]
                .as_str()
                .unwrap()
                .contains(expected)
                .then_some(())
        })
        .await;
    }
    gateway.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reads_the_file_again_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(
        &file,
        "servers:\n- {name: a, command: '${GATEWAY_PROGRAM}', args: [example-server]}\n",
    )
    .unwrap();
    let mut gateway = Gateway::start_with_output(&file, Stdio::piped()).await;
    let client = gateway.client(&["add", "greet"]).await;
    signal("HUP", gateway.child.id().unwrap());
    let output = gateway.child.stdout.take().unwrap();
    let mut lines = tokio::io::BufReader::new(output).lines();
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("SIGHUP") {
                return;
            }
        }
        panic!("it ended");
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), told)
        .await
        .unwrap();
    assert_eq!(said(&client, "greet", json!({})).await, "Hello, world!");
    gateway.interrupt().await;
}

/// A server of 2024-11-05: one client, which hears every answer on its stream.
async fn older(events: broadcast::Sender<String>) -> u16 {
    async fn stream(State(events): State<Arc<broadcast::Sender<String>>>) -> axum::response::Response {
        let first = futures::stream::iter([Ok("event: endpoint\ndata: /messages?session=1\n\n".to_owned())]);
        let later = tokio_stream::wrappers::BroadcastStream::new(events.subscribe())
            .map(|text| text.map(|text| format!("event: message\ndata: {text}\n\n")));
        let mut response = axum::response::Response::new(axum::body::Body::from_stream(first.chain(later)));
        response
            .headers_mut()
            .insert("content-type", "text/event-stream".parse().unwrap());
        response
    }
    async fn message(
        State(events): State<Arc<broadcast::Sender<String>>>,
        body: String,
    ) -> axum::http::StatusCode {
        let message: Value = serde_json::from_str(&body).unwrap();
        let result = match message["method"].as_str() {
            Some("initialize") => {
                json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "o", "version": "1"}})
            }
            Some("tools/list") => json!({"tools": [{"name": "old", "inputSchema": {"type": "object"}}]}),
            Some("tools/call") => json!({"content": [{"type": "text", "text": "from the stream"}]}),
            _ => json!({}),
        };
        if message.get("id").is_some() {
            let _ = events.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string());
        }
        axum::http::StatusCode::ACCEPTED
    }
    let app = axum::Router::new()
        .route("/sse", get(stream))
        .route("/messages", post(message))
        .with_state(Arc::new(events));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async { axum::serve(listener, app).await });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_older_transport_is_called() {
    let port = older(broadcast::Sender::new(64)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = format!("servers:\n- {{name: o, url: 'http://127.0.0.1:{port}/sse', transport: sse}}\n");
    std::fs::write(&file, text).unwrap();
    let gateway = Gateway::start(&file).await;
    let client = gateway.client(&["old"]).await;
    assert_eq!(said(&client, "old", json!({})).await, "from the stream");
    gateway.interrupt().await;
}

/// A policy of a cluster with the key of the user's guide, beside its server.
fn manifests(rule: &str) -> String {
    format!(
        r#"apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {{name: hello, namespace: apps, annotations: {{mcp.kuadrant.io/url: "http://127.0.0.1:9/mcp"}}}}
spec: {{targetRef: {{name: hello}}, prefix: hello_}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: keys, namespace: apps}}
data: {{jwks.json: '{}'}}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPAuthPolicy
metadata: {{name: jwt, namespace: apps}}
spec:
  targetRefs: [{{name: gw}}]
  authentication: {{jwt: {{providers: [{{name: me, issuer: me, audiences: [me.com], jwks: {{configMapRef: {{name: keys}}}}}}]}}}}
  rules: [{{matches: [{{jwt: {{claim: sub, value: me}}}}], resource: {{kind: tool, name: "{rule}"}}}}]
"#,
        crate::access::JWK
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_among_manifests_is_enforced_and_a_bad_one_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    std::fs::write(&file, manifests("-/gateway:*")).unwrap();
    let port = free_port();
    let child = command(&file, port)
        .arg("--discovery-tools-enabled=true")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let gateway = Gateway { child, port };
    eventually("readiness", || async {
        let status = gateway.get("/readyz").await?;
        (status.0 == 200).then_some(())
    })
    .await;
    let mut stranger = Client::new(format!("http://127.0.0.1:{port}"));
    stranger.host = format!("localhost:{port}");
    assert_eq!(stranger.rpc("ping", json!({})).await.status, 401);
    let caller = stranger.with("authorization", format!("Bearer {}", crate::access::TOKEN));
    let caller = caller.initialized().await;
    let names = caller.tools().await;
    assert!(names.contains(&"discover_tools".to_owned()), "{names:?}");

    std::fs::write(&file, manifests("no-name")).unwrap();
    eventually("the error", || async {
        let error = gateway.status().await["config"]["error"].to_string();
        let named = error.contains("manifests.yaml:11: ") && error.contains("spec.rules[0].resource.name");
        named.then_some(())
    })
    .await;
    assert_eq!(
        caller.rpc("tools/list", json!({})).await.json()["result"]["tools"],
        json!([])
    );
    gateway.interrupt().await;
}
