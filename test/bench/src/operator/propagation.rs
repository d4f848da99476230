//! From a new registration to its tools in `tools/list` at every replica (issue C): two real brokers serve the first
//! namespace, each of which watches the config Secret as its pod would.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{Api, api::PostParams};
use mcp_gateway_api::registration::MCPServerRegistration;
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

use super::objects::{Scale, namespace, route_to};
use crate::{
    data_plane::{Connection, Program, free, listening, open, request},
    report::{Quantity, Row, Sample, Target},
};

/// Replicas of the broker.
const REPLICAS: usize = 2;
/// Tools of each server.
const TOOLS: usize = 5;
/// Longest wait for one registration.
const LIMIT: Duration = Duration::from_secs(30);
/// Key of the brokers: nothing else shares it.
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A broker, with a session of a client.
struct Replica {
    address: SocketAddr,
    session: String,
    connection: Connection,
    _program: Program,
}

/// Measures `count` registrations, one after the other.
///
/// # Errors
/// When a broker does not start or a registration is not served.
pub(crate) async fn run(kit: &Kit, scale: &Scale, count: usize) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let account = account(kit, folder.path())?;
    let mock = free()?;
    let words = [
        "mock",
        "--listen",
        &mock.to_string(),
        "--tools",
        &TOOLS.to_string(),
    ];
    let _mock = Program::own(folder.path(), "mock", &words.map(str::to_owned))?;
    listening(mock).await?;
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        replicas.push(replica(kit, folder.path(), &account, number).await?);
    }
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        route_to(scale, &namespace(0), &format!("p{number}"), mock).await?;
        let begun = Instant::now();
        register(scale, number).await?;
        let prefix = format!("\"p{number}_");
        let seen = replicas.iter_mut().map(|replica| listed(replica, &prefix));
        for served in futures::future::join_all(seen).await {
            served?;
        }
        times.push(begun.elapsed());
    }
    let sample = Sample::new(times);
    Ok(Row {
        what: format!("operator, new registration to tools/list at {REPLICAS} replicas: p99 of {count}"),
        values: sample.summary(),
        target: Some(Target::below(
            Quantity::Time(sample.percentile(99)),
            Quantity::Time(Duration::from_secs(2)),
        )),
    })
}

/// A folder as it is mounted into a pod: the token of the brokers' account, and the API server's authority.
fn account(kit: &Kit, folder: &Path) -> anyhow::Result<PathBuf> {
    let token = Command::new("kubectl")
        .args([
            "create",
            "token",
            "mcp-gateway",
            "-n",
            &namespace(0),
            "--duration=4h",
        ])
        .output()
        .context("kubectl")?;
    ensure!(
        token.status.success(),
        "{}",
        String::from_utf8_lossy(&token.stderr)
    );
    let account = folder.join("account");
    fs::create_dir(&account)?;
    fs::write(account.join("token"), token.stdout)?;
    let encoded = cluster(kit)?;
    let encoded = encoded
        .pointer("/certificate-authority-data")
        .and_then(Value::as_str);
    let authority = STANDARD.decode(encoded.context("the kubeconfig holds no authority")?)?;
    fs::write(account.join("ca.crt"), authority)?;
    Ok(account)
}

/// The cluster of the kit's kubeconfig.
fn cluster(kit: &Kit) -> anyhow::Result<Value> {
    let kubeconfig: Value = serde_json::from_str(&fs::read_to_string(kit.kubeconfig())?)?;
    let cluster = kubeconfig.pointer("/clusters/0/cluster");
    Ok(cluster.context("the kubeconfig names no cluster")?.clone())
}

async fn replica(kit: &Kit, folder: &Path, account: &Path, number: usize) -> anyhow::Result<Replica> {
    let address = free()?;
    let server = cluster(kit)?;
    let server = server.pointer("/server").and_then(Value::as_str);
    let flags = [
        "broker".to_owned(),
        format!("--api-server={}", server.context("no server in the kubeconfig")?),
        format!("--account={}", account.display()),
        "--".to_owned(),
        "--mcp-gateway-public-host=mcp.test".to_owned(),
        format!("--mcp-gateway-private-host={address}"),
        format!(
            "--mcp-gateway-config={}",
            folder.join("absent/config.yaml").display()
        ),
        format!("--mcp-gateway-config-secret={}/mcp-gateway-config", namespace(0)),
        format!("--mcp-broker-public-address={address}"),
        format!("--mcp-router-address={}", free()?),
        "--metrics-addr=127.0.0.1:0".to_owned(),
        format!("--gateway-signing-key={KEY}"),
        "--discovery-tools-enabled=false".to_owned(),
        "--data-path=direct".to_owned(),
    ];
    let program = Program::own(folder, &format!("broker-{number}"), &flags)?;
    listening(address).await?;
    let begin = async || {
        let mut connection = Connection::open(address)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let session = open(&mut connection, address, None).await;
        session
            .map(|session| (connection, session))
            .map_err(|error| format!("{error:#}"))
    };
    let (connection, session) = eventually(LIMIT, "a session of a broker", begin).await?;
    Ok(Replica {
        address,
        session,
        connection,
        _program: program,
    })
}

/// Waits until `tools/list` of a replica holds a name that begins so.
async fn listed(replica: &mut Replica, prefix: &str) -> anyhow::Result<()> {
    let shot = request(
        replica.address,
        &replica.session,
        None,
        ("tools/list", &json!({})),
    );
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = replica.connection.send(&shot).await?;
        if String::from_utf8_lossy(&answer.body).contains(prefix) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{prefix} is not listed: {}",
            String::from_utf8_lossy(&answer.body)
        );
        // A finer look would only take time from what is measured.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn register(scale: &Scale, number: usize) -> anyhow::Result<()> {
    let registration = serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPServerRegistration",
        "metadata": {"name": format!("p{number}"), "namespace": namespace(0)},
        "spec": {"targetRef": {"name": format!("p{number}")}, "prefix": format!("p{number}_"), "path": format!("/s/{number}/mcp")},
    }))?;
    let api: Api<MCPServerRegistration> = Api::namespaced(scale.client.clone(), &namespace(0));
    api.create(&PostParams::default(), &registration).await?;
    Ok(())
}
