//! A session with an MCP endpoint, on the Rust SDK: initialise, list, call, and what the server says meanwhile.

use std::{collections::HashMap, time::Duration};

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::{
    ClientHandler, RoleClient, ServiceExt as _,
    model::{ClientCapabilities, ClientConfig, Implementation, ProgressNotificationParam},
    service::{NotificationContext, RunningService, ServiceError},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};

use crate::{
    endpoint::{Endpoint, EndpointError, Target},
    reason,
};

/// Header that chooses a virtual server.
const VIRTUAL_SERVER: &str = "x-mcp-virtualserver";
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A value that is no header.
    #[error("{0} is no value of a header")]
    Header(&'static str),
    /// The HTTP client.
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The session did not open.
    #[error("{url}: {why}")]
    Open {
        /// The endpoint.
        url: String,
        /// What happened, with the next step.
        why: String,
    },
    /// A request failed.
    #[error("{0}")]
    Request(String),
    /// Time is up.
    #[error("no answer within {0} s; --timeout gives it more")]
    Late(u64),
}

/// What this client can, and what it does with what servers say.
#[derive(Clone)]
pub(crate) struct Listener {
    bar: indicatif::ProgressBar,
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("mcpgw", env!("CARGO_PKG_VERSION")),
        )
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let total = progress
            .total
            .map_or_else(String::new, |total| format!(" of {total}"));
        let text = progress.message.unwrap_or_default();
        self.bar
            .set_message(format!("{}{total} {text}", progress.progress));
    }
}

/// An open session.
pub(crate) struct Session {
    service: RunningService<RoleClient, Listener>,
    timeout: u64,
}

impl Session {
    /// Opens one; `bar` shows what is going on.
    pub(crate) async fn open(target: &Target, bar: indicatif::ProgressBar) -> Result<Self, SessionError> {
        let endpoint = target.endpoint().await?;
        let transport = transport(&endpoint, target)?;
        let opening = Listener { bar }.serve(transport);
        match tokio::time::timeout(Duration::from_secs(target.timeout), opening).await {
            Ok(Ok(service)) => Ok(Self {
                service,
                timeout: target.timeout,
            }),
            Ok(Err(error)) => Err(SessionError::Open {
                why: reason::of_opening(&error),
                url: endpoint.url,
            }),
            Err(_) => Err(SessionError::Late(target.timeout)),
        }
    }

    /// Runs one request within the time that the user allows.
    pub(crate) async fn ask<T>(
        &self,
        request: impl AsyncFnOnce(&RunningService<RoleClient, Listener>) -> Result<T, ServiceError>,
    ) -> Result<T, SessionError> {
        match tokio::time::timeout(Duration::from_secs(self.timeout), request(&self.service)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(SessionError::Request(reason::of_request(&error))),
            Err(_) => Err(SessionError::Late(self.timeout)),
        }
    }

    /// Ends it.
    pub(crate) async fn close(self) {
        // The answer is printed already; a server that does not want to hear of the end changes nothing.
        let _ = tokio::time::timeout(CONNECT, self.service.cancel()).await;
    }
}

fn transport(
    endpoint: &Endpoint,
    target: &Target,
) -> Result<StreamableHttpClientTransport<reqwest::Client>, SessionError> {
    let mut http = reqwest::Client::builder().connect_timeout(CONNECT);
    if let Some((host, addresses)) = &endpoint.resolved {
        // A proxy would look the name up by itself.
        http = http.no_proxy().resolve_to_addrs(host, addresses);
    }
    let mut headers = HashMap::new();
    if let Some(name) = &target.virtual_server {
        let value = HeaderValue::from_str(name).map_err(|_| SessionError::Header("--virtual-server"))?;
        headers.insert(HeaderName::from_static(VIRTUAL_SERVER), value);
    }
    let mut config =
        StreamableHttpClientTransportConfig::with_uri(endpoint.url.as_str()).custom_headers(headers);
    if let Some(token) = &target.token {
        config = config.auth_header(token.as_str());
    }
    Ok(StreamableHttpClientTransport::with_client(http.build()?, config))
}
