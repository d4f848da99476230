//! The client that carries calls of clients to servers: hyper's own. What a full HTTP client adds for each request
//! (redirects, retries, cookies, a second form of the URL) is not wanted there and takes a tenth of a call's time.

use super::address::{AddressPolicy, CheckedResolver};
use super::client::{CONNECT, ClientError, IDLE, MAX_HEADERS, MAX_IDLE, install_crypto, tls};
use super::exchange::{ExchangeError, no_connection};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::{Body, Response};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::BoxError;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use url::Url;

/// Silence until the other side is asked for a sign of life, and the time between such questions.
const PROBE: Duration = Duration::from_secs(15);
/// Questions without an answer until the connection is given up.
const PROBES: u32 = 3;
/// Longest wait for the answer to a ping of HTTP/2.
const PROBE_ANSWER: Duration = Duration::from_secs(20);
/// Longest wait until the other side has acknowledged what was sent.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

/// Sends requests as they are, over connections that are kept.
pub struct Carrier(Client<Connector, Full<Bytes>>);

impl Carrier {
    /// A client with the system's roots and these PEM bundles.
    ///
    /// # Errors
    /// [`ClientError`] when a bundle is bad.
    pub fn new(bundles: &[&str], policy: AddressPolicy) -> Result<Self, ClientError> {
        Self::probing(bundles, policy, (PROBE, PROBE_ANSWER))
    }

    /// `probe`: how long a connection of HTTP/2 with open streams is silent until a ping, and how long its answer may take.
    fn probing(
        bundles: &[&str],
        policy: AddressPolicy,
        probe: (Duration, Duration),
    ) -> Result<Self, ClientError> {
        install_crypto();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(bundles)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp(policy));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_headers(MAX_HEADERS)
            .http2_keep_alive_interval(probe.0)
            .http2_keep_alive_timeout(probe.1)
            .build(BoxCloneSyncService::new(Timeout::new(https, CONNECT)));
        Ok(Self(client))
    }

    /// Sends a request to this URL and waits for the head of the reply, for as long as the server takes.
    ///
    /// # Errors
    /// [`ExchangeError::Connect`], [`ExchangeError::Timeout`] of connecting, or [`ExchangeError::Broken`].
    pub async fn send(&self, url: &Url, mut request: Request<Bytes>) -> Result<Response, ExchangeError> {
        *request.uri_mut() =
            Uri::try_from(url.as_str()).map_err(|_| ExchangeError::Connect("URL is not one of HTTP"))?;
        let sent = self.0.request(request.map(Full::new)).await;
        sent.map(|reply| reply.map(Body::wrap).into())
            .map_err(|error| failed(&error))
    }
}

/// Opens connections that notice when the other side is gone without a word.
fn tcp(policy: AddressPolicy) -> HttpConnector<CheckedResolver> {
    let mut tcp = HttpConnector::new_with_resolver(CheckedResolver(policy));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(PROBE));
    tcp.set_keepalive_interval(Some(PROBE));
    tcp.set_keepalive_retries(Some(PROBES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp
}

fn failed(error: &Error) -> ExchangeError {
    if error.is_connect() {
        no_connection(error)
    } else {
        ExchangeError::Broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use socket2::SockRef;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tower::Service as _;

    #[tokio::test]
    async fn a_connection_asks_whether_the_other_side_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let opened = tcp(AddressPolicy::Unchecked).call(uri).await.unwrap();
        let socket = SockRef::from(opened.inner());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }

    #[tokio::test]
    async fn a_connection_that_idles_is_given_up_before_a_server_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(reply).await.unwrap();
            stream.read(&mut [0; 1024]).await.unwrap()
        });
        let carrier = Carrier::new(&[], AddressPolicy::Unchecked).unwrap();
        carrier.send(&url, Request::new(Bytes::new())).await.unwrap();
        // The pool looks once in IDLE.
        let closed = tokio::time::timeout(IDLE * 5, server).await;
        assert_eq!(closed.expect("still open").unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_of_http2_that_answers_no_ping_ends_the_call() {
        install_crypto();
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (pem, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            // Empty SETTINGS, then not a word.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let soon = Duration::from_millis(100);
        let carrier = Carrier::probing(&[&pem], AddressPolicy::Unchecked, (soon, soon)).unwrap();
        let url = format!("https://localhost:{port}/").parse().unwrap();
        let sent = carrier.send(&url, Request::new(Bytes::new()));
        let ended = tokio::time::timeout(Duration::from_secs(20), sent).await;
        assert!(matches!(ended, Ok(Err(ExchangeError::Broken))), "{ended:?}");
        server.abort();
    }
}
