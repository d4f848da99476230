//! What a test inside the sandbox can do with it: find its files, break its parts, read what was written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::audit::{self, AuditMark, Request};
use crate::control_plane::{self, ControlPlaneError};
use crate::eventually::{Unmet, eventually};
use crate::gateways::child_name;
use crate::node::images::Image;
use crate::node::process::kill;
use crate::state_dir::StateDir;

/// Why something could not be done with the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// The process does not run inside `kit run`.
    #[error("MCPGW_KIT_DIR is not set: run inside `kit run -- COMMAND`")]
    Outside,
    /// No client.
    #[error("client: {0}")]
    Client(String),
    /// A file of the state directory.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// Nothing with this name runs.
    #[error("no process runs as {0}")]
    NotRunning(String),
    /// Something did not happen in time.
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

/// A part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The database.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The controllers.
    KubeControllerManager,
    /// Istio's control plane.
    Istiod,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Istiod => "istiod",
        }
    }
}

/// A component that stays dead until this is dropped.
#[derive(Debug)]
pub struct Stopped {
    hold: PathBuf,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The sandbox may be gone already; then nothing waits for the file.
        let _ = std::fs::remove_file(&self.hold);
    }
}

/// The sandbox that this process runs in.
#[derive(Debug, Clone)]
pub struct Kit {
    state: StateDir,
}

impl Kit {
    /// The sandbox of the environment (`MCPGW_KIT_DIR`, which `kit run` and `kit exec` set).
    ///
    /// # Errors
    /// [`KitError::Outside`] when the variable is missing.
    pub fn from_env() -> Result<Self, KitError> {
        let dir = std::env::var_os("MCPGW_KIT_DIR").ok_or(KitError::Outside)?;
        Ok(Self {
            state: StateDir::new(PathBuf::from(dir)),
        })
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.state.root()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.kubeconfig()
    }

    /// An administrator's client. Installs the ring crypto provider when no other is.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<kube::Client, KitError> {
        // Two providers may be compiled in; whoever comes first has chosen this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = control_plane::client(&self.state.kubeconfig()).await;
        client.map_err(|error: ControlPlaneError| KitError::Client(error.to_string()))
    }

    /// The log of a component.
    #[must_use]
    pub fn component_log(&self, component: Component) -> PathBuf {
        self.state.log(component.name())
    }

    /// The log of a container; restarts append to it.
    #[must_use]
    pub fn pod_log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.state.pod_log(namespace, pod, container)
    }

    /// The process of a container, numbered as inside the sandbox.
    ///
    /// # Errors
    /// When it does not run.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<i32, KitError> {
        read_pid(&self.state.container_pid_file(namespace, pod, container))
            .ok_or_else(|| KitError::NotRunning(format!("{namespace}/{pod}/{container}")))
    }

    /// `kill -9` to a container's process. The node starts it again, as its restart policy says.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) -> Result<(), KitError> {
        kill(self.container_pid(namespace, pod, container)?, Signal::KILL);
        Ok(())
    }

    /// Freezes a container's process (SIGSTOP): it is there and answers nothing. [`Kit::thaw_container`] undoes it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze_container(&self, namespace: &str, pod: &str, container: &str) -> Result<(), KitError> {
        kill(self.container_pid(namespace, pod, container)?, Signal::STOP);
        Ok(())
    }

    /// Lets a frozen container go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw_container(&self, namespace: &str, pod: &str, container: &str) -> Result<(), KitError> {
        kill(self.container_pid(namespace, pod, container)?, Signal::CONT);
        Ok(())
    }

    /// `kill -9` to a component; it is started again within half a second.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_component(&self, component: Component) -> Result<(), KitError> {
        let pid = read_pid(&self.state.pid_file(component.name()));
        kill(
            pid.ok_or_else(|| KitError::NotRunning(component.name().to_owned()))?,
            Signal::KILL,
        );
        Ok(())
    }

    /// Kills a component and keeps it dead until the returned value is dropped.
    ///
    /// # Errors
    /// When it does not run, or does not die within 5 s.
    pub async fn stop_component(&self, component: Component) -> Result<Stopped, KitError> {
        let hold = self.state.hold_file(component.name());
        std::fs::write(&hold, "").map_err(io(&hold))?;
        let stopped = Stopped { hold };
        self.kill_component(component)?;
        let pid_file = self.state.pid_file(component.name());
        eventually(Duration::from_secs(5), "the component to be dead", async || {
            if pid_file.exists() {
                Err("its pid file is there".to_owned())
            } else {
                Ok(())
            }
        })
        .await?;
        Ok(stopped)
    }

    /// Where the audit log ends now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit_mark(&self) -> Result<AuditMark, KitError> {
        let log = self.state.audit_log();
        audit::mark(&log).map_err(io(&log))
    }

    /// All writes since `mark`, whoever sent them, in the order in which they were answered.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes_since(&self, mark: AuditMark) -> Result<Vec<Request>, KitError> {
        let mut requests = self.requests_since(mark)?;
        requests.retain(Request::is_write);
        Ok(requests)
    }

    /// All writes since `mark`, and the reads of service accounts outside `kube-system`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests_since(&self, mark: AuditMark) -> Result<Vec<Request>, KitError> {
        let log = self.state.audit_log();
        audit::since(&log, mark).map_err(io(&log))
    }

    /// Adds a line to the hosts file of the sandbox and of every pod, and waits until it is there.
    ///
    /// # Errors
    /// When it is not there within 5 s.
    pub async fn add_host(&self, address: &str, name: &str) -> Result<(), KitError> {
        let file = self.state.hosts_extra().join(name);
        let line = format!("{address} {name}\n");
        std::fs::write(&file, &line).map_err(io(&file))?;
        let hosts = self.state.hosts();
        eventually(
            Duration::from_secs(5),
            "the hosts file to have the new line",
            async || {
                let text = std::fs::read_to_string(&hosts).map_err(|error| error.to_string())?;
                if text.contains(&line) { Ok(()) } else { Err(text) }
            },
        )
        .await?;
        Ok(())
    }

    /// From now on a changed Secret or ConfigMap takes this long to reach running pods' volumes. A kubelet takes up to a
    /// minute or more; the kit takes none unless told.
    ///
    /// # Errors
    /// When the state directory cannot be written.
    pub fn delay_volumes(&self, delay: Duration) -> Result<(), KitError> {
        let file = self.state.volume_delay();
        std::fs::write(&file, delay.as_millis().to_string()).map_err(io(&file))
    }

    /// Adds an image to the node's table, or replaces it: by repository (any tag and digest) or by one whole reference.
    ///
    /// # Errors
    /// When the table's file cannot be read or written.
    pub fn add_image(&self, name: &str, image: &Image) -> Result<(), KitError> {
        let file = self.state.images();
        let text = std::fs::read(&file).unwrap_or_else(|_| b"{}".to_vec());
        let write = || -> std::io::Result<()> {
            let mut table: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)?;
            table.insert(name.to_owned(), serde_json::to_value(image)?);
            std::fs::write(&file, serde_json::to_vec(&table)?)
        };
        write().map_err(io(&file))
    }

    /// The URL of a Gateway's listener, by the name of its Service.
    #[must_use]
    pub fn gateway_url(&self, namespace: &str, gateway: &str, class: &str, port: u16) -> String {
        format!(
            "http://{}.{namespace}.svc.cluster.local:{port}",
            child_name(gateway, class)
        )
    }
}

fn read_pid(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KitError {
    let path = path.to_owned();
    move |source| KitError::Io { path, source }
}
