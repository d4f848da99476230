//! The certificate of the front's listener (data-plane.md 13): read from the files that the config names, again when they
//! change. A pair that cannot be used is never served; the former one stays, and the status says why.

use crate::aggregation::federation::Published;
use crate::config::front::PairFiles;
use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at: links may be swapped without an event.
const POLL: Duration = Duration::from_secs(2);
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest file that is read, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a pair is not served. No error shows what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A file cannot be read.
    #[error("tls: read {}: {kind}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// A file holds no PEM of the right kind.
    #[error("tls: {} holds no {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The halves do not belong together, or are of no usable kind.
    #[error("tls: the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

/// Both files as they were read.
#[derive(PartialEq, Eq)]
struct Pem {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

/// The pair that is served now; none: the listener speaks plain HTTP.
#[derive(Default)]
pub struct ServingPair {
    acceptor: ArcSwapOption<ServerConfig>,
    /// What was read last, and why it is not served.
    last: Mutex<(Option<Pem>, Option<String>)>,
}

impl ServingPair {
    /// Serves what the config wants from now on.
    ///
    /// # Errors
    /// [`PairError`]; what was served before is served on.
    pub async fn apply(&self, files: Option<&PairFiles>) -> Result<(), PairError> {
        let result = match files {
            None => {
                self.acceptor.store(None);
                self.seen(None);
                Ok(())
            }
            Some(files) => self.load(files).await,
        };
        if let Ok(mut last) = self.last.lock() {
            let problem = result.as_ref().err().map(ToString::to_string);
            if let Some(error) = problem.as_ref().filter(|_| last.1 != problem) {
                tracing::warn!(
                    component = "front",
                    error,
                    "Certificate not usable, nothing changes"
                );
            }
            last.1 = problem;
        }
        result
    }

    async fn load(&self, files: &PairFiles) -> Result<(), PairError> {
        let pem = Pem {
            certificates: read(&files.cert_file).await?,
            key: read(&files.key_file).await?,
        };
        let known = self.last.lock().is_ok_and(|last| last.0.as_ref() == Some(&pem));
        if !known {
            self.acceptor.store(Some(Arc::new(config(files, &pem)?)));
            self.seen(Some(pem));
            tracing::info!(component = "front", certificate = %files.cert_file.display(), "Certificate in use");
        }
        Ok(())
    }

    fn seen(&self, pem: Option<Pem>) {
        if let Ok(mut last) = self.last.lock() {
            last.0 = pem;
        }
    }

    /// Whether connections are encrypted.
    pub fn is_served(&self) -> bool {
        self.acceptor.load().is_some()
    }

    /// Why the files of the config are not served.
    pub fn problem(&self) -> Option<String> {
        let last = self.last.lock().ok()?;
        let error = last.1.as_ref()?;
        Some(format!("{error}; what was served before is served on"))
    }

    /// Takes a connection over: encrypted, or as it is where no pair is served.
    ///
    /// # Errors
    /// What makes the handshake fail.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let Some(config) = self.acceptor.load_full() else {
            return Ok(Accepted::Plain(stream));
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Accepted::Tls(Box::new(stream)))
    }
}

/// A connection.
pub enum Accepted {
    /// Plain.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

async fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    let failed = |error: io::Error| PairError::Read {
        path: path.to_owned(),
        kind: error.kind(),
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .await
        .map_err(failed)?;
    Ok(bytes)
}

fn config(files: &PairFiles, pem: &Pem) -> Result<ServerConfig, PairError> {
    let none = |path: &Path, what| PairError::Pem {
        path: path.to_owned(),
        what,
    };
    let certificates = CertificateDer::pem_slice_iter(&pem.certificates)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| none(&files.cert_file, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| none(&files.key_file, "private key"))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|_| PairError::Mismatch {
            certificate: files.cert_file.clone(),
            key: files.key_file.clone(),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves the pair that the newest config names, and follows its files.
pub async fn follow(pair: Arc<ServingPair>, published: Arc<Published>) {
    let (mut catalogs, mut tick) = (published.subscribe(), interval(POLL));
    loop {
        tokio::select! {
            changed = catalogs.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        if let Some(snapshot) = &published.load().config.snapshot {
            // What is wrong is kept for the status.
            let _ = pair.apply(snapshot.front.tls.as_ref()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> PairFiles {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = PairFiles {
            cert_file: folder.join(format!("{name}.crt")),
            key_file: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[tokio::test]
    async fn a_pair_that_cannot_be_used_is_named_and_the_former_one_stays() {
        crate::transport::client::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (pair(folder.path(), "one"), pair(folder.path(), "two"));
        let serving = ServingPair::default();
        serving.apply(Some(&one)).await.unwrap();
        let served = serving.acceptor.load_full().unwrap();
        let mixed = PairFiles {
            key_file: two.key_file.clone(),
            ..one.clone()
        };
        let exchanged = PairFiles {
            cert_file: one.key_file.clone(),
            key_file: one.cert_file.clone(),
        };
        let absent = PairFiles {
            cert_file: folder.path().join("none"),
            ..one.clone()
        };
        for (files, expected) in [
            (mixed, "two.key is not that of the certificate"),
            (exchanged, "one.key holds no certificate in PEM"),
            (absent, "none: entity not found"),
        ] {
            let error = serving.apply(Some(&files)).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(serving.problem().unwrap().starts_with(&error));
            assert!(Arc::ptr_eq(&served, &serving.acceptor.load_full().unwrap()));
        }
        serving.apply(Some(&one)).await.unwrap();
        assert_eq!(serving.problem(), None);
        assert!(
            Arc::ptr_eq(&served, &serving.acceptor.load_full().unwrap()),
            "the same files again"
        );
        serving.apply(Some(&two)).await.unwrap();
        assert!(!Arc::ptr_eq(&served, &serving.acceptor.load_full().unwrap()));
        serving.apply(None).await.unwrap();
        assert!(serving.acceptor.load().is_none());
    }
}
