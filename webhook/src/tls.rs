//! The serving pair: found in a directory or in a Secret, checked, swapped atomically when its content changes. A pair that does not
//! parse or whose halves do not belong together is never served; the old one stays.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use axum_server::tls_rustls::RustlsConfig;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

pub(crate) mod secret;

/// The directories into which OLM mounts the pair, in this order (olm.md 1.7).
pub const OLM_DIRS: [&str; 2] = [
    "/tmp/k8s-webhook-server/serving-certs",
    "/apiserver.local.config/certificates",
];
/// File names of certificate and key.
const FILES: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("apiserver.crt", "apiserver.key")];
/// Longest time until a change is noticed without a notification (the kubelet swaps a link; some file systems tell
/// nothing).
const POLL: Duration = Duration::from_secs(2);
/// Largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a pair is not served.
#[derive(Debug, Error)]
pub enum PairError {
    /// No directory holds both files.
    #[error("no serving certificate in {0}")]
    Absent(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// A file or Secret holds no PEM of the right kind. The text of the error never contains what was found.
    #[error("{place} holds no {what}")]
    Pem {
        /// The file or Secret.
        place: String,
        /// What was expected.
        what: &'static str,
    },
    /// Key and certificate do not belong together, or the key is of no usable kind.
    #[error("key and certificate are no usable pair: {0}")]
    Mismatch(#[source] rustls::Error),
}

/// The pair that is served now.
#[derive(Clone, Default)]
pub struct Pair {
    current: Arc<ArcSwapOption<Served>>,
}

struct Served {
    digest: [u8; 32],
    /// From when the certificate is valid.
    since: i64,
    config: Arc<ServerConfig>,
}

impl Pair {
    /// True once a valid pair was found.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.current.load().is_some()
    }

    fn replace(&self, served: Served) {
        self.current.store(Some(Arc::new(served)));
    }
}

/// A pair as it was found, not checked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct RawPair {
    /// Certificates in PEM, the server's own first.
    pub chain: Vec<u8>,
    /// Private key in PEM.
    pub key: Vec<u8>,
}

/// Reads the pair from the first of `dirs` that has one, and checks it.
fn load(dirs: &[PathBuf]) -> Result<Served, PairError> {
    let found = dirs.iter().find_map(|dir| {
        FILES
            .iter()
            .map(|(certificate, key)| (dir.join(certificate), dir.join(key)))
            .find(|(certificate, key)| certificate.exists() && key.exists())
    });
    let (certificate, key) = found.ok_or_else(|| {
        let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        PairError::Absent(dirs.join(", "))
    })?;
    let raw = RawPair {
        chain: read(&certificate)?,
        key: read(&key)?,
    };
    check(
        &raw,
        (&certificate.display().to_string(), &key.display().to_string()),
    )
}

/// Makes a server's configuration of `raw`, which was found at these places.
fn check(raw: &RawPair, (certificate, key): (&str, &str)) -> Result<Served, PairError> {
    let digest = Sha256::new()
        .chain_update(&raw.chain)
        .chain_update([0])
        .chain_update(&raw.key)
        .finalize()
        .into();
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&raw.chain)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|certificates: &Vec<_>| !certificates.is_empty())
        .ok_or(PairError::Pem {
            place: certificate.to_owned(),
            what: "certificate",
        })?;
    // SEC1, PKCS#8 and PKCS#1 alike.
    let private = PrivateKeyDer::from_pem_slice(&raw.key).map_err(|_| PairError::Pem {
        place: key.to_owned(),
        what: "private key",
    })?;
    let since = certificates.first().map_or(i64::MIN, |own| not_before(own));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12, &TLS13])
        .map_err(PairError::Mismatch)?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(PairError::Mismatch)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Served {
        digest,
        since,
        config: Arc::new(config),
    })
}

/// Unix seconds from which a certificate is valid.
fn not_before(certificate: &[u8]) -> i64 {
    x509_parser::parse_x509_certificate(certificate)
        .map_or(i64::MIN, |(_, parsed)| parsed.validity().not_before.timestamp())
}

fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    let failed = |source| PairError::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(failed(std::io::Error::other("the file is too large")));
    }
    std::fs::read(path).map_err(failed)
}

/// Keeps a pair and the server's configuration up to date.
pub struct Reloader {
    dirs: Vec<PathBuf>,
    /// The pair of the Secret, as it was read last.
    secret: watch::Receiver<Option<RawPair>>,
    pair: Pair,
    /// Told when the first pair is there, with every one after it.
    configs: watch::Sender<Option<RustlsConfig>>,
    last_error: Option<String>,
    poll: Duration,
}

impl Reloader {
    /// Watches `dir`, or OLM's directories when none is given.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        let dirs = dir.map_or_else(|| OLM_DIRS.iter().map(PathBuf::from).collect(), |dir| vec![dir]);
        Self {
            dirs,
            secret: watch::channel(None).1,
            pair: Pair::default(),
            configs: watch::channel(None).0,
            last_error: None,
            poll: POLL,
        }
    }

    /// With a second source, a Secret: of two valid pairs the newer one is served.
    #[must_use]
    pub fn reading(self, secret: watch::Receiver<Option<RawPair>>) -> Self {
        Self { secret, ..self }
    }

    /// With another longest time until a change is noticed without a notification.
    #[must_use]
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// The pair, for readiness.
    #[must_use]
    pub fn pair(&self) -> Pair {
        self.pair.clone()
    }

    /// Becomes the server's configuration once there is a pair; later pairs are swapped into it.
    #[must_use]
    pub fn config(&self) -> watch::Receiver<Option<RustlsConfig>> {
        self.configs.subscribe()
    }

    /// Loads whenever something in the directories changes; for ever.
    pub async fn run(mut self) {
        // One waiting notification is enough: a load reads what is there then.
        let (told, mut changes) = mpsc::channel(1);
        let mut watched: Vec<(PathBuf, RecommendedWatcher)> = Vec::new();
        loop {
            watched.retain(|(dir, _)| dir.exists());
            for dir in &self.dirs {
                if !watched.iter().any(|(other, _)| other == dir)
                    && let Some(watcher) = watch_dir(dir, told.clone())
                {
                    watched.push((dir.clone(), watcher));
                }
            }
            self.reload();
            // A notification, the time for the next look, or another pair in the Secret.
            tokio::select! {
                _ = timeout(self.poll, changes.recv()) => {}
                Ok(()) = self.secret.changed() => {}
            }
        }
    }

    /// The newer one of the valid pairs of both sources. Files that cannot be used are no error while the Secret can.
    fn newest(&self) -> Result<Served, PairError> {
        let place = "the Secret of the serving pair";
        let of_secret = self
            .secret
            .borrow()
            .as_ref()
            .map(|raw| check(raw, (place, place)));
        match (load(&self.dirs), of_secret) {
            (Ok(files), Some(Ok(secret))) if secret.since <= files.since => Ok(files),
            (_, Some(Ok(secret))) => Ok(secret),
            (files, _) => files,
        }
    }

    /// Loads once. An unusable pair is reported once and changes nothing.
    fn reload(&mut self) {
        match self.newest() {
            Ok(served) => {
                self.last_error = None;
                if self
                    .pair
                    .current
                    .load()
                    .as_ref()
                    .is_some_and(|current| current.digest == served.digest)
                {
                    return;
                }
                let config = Arc::clone(&served.config);
                self.pair.replace(served);
                self.configs.send_modify(|current| match current {
                    Some(existing) => existing.reload_from_config(config),
                    None => *current = Some(RustlsConfig::from_config(config)),
                });
                tracing::info!("Serving certificate loaded");
            }
            Err(error) => {
                let text = error.to_string();
                if self.last_error.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        serving = self.pair.is_served(),
                        "Serving certificate not usable"
                    );
                    self.last_error = Some(text);
                }
            }
        }
    }
}

fn watch_dir(dir: &Path, told: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let notify = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_read(&event)) {
            return;
        }
        // Full: a look is due anyway.
        let _ = told.try_send(());
    };
    let mut watcher = notify::recommended_watcher(notify).ok()?;
    watcher.watch(dir, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

/// True when somebody only read, as each look does itself: it must not cause the next one.
fn is_read(event: &notify::Event) -> bool {
    event.kind.is_access() && event.kind != EventKind::Access(AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind};

    use super::*;

    #[test]
    fn a_look_does_not_cause_the_next_one() {
        let is_read = |kind| is_read(&notify::Event::new(kind));
        for kind in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Close(AccessMode::Read),
            AccessKind::Read,
        ] {
            assert!(is_read(EventKind::Access(kind)), "{kind:?}");
        }
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Create(CreateKind::Any),
        ] {
            assert!(!is_read(kind), "{kind:?}");
        }
    }
}
