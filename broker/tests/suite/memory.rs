//! What clients cost that read slowly, send slowly, or go away, in the resident memory of a process (S23), and that they are
//! gone after their deadline. How much was measured is beside each bound; debug builds, mimalloc.

use crate::client::Client;
use crate::client_streams::listening;
use crate::fixture::Server;
use crate::world::{config, entry, eventually_within, is_direct};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

const MIB: u64 = 1024 * 1024;
/// What the allocator may keep of what was given back to it, and what requests leave behind: tables, idle buffers.
const SLACK: u64 = 48 * MIB;

/// A gateway in a process of its own, which forwards calls itself.
struct Gateway {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Gateway {
    async fn start(config: &str, flags: &[&str]) -> Self {
        mcp_gateway_broker::transport::client::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-gateway-broker"))
            .args(["run", "--config"])
            .arg(&file)
            .args(["--mcp-broker-public-address=127.0.0.1:0", "--metrics-addr="])
            .args(flags)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let address = line.split(' ').find_map(|word| word.strip_prefix("address="));
                if let (true, Some(address)) = (line.contains("Broker listens"), address) {
                    return address.to_owned();
                }
            }
            panic!("it ended before it listened");
        };
        let address = tokio::time::timeout(Duration::from_secs(20), told).await;
        // What it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            address: address.expect("it does not say where it listens"),
            _folder: folder,
        }
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id().unwrap()).into()
    }

    /// Resident memory, bytes.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Connections of clients that it holds; with `ports` those from these ports only. What the kernel still has of one that
    /// was closed belongs to nobody.
    fn connections(&self, ports: Option<&[u16]>) -> usize {
        let (_, own) = self.address.split_once(':').unwrap();
        let own: u16 = own.parse().unwrap();
        let port = |address: &str| u16::from_str_radix(address.split_once(':').unwrap().1, 16).unwrap();
        let table = std::fs::read_to_string(self.proc("net/tcp")).unwrap();
        let is_held = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, remote, inode) = (port(fields[1]), port(fields[2]), fields[9]);
            let counts = ports.map_or(remote != 0, |ports| ports.contains(&remote));
            local == own && counts && inode != "0"
        };
        table.lines().skip(1).filter(is_held).count()
    }

    async fn status(&self) -> Value {
        let status = reqwest::get(format!("http://{}/status", self.address))
            .await
            .unwrap();
        status.json().await.unwrap()
    }

    fn client(&self) -> Client {
        let mut client = Client::new(format!("http://{}", self.address));
        client.host.clone_from(&self.address);
        client
    }

    /// A client with a session, once the gateway serves these tools.
    async fn serving(&self, tools: &[&str]) -> Client {
        let client = self.client().initialized().await;
        eventually_within(Duration::from_secs(20), "the tools", async || {
            (client.tools().await == tools).then_some(())
        })
        .await;
        client
    }

    /// A connection that takes little of what is sent to it, with this begun request on it.
    async fn begun(&self, head: &str, body: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.address.parse().unwrap()).await.unwrap();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n{head}",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream
    }

    /// The most memory that it has until it has let go of these clients, of all without `ports`.
    async fn peak_until_gone(&self, ports: Option<&[u16]>) -> u64 {
        let peak = AtomicU64::new(0);
        eventually_within(Duration::from_secs(90), "the clients are gone", || async {
            peak.fetch_max(self.resident(), Ordering::Relaxed);
            (self.connections(ports) == 0).then_some(())
        })
        .await;
        peak.into_inner()
    }

    /// Waits until it has at most [`SLACK`] more memory than before.
    async fn back_to(&self, before: u64) {
        eventually_within(Duration::from_secs(20), "the memory is given back", async || {
            (self.resident() <= before + SLACK).then_some(())
        })
        .await;
    }
}

fn ports(streams: &[TcpStream]) -> Vec<u16> {
    let port = |stream: &TcpStream| stream.local_addr().unwrap().port();
    streams.iter().map(port).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_clients_that_read_slowly_cost_what_fits_into_their_connections() {
    if is_direct() {
        return; // Both runs of the suite would do the same.
    }
    const READERS: u64 = 16;
    const RESULT: usize = 12 * MIB as usize;
    let one = Server::start("one", &["large"]).await;
    let result = json!({"content": [{"type": "text", "text": "x".repeat(RESULT)}]});
    one.results
        .lock()
        .unwrap()
        .insert("tools/call".to_owned(), result);
    let gateway = Gateway::start(
        &config(&[entry(&one, "")]),
        &["--mcp-broker-write-timeout=8", "--discovery-tools-enabled=false"],
    )
    .await;
    let client = gateway.serving(&["large"]).await;
    assert!(
        client.call("large").await.text.len() > RESULT,
        "whoever reads gets all of it"
    );
    let before = gateway.resident();
    let call =
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "large"}}).to_string();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let session = client.session.as_deref().unwrap();
        let head = format!(
            "mcp-session-id: {session}\r\ncontent-length: {}\r\n\r\n",
            call.len()
        );
        let mut stream = gateway.begun(&head, call.as_bytes()).await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        readers.push(stream);
    }
    let peak = gateway.peak_until_gone(Some(&ports(&readers))).await;
    let grown = peak.saturating_sub(before);
    // 4 MiB were measured; all results would be 192.
    assert!(grown < READERS * RESULT as u64 / 3, "{} MiB", grown / MIB);
    gateway.back_to(before).await;
    for mut reader in readers {
        // What the kernel had taken is still there; whether it ends with a reset or not is the kernel's.
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(rest.len() < RESULT, "nobody waited for the reader");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_clients_that_send_slowly_cost_what_they_have_sent_and_are_gone_after_the_deadline() {
    if is_direct() {
        return;
    }
    const SENDERS: u64 = 40;
    const SENT: u64 = 4 * MIB;
    let gateway = Gateway::start("servers: []\n", &[]).await;
    gateway.client().initialized().await;
    let before = gateway.resident();
    let mut senders = Vec::new();
    let body = vec![b' '; SENT as usize];
    for _ in 0..SENDERS {
        let head = format!("content-length: {}\r\n\r\n", SENT + 1);
        senders.push(gateway.begun(&head, &body).await);
        for _ in 0..4 {
            senders.push(gateway.begun("x-more", b"").await);
        }
    }
    let peak = gateway.peak_until_gone(Some(&ports(&senders))).await;
    let grown = peak.saturating_sub(before);
    assert!(
        grown > SENDERS * SENT / 2,
        "what is measured is their memory: {} MiB",
        grown / MIB
    );
    // 168 MiB were measured, of 160 that were sent.
    assert!(grown < 3 * SENDERS * SENT, "{} MiB", grown / MIB);
    gateway.back_to(before).await;
    drop(senders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_five_thousand_sessions_whose_clients_go_away_leave_nothing() {
    if is_direct() {
        return;
    }
    let one = Server::start("one", &["forecast"]).await;
    let flags = ["--session-length=10s", "--discovery-tools-enabled=true"];
    let gateway = Gateway::start(&config(&[entry(&one, "")]), &flags).await;
    gateway
        .serving(&["discover_tools", "forecast", "select_tools"])
        .await;
    let before = gateway.resident();
    let fresh = gateway.client();
    let session = |number: usize| {
        let client = fresh.clone();
        async move {
            let client = client.initialized().await;
            let scope = json!({"name": "select_tools", "arguments": {"tools": ["forecast"]}});
            assert_eq!(client.rpc("tools/call", scope).await.status, 200);
            if number.is_multiple_of(50) {
                // A stream that nobody reads, and that breaks with its client.
                assert_eq!(listening(&client, None).await.status(), 200);
            }
        }
    };
    let sessions = futures::stream::iter(0..5000).map(session);
    sessions.buffer_unordered(64).collect::<Vec<()>>().await;
    let remembered = async || gateway.status().await["scopedSessions"].as_u64().unwrap();
    assert!(remembered().await > 0);
    let grown = gateway.resident().saturating_sub(before);
    // 3 MiB were measured, of which some may have expired already.
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    drop(fresh);
    // What has expired is looked for twice a minute.
    eventually_within(Duration::from_secs(60), "nothing is remembered", async || {
        (remembered().await == 0).then_some(())
    })
    .await;
    gateway.peak_until_gone(None).await;
    gateway.back_to(before).await;
}
