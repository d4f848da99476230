//! Pod addresses and the pod network: one network namespace per pod, joined to the node by a virtual pair and host routes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::control_plane::NODE_ADDRESS;

/// Why a pod has no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// All documentation addresses are in use.
    #[error("no pod address left: the node plays at most {POOL_SIZE} pods")]
    Exhausted,
    /// The process that holds the network namespace could not be started.
    #[error("start the pod's network namespace: {0}")]
    Holder(#[source] std::io::Error),
    /// A call of `ip` failed.
    #[error("ip {what}: {message}")]
    Ip {
        /// What was to be configured.
        what: &'static str,
        /// What `ip` said.
        message: String,
    },
}

/// The three documentation ranges, less network and broadcast addresses and the node's own.
const RANGES: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
const POOL_SIZE: usize = 3 * 254 - 1;

/// Gives out pod addresses and takes them back.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressPool {
    used: Arc<Mutex<BTreeSet<Ipv4Addr>>>,
}

impl AddressPool {
    fn candidates() -> impl Iterator<Item = Ipv4Addr> {
        RANGES
            .into_iter()
            .flat_map(|[a, b, c]| (1..=254).map(move |d| Ipv4Addr::new(a, b, c, d)))
            .filter(|address| address.to_string() != NODE_ADDRESS)
    }

    /// The lowest free address.
    pub(crate) fn take(&self) -> Result<Lease, NetworkError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = Self::candidates()
            .find(|address| !used.contains(address))
            .ok_or(NetworkError::Exhausted)?;
        used.insert(free);
        Ok(Lease {
            address: free,
            pool: self.clone(),
        })
    }
}

/// An address in use; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pool: AddressPool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.address);
    }
}

/// A pod's network namespace, alive as long as this value.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    pub(crate) lease: Lease,
    holder: Child,
    /// Process id of the process that holds the namespace.
    pub(crate) pid: u32,
}

impl PodNetwork {
    /// Makes the namespace, gives it its address and joins it to the node.
    pub(crate) async fn create(pool: &AddressPool) -> Result<Self, NetworkError> {
        let lease = pool.take()?;
        let (holder, pid) = start_holder().await.map_err(NetworkError::Holder)?;
        let address = lease.address;
        // Named after the process: unique among the living pods.
        let link = format!("veth{pid}");
        let node_side = format!(
            "link add {link} type veth peer name eth0 netns {pid}\nlink set {link} up\n\
             route add {address}/32 dev {link} src {NODE_ADDRESS}\n"
        );
        let pod_side = format!(
            "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\n\
             route add {NODE_ADDRESS} dev eth0\nroute add default via {NODE_ADDRESS}\n"
        );
        ip_batch("on the node's side", &["ip", "-batch", "-"], &node_side).await?;
        let net = format!("--net=/proc/{pid}/ns/net");
        ip_batch(
            "on the pod's side",
            &["nsenter", &net, "ip", "-batch", "-"],
            &pod_side,
        )
        .await?;
        Ok(Self { lease, holder, pid })
    }

    /// Ends every process that still lives in the namespace, and the namespace with them.
    pub(crate) async fn destroy(mut self) {
        let Ok(ours) = std::fs::read_link(format!("/proc/{}/ns/net", self.pid)) else {
            return;
        };
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            if std::fs::read_link(entry.path().join("ns/net")).is_ok_and(|theirs| theirs == ours) {
                super::process::kill(pid, rustix::process::Signal::KILL);
            }
        }
        // Waited for, so that the address is free only when nobody answers at it.
        let _ = self.holder.wait().await;
    }
}

/// `cat` in a new network namespace: it echoes once it is there, and ends with the pipe.
async fn start_holder() -> std::io::Result<(Child, u32)> {
    let mut holder = Command::new("unshare")
        .args(["--net", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut echo = [0];
    if let Some(stdin) = holder.stdin.as_mut() {
        stdin.write_all(b"x").await?;
        stdin.flush().await?;
    }
    if let Some(stdout) = holder.stdout.as_mut() {
        stdout.read_exact(&mut echo).await?;
    }
    let pid = holder
        .id()
        .ok_or_else(|| std::io::Error::other("the holder died at once"))?;
    Ok((holder, pid))
}

/// Feeds `commands` to `program`, which must be some form of `ip -batch -`.
pub(crate) async fn ip_batch(
    what: &'static str,
    program: &[&str],
    commands: &str,
) -> Result<(), NetworkError> {
    let failed = |message: String| NetworkError::Ip { what, message };
    let (name, args) = program
        .split_first()
        .ok_or_else(|| failed("no program".to_owned()))?;
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(commands.as_bytes())
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_addresses_are_used_again_and_the_nodes_is_never_given_out() {
        let pool = AddressPool::default();
        let first = pool.take().unwrap();
        assert_eq!(first.address.to_string(), "192.0.2.2");
        let second = pool.take().unwrap();
        drop(first);
        assert_eq!(pool.take().unwrap().address.to_string(), "192.0.2.2");
        drop(second);
    }

    #[test]
    fn the_pool_ends_with_an_error() {
        let pool = AddressPool::default();
        let leases: Vec<_> = (0..POOL_SIZE).map(|_| pool.take().unwrap()).collect();
        assert!(matches!(pool.take(), Err(NetworkError::Exhausted)));
        assert_eq!(leases.last().unwrap().address.to_string(), "203.0.113.254");
    }
}
