//! The layout of a sandbox's state directory: the one place that names its files.

use std::path::{Path, PathBuf};

/// The directory in which one sandbox keeps everything: logs, sockets, pod volumes, certificates, databases.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Names the directory; creates nothing.
    #[must_use]
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates the directory and its fixed parts.
    ///
    /// # Errors
    /// When a directory cannot be created.
    pub(crate) fn create(&self) -> std::io::Result<()> {
        for dir in [
            self.pod_logs(),
            self.run(),
            self.pods(),
            self.pki(),
            self.hosts_extra(),
            self.bin(),
        ] {
            std::fs::create_dir_all(dir)?;
        }
        Ok(())
    }

    /// The directory itself.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The administrator's kubeconfig for use inside the sandbox.
    #[must_use]
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The administrator's kubeconfig for use from the host (a kept sandbox only).
    #[must_use]
    pub(crate) fn host_kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig.host")
    }

    /// The log of a component, e.g. `istiod`.
    #[must_use]
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.root.join("logs").join(format!("{component}.log"))
    }

    /// The directory of the containers' logs.
    #[must_use]
    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.root.join("logs/pods")
    }

    /// The log of a container; restarts append to it.
    #[must_use]
    pub(crate) fn pod_log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.pod_logs().join(format!("{namespace}_{pod}_{container}.log"))
    }

    /// The directory of process ids.
    #[must_use]
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The process id (inside the sandbox) of a component.
    #[must_use]
    pub(crate) fn pid_file(&self, component: &str) -> PathBuf {
        self.run().join(format!("{component}.pid"))
    }

    /// While this file exists, the supervisor does not start the component again.
    #[must_use]
    pub(crate) fn hold_file(&self, component: &str) -> PathBuf {
        self.run().join(format!("{component}.hold"))
    }

    /// The process id (inside the sandbox) of a container.
    #[must_use]
    pub(crate) fn container_pid_file(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.run().join(format!("{namespace}_{pod}_{container}.pid"))
    }

    /// The directory of the pods' volumes.
    #[must_use]
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Keys and certificates of the control plane.
    #[must_use]
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The kit's own program, linked here so that a rebuild does not pull it away from under a running sandbox.
    #[must_use]
    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The hosts file that every pod sees as `/etc/hosts`.
    #[must_use]
    pub(crate) fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    /// Extra hosts entries: every file here is appended to the hosts file.
    #[must_use]
    pub(crate) fn hosts_extra(&self) -> PathBuf {
        self.root.join("hosts.d")
    }

    /// Additions to the table of images, re-read on every use.
    #[must_use]
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images.json")
    }

    /// The API server's audit log: one JSON record a line.
    #[must_use]
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.root.join("logs/audit.log")
    }

    /// The forwarding socket of a sandbox: a path crosses network namespaces.
    #[must_use]
    pub(crate) fn forward_socket(&self) -> PathBuf {
        self.root.join("forward.sock")
    }

    /// The socket that ties the inner life of a sandbox to the process outside.
    #[must_use]
    pub(crate) fn life_socket(&self) -> PathBuf {
        self.root.join("life.sock")
    }

    /// The listeners of the played Gateways, for the forwarding outside.
    #[must_use]
    pub(crate) fn gateways(&self) -> PathBuf {
        self.root.join("gateways.json")
    }

    /// The process ids (host's view) of a running sandbox.
    #[must_use]
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.root.join("sandbox.json")
    }

    /// Milliseconds that a changed Secret takes to reach volumes; missing: none. A kubelet takes up to a minute.
    #[must_use]
    pub(crate) fn volume_delay(&self) -> PathBuf {
        self.root.join("volume-delay-ms")
    }

    /// Where the foreign programs are, for the inner process.
    #[must_use]
    pub(crate) fn binaries(&self) -> PathBuf {
        self.root.join("binaries.json")
    }

    /// Exists once the sandbox is booted.
    #[must_use]
    pub(crate) fn ready(&self) -> PathBuf {
        self.root.join("ready")
    }
}
