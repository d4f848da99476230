//! Doors from the host into a kept sandbox: TCP ports outside, one Unix socket between, TCP again inside. A socket with a
//! path crosses network namespaces.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::debug;

use crate::control_plane::{API_PORT, NODE_ADDRESS, write_kubeconfig};
use crate::progress::say;
use crate::state_dir::StateDir;

/// Override the host's port for the first HTTP listener of the first Gateway; the first that is set counts.
const PORT_VARIABLES: [&str; 2] = ["GATEWAY_LOCAL_PORT_HTTP_MCP", "KIND_HOST_PORT_HTTP"];
/// The same for HTTPS listeners; unset, they come after the HTTP ones.
const TLS_PORT_VARIABLE: &str = "KIND_HOST_PORT_HTTPS";
const DEFAULT_PORT: u16 = 8888;
/// How many ports after the wanted one are tried.
const PORT_TRIES: u16 = 50;
const POLL: Duration = Duration::from_millis(300);

/// One listener port of a played Gateway, as written to `gateways.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) namespace: String,
    pub(crate) gateway: String,
    /// Host name inside the sandbox.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// It speaks HTTPS.
    pub(crate) tls: bool,
}

/// Inside: connects each caller to the `host:port` that its first line names.
pub(crate) async fn serve(state: StateDir) -> std::io::Result<()> {
    let listener = UnixListener::bind(state.forward_socket())?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = connect(stream).await {
                debug!(%error, "Forwarded connection ended");
            }
        });
    }
}

async fn connect(stream: UnixStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut target = String::new();
    stream.read_line(&mut target).await?;
    let mut inner = TcpStream::connect(target.trim()).await?;
    copy_bidirectional(&mut stream, &mut inner).await?;
    Ok(())
}

/// Outside: opens a port for the API server, writes the host's kubeconfig, and one port for each Gateway listener as they
/// come. Returns only when the API server's port cannot be opened.
pub(crate) async fn open_doors(state: StateDir) -> std::io::Result<()> {
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    write_kubeconfig(
        &state,
        &state.host_kubeconfig(),
        &format!("https://127.0.0.1:{}", api.local_addr()?.port()),
    )?;
    tokio::spawn(door(
        api,
        state.forward_socket(),
        format!("{NODE_ADDRESS}:{API_PORT}"),
    ));
    welcome(&state);
    open_listeners(&state).await
}

/// Outside: one port for each Gateway listener as they come. Returns only when a port that was opened has no address.
pub(crate) async fn open_listeners(state: &StateDir) -> std::io::Result<()> {
    let mut open: BTreeMap<Listener, u16> = BTreeMap::new();
    loop {
        for listener in listeners(state) {
            if open.contains_key(&listener) {
                continue;
            }
            let wanted = wanted_port(listener.tls, open.len());
            let Some(socket) = bind(wanted).await else {
                continue;
            };
            let port = socket.local_addr()?.port();
            if port != wanted {
                say(format!(
                    "kit: port {wanted} of this machine is in use; {} chooses another",
                    if listener.tls {
                        TLS_PORT_VARIABLE
                    } else {
                        PORT_VARIABLES[0]
                    }
                ));
            }
            say(format!(
                "kit: Gateway {}/{} port {} is at {}://127.0.0.1:{port}",
                listener.namespace,
                listener.gateway,
                listener.port,
                if listener.tls { "https" } else { "http" }
            ));
            let target = format!("{}:{}", listener.host, listener.port);
            tokio::spawn(door(socket, state.forward_socket(), target));
            open.insert(listener, port);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn welcome(state: &StateDir) {
    let dir = state.root().display();
    say(format!(
        "kit: the sandbox is up; from this machine: export KUBECONFIG={}",
        state.host_kubeconfig().display()
    ));
    say(format!("kit: commands inside: kit exec --dir {dir} -- COMMAND"));
    say(format!(
        "kit: logs: {dir}/logs; stop: Ctrl-C here or kit down --dir {dir}"
    ));
}

fn listeners(state: &StateDir) -> Vec<Listener> {
    let text = std::fs::read(state.gateways()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn wanted_port(tls: bool, open: usize) -> u16 {
    let named = |variable: &str| std::env::var(variable).ok()?.parse().ok();
    if let Some(port) = named(TLS_PORT_VARIABLE).filter(|_| tls) {
        return port;
    }
    let first: u16 = PORT_VARIABLES.into_iter().find_map(named).unwrap_or(DEFAULT_PORT);
    first.saturating_add(u16::try_from(open).unwrap_or(PORT_TRIES))
}

/// The wanted port, or the next free one.
async fn bind(wanted: u16) -> Option<TcpListener> {
    for port in wanted..wanted.saturating_add(PORT_TRIES) {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Some(listener);
        }
    }
    None
}

async fn door(listener: TcpListener, socket: PathBuf, target: String) {
    while let Ok((mut outer, _)) = listener.accept().await {
        let (socket, line) = (socket.clone(), format!("{target}\n"));
        tokio::spawn(async move {
            let Ok(mut inner) = UnixStream::connect(socket).await else {
                return;
            };
            if inner.write_all(line.as_bytes()).await.is_ok() {
                // The end of a connection is no news.
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn bytes_pass_both_ways_through_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
        });
        tokio::spawn(serve(state.clone()));
        crate::eventually(Duration::from_secs(5), "the socket", async || {
            if state.forward_socket().exists() {
                Ok(())
            } else {
                Err("not there".to_owned())
            }
        })
        .await
        .unwrap();
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = outside.local_addr().unwrap().port();
        tokio::spawn(door(outside, state.forward_socket(), target));
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut text = [0; 4];
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"pong");
    }

    #[tokio::test]
    async fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let next = bind(port).await.unwrap().local_addr().unwrap().port();
        assert!(next > port);
    }
}
