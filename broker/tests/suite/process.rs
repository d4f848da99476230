//! The binary as a process (data-plane.md 2; D2, D3).

use crate::fixture::Server;
use crate::standalone::{Gateway, lives, signal};
use crate::world::{KEY, config, entry, eventually, free_port};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

const BINARY: &str = env!("CARGO_BIN_EXE_mcp-gateway-broker");

#[tokio::test]
async fn d2_a_bad_flag_ends_the_start_with_2_and_one_line() {
    for (flag, expected) in [
        ("--mcp-router-key=x", "--mcp-router-key was removed"),
        ("--nonsense", "unknown flag --nonsense"),
        ("--log-level=loud", "--log-level"),
    ] {
        let output = Command::new(BINARY).arg(flag).output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(expected) && text.trim_end().lines().count() == 1,
            "{text}"
        );
    }
    let version = Command::new(BINARY).arg("--version").output().await.unwrap();
    assert!(version.status.success());
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_at_level_4_warnings_and_errors_are_logged_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "servers: []\nnonsense: 1\n").unwrap();
    let mut lines = Vec::new();
    for level in ["4", "0"] {
        let mut child = Command::new(BINARY)
            .args(["run", "--config"])
            .arg(&file)
            .args(["--mcp-broker-public-address=127.0.0.1:0", "--metrics-addr="])
            .arg(format!("--log-level={level}"))
            .args(["--log-format=json"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = child.stdout.take().unwrap();
        let mut bytes = Vec::new();
        let read = async {
            // The key that nobody knows is a warning; it comes after what the start says.
            while !String::from_utf8_lossy(&bytes).contains("nonsense") {
                assert!(said.read_buf(&mut bytes).await.unwrap() > 0);
            }
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
        assert!(read.is_ok(), "it does not speak of the key");
        signal("TERM", child.id().unwrap());
        said.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let level = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["level"].as_str().unwrap().to_owned()
        };
        lines.push(text.lines().map(level).collect::<Vec<_>>());
    }
    let low = |level: &String| !matches!(level.as_str(), "WARN" | "ERROR");
    assert!(!lines[0].iter().any(low), "{lines:?}");
    assert!(lines[1].iter().any(low), "{lines:?}");
}

struct Process {
    child: Child,
    admin: u16,
    broker: u16,
    _folder: tempfile::TempDir,
}

async fn start(text: &str) -> Process {
    start_with(text, &[]).await
}

/// A process with these variables.
async fn start_with(text: &str, variables: &[(&str, &str)]) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let (broker, router, admin) = (free_port(), free_port(), free_port());
    let child = Command::new(BINARY)
        .arg("--mcp-gateway-public-host=mcp.test")
        .arg(format!("--mcp-gateway-config={}", file.display()))
        .arg(format!("--mcp-broker-public-address=127.0.0.1:{broker}"))
        .arg(format!("--mcp-router-address=127.0.0.1:{router}"))
        .arg(format!("--metrics-addr=127.0.0.1:{admin}"))
        .args(["--log-format=json", "--log-level=-4"])
        .env("GATEWAY_SIGNING_KEY", KEY)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let process = Process {
        child,
        admin,
        broker,
        _folder: folder,
    };
    eventually("readiness", || async {
        status(&process, "/readyz")
            .await
            .filter(|code| *code == 200)
            .map(drop)
    })
    .await;
    process
}

async fn status(process: &Process, path: &str) -> Option<u16> {
    reqwest::get(format!("http://127.0.0.1:{}{path}", process.admin))
        .await
        .ok()
        .map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d3_a_signal_turns_readiness_off_serves_on_and_ends_in_time() {
    mcp_gateway_broker::transport::client::install_crypto();
    let (collector, spans) = collector().await;
    // By itself it would send its spans in ten minutes.
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ];
    let mut process = start_with("servers: []\n", &variables).await;
    let pid = process.child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    eventually("readiness off", || async {
        (status(&process, "/readyz").await == Some(503)).then_some(())
    })
    .await;
    let client = crate::client::Client::new(format!("http://127.0.0.1:{}", process.broker));
    client.initialized().await;
    let code = tokio::time::timeout(std::time::Duration::from_secs(25), process.child.wait())
        .await
        .expect("not within 25 s")
        .unwrap();
    assert!(code.success());
    let spans = spans.lock().unwrap();
    let name = b"mcp-broker.handle-request";
    let last = spans.windows(name.len()).any(|part| part == name);
    assert!(last, "what was served while draining is not in the telemetry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_of_a_call_are_its_parts_in_the_clients_trace_and_hold_no_secret() {
    let one = Server::start("one", &["forecast"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, config(&[entry(&one, "one_")])).unwrap();
    let (collector, spans) = collector().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ];
    let mut gateway = Gateway::start_with(&file, (Stdio::null(), &variables)).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let client = gateway
        .client(&["one_forecast"])
        .await
        .with("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .with("authorization", "Bearer hunter2");
    let params = serde_json::json!({"name": "one_forecast", "arguments": {"password": "hunter3"}});
    assert_eq!(client.rpc("tools/call", params).await.status, 200);
    let parent = one.calls("tools/call")[0]
        .header("traceparent")
        .unwrap()
        .to_owned();
    assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    signal("TERM", gateway.child.id().unwrap());
    assert!(gateway.child.wait().await.unwrap().success());
    let spans = spans.lock().unwrap();
    let has = |part: &[u8]| spans.windows(part.len()).any(|window| window == part);
    for name in [
        "mcp-router.process",
        "mcp-router.route-decision",
        "mcp-router.session-cache.get",
        "mcp-router.session-init",
        "mcp-router.tool-call",
        "mcp-front.forward",
        "mcp-broker.handle-request",
        "mcp-broker.tools-list",
        "mcp-broker.upstream-manage",
        "execute_tool",
        "jti:",
    ] {
        assert!(has(name.as_bytes()), "{name} is missing");
    }
    // The server's own span hangs below the one of the call that was carried.
    let last = parent.split('-').nth(2).unwrap();
    assert!(has(&hex::decode(trace).unwrap()) && has(&hex::decode(last).unwrap()));
    for secret in ["hunter2", "hunter3", client.session.as_deref().unwrap()] {
        assert!(!has(secret.as_bytes()), "{secret}");
    }
}

/// A collector of traces: its URL, and everything that it got.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let spans = Arc::<Mutex<Vec<u8>>>::default();
    let got = Arc::clone(&spans);
    let take = move |body: axum::body::Bytes| async move { got.lock().unwrap().extend_from_slice(&body) };
    let app = axum::Router::new().route("/v1/traces", axum::routing::post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, spans)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d3_a_call_in_flight_finishes_after_the_listener_is_gone() {
    let one = Server::start("one", &["slow"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, config(&[entry(&one, "")])).unwrap();
    let mut gateway = Gateway::start(&file).await;
    let client = gateway.client(&["slow"]).await;
    // Longer than it serves on (5 s), shorter than what is in flight may take after that (12 s).
    one.call_delay_ms.store(8000, Ordering::Relaxed);
    let call = tokio::spawn(async move { client.call("slow").await });
    eventually("the call at its server", || async {
        (!one.calls("tools/call").is_empty()).then_some(())
    })
    .await;
    signal("TERM", gateway.child.id().unwrap());
    eventually("no listener", || async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gateway.port)).await;
        (stream.is_err() || call.is_finished()).then_some(())
    })
    .await;
    let reply = call.await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["result"]["content"][0]["text"], "one");
    assert!(gateway.child.wait().await.unwrap().success());
}

/// A window: what runs in it has a terminal of its own, which is closed when this program ends. It says the number of the
/// process, then what that prints.
const WINDOW: &str = "
import os, pty, sys, threading
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.argv[1], sys.argv[1:])
print(process, flush=True)
def show():
    while True:
        os.write(1, os.read(terminal, 65536))
threading.Thread(target=show, daemon=True).start()
sys.stdin.read()
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_ends_with_its_terminal_and_not_by_the_signal_alone() {
    use tokio::io::AsyncBufReadExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "servers: []\n").unwrap();
    let mut window = Command::new("python3")
        .args(["-c", WINDOW, BINARY, "run", "--config"])
        .arg(&file)
        .arg(format!("--mcp-broker-public-address=127.0.0.1:{}", free_port()))
        .arg("--metrics-addr=")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(window.stdout.take().unwrap()).lines();
    let process: u32 = lines.next_line().await.unwrap().unwrap().parse().unwrap();
    let mut said = async |part: &str| {
        let told = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(part) {
                    return;
                }
            }
            panic!("it ended before it said: {part}");
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), told).await;
        waited.unwrap_or_else(|_| panic!("it does not say: {part}"));
    };
    said("Broker listens").await;
    for _ in 0..2 {
        signal("HUP", process);
        said("SIGHUP: the config is read again").await;
    }
    drop(window.stdin.take());
    assert!(window.wait().await.unwrap().success());
    eventually("the end of the gateway", || async {
        (!lives(process)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once_with_130() {
    mcp_gateway_broker::transport::client::install_crypto();
    let mut process = start("servers: []\n").await;
    let pid = process.child.id().unwrap().to_string();
    for _ in 0..2 {
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        eventually("draining", || async {
            (status(&process, "/readyz").await != Some(200)).then_some(())
        })
        .await;
    }
    let code = tokio::time::timeout(std::time::Duration::from_secs(3), process.child.wait())
        .await
        .expect("not at once")
        .unwrap();
    assert_eq!(code.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_logs_at_debug_hold_no_secret_and_local_addresses_are_refused() {
    mcp_gateway_broker::transport::client::install_crypto();
    let one = Server::start("one", &["forecast"]).await;
    let text = config(&[entry(&one, "").replace("}\n", ", credential: 'Bearer hunter2'}\n")]);
    let mut process = start(&text).await;
    let client = crate::client::Client::new(format!("http://127.0.0.1:{}", process.broker))
        .initialized()
        .await;
    client.tools().await;
    let status: serde_json::Value = reqwest::get(format!("http://127.0.0.1:{}/status", process.admin))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        status["servers"][0]["message"]
            .as_str()
            .unwrap()
            .ends_with("address not allowed"),
        "{status}"
    );
    assert!(
        one.seen.lock().unwrap().is_empty(),
        "loopback is no MCP server in Envoy mode"
    );
    let mut output = process.child.stdout.take().unwrap();
    let mut log = Vec::new();
    // Lines are written a moment after what they tell of.
    let told = async {
        while !String::from_utf8_lossy(&log).contains("Session made") {
            let read = output.read_buf(&mut log).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&log));
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(10), told).await;
    process.child.start_kill().unwrap();
    output.read_to_end(&mut log).await.unwrap();
    let log = String::from_utf8(log).unwrap();
    assert!(told.is_ok(), "{log}");
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
    assert!(
        log.contains("Config applied") && log.contains("Session made"),
        "{log}"
    );
    for secret in ["hunter2", KEY, client.session.as_deref().unwrap()] {
        assert!(!log.contains(secret), "{log}");
    }
}
