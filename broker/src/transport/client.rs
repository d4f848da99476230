//! HTTP clients with the right roots: system roots plus PEM bundles, TLS 1.2 or newer, no redirects, no proxies.

use super::address::{AddressPolicy, CheckedResolver, FixedResolver};
use crate::options::PrivateHost;
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Node.js and uvicorn close a connection that was idle for 5 s. A call that meets one which is being closed fails, because
/// it must not be sent twice; so ours are given up before.
pub(super) const IDLE: Duration = Duration::from_secs(4);
pub(super) const MAX_IDLE: usize = 256;
/// Header fields accepted in a reply.
pub(super) const MAX_HEADERS: usize = 200;

/// A client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A PEM bundle holds no certificate, or one that is not valid.
    #[error("CA bundle is not valid PEM with certificates")]
    Roots,
    /// The TLS or HTTP library refused its settings.
    #[error("build HTTP client: {0}")]
    Build(String),
}

/// Installs the one crypto provider of the process. Calling it again changes nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Trusts the system's roots and these bundles. Whoever trusts nothing but the system's roots shares them.
pub(super) fn tls(bundles: &[&str]) -> Result<ClientConfig, ClientError> {
    static PLAIN: OnceLock<ClientConfig> = OnceLock::new();
    let mut bundles = bundles
        .iter()
        .filter(|bundle| !bundle.trim().is_empty())
        .peekable();
    if bundles.peek().is_none() {
        return Ok(PLAIN.get_or_init(|| trusting(system_roots().clone())).clone());
    }
    let mut roots = system_roots().clone();
    for bundle in bundles {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots
                .add(certificate.map_err(|_| ClientError::Roots)?)
                .map_err(|_| ClientError::Roots)?;
            found = true;
        }
        if !found {
            return Err(ClientError::Roots);
        }
    }
    Ok(trusting(roots))
}

fn builder(bundles: &[&str]) -> Result<reqwest::ClientBuilder, ClientError> {
    Ok(Client::builder()
        .tls_backend_preconfigured(tls(bundles)?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_headers(MAX_HEADERS))
}

/// A client for one MCP server.
///
/// # Errors
/// [`ClientError`] when a bundle is bad.
pub fn server_client(bundles: &[&str], policy: AddressPolicy) -> Result<Client, ClientError> {
    install_crypto();
    let builder = builder(bundles)?.dns_resolver(Arc::new(CheckedResolver(policy)));
    builder
        .build()
        .map_err(|error| ClientError::Build(error.to_string()))
}

/// Redirects that a fetch of a document follows.
const MAX_REDIRECTS: usize = 3;

/// A client that fetches documents, for example key sets. Redirects are followed on the same host and scheme only.
///
/// # Errors
/// [`ClientError`] when a bundle is bad.
pub fn document_client(bundles: &[&str], policy: AddressPolicy) -> Result<Client, ClientError> {
    install_crypto();
    let same_place = reqwest::redirect::Policy::custom(|attempt| {
        let from = attempt.previous().last();
        let stays = from.is_some_and(|from| from.origin() == attempt.url().origin());
        if stays && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    let builder = builder(bundles)?.dns_resolver(Arc::new(CheckedResolver(policy)));
    builder
        .redirect(same_place)
        .build()
        .map_err(|error| ClientError::Build(error.to_string()))
}

/// A client of the cluster's API server, which trusts the cluster's CA only.
///
/// # Errors
/// [`ClientError`] when the CA is bad.
pub fn cluster_client(ca: &str) -> Result<Client, ClientError> {
    install_crypto();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots
            .add(certificate.map_err(|_| ClientError::Roots)?)
            .map_err(|_| ClientError::Roots)?;
    }
    let builder = Client::builder()
        .tls_backend_preconfigured(trusting(roots))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    builder
        .connect_timeout(CONNECT)
        .build()
        .map_err(|error| ClientError::Build(error.to_string()))
}

/// A client that connects to the private host whatever name a URL has; over TLS the URL's name is the one verified.
///
/// # Errors
/// [`ClientError`] when a bundle is bad.
pub fn hairpin_client(bundles: &[&str], target: &PrivateHost) -> Result<Client, ClientError> {
    install_crypto();
    let resolver = FixedResolver {
        host: target.host.clone(),
        port: target.port,
    };
    let builder = builder(bundles)?.dns_resolver(Arc::new(resolver)).http1_only();
    builder
        .build()
        .map_err(|error| ClientError::Build(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_certificate_is_refused_and_an_empty_one_is_none() {
        assert!(server_client(&["not pem"], AddressPolicy::Strict).is_err());
        assert!(server_client(&["", "\n"], AddressPolicy::Strict).is_ok());
        let pem = rcgen::generate_simple_self_signed(vec!["x".to_owned()])
            .unwrap()
            .cert
            .pem();
        assert!(server_client(&[&pem], AddressPolicy::Strict).is_ok());
    }
}
