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
use tokio::net::TcpStream;
use tower::BoxError;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use url::Url;

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
        install_crypto();
        let mut tcp = HttpConnector::new_with_resolver(CheckedResolver(policy));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(bundles)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_headers(MAX_HEADERS)
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

fn failed(error: &Error) -> ExchangeError {
    if error.is_connect() {
        no_connection(error)
    } else {
        ExchangeError::Broken
    }
}
