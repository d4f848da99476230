//! One JSON-RPC exchange over streamable HTTP: POST, then the answer as JSON or out of an event stream. Requests that a
//! server makes on the way are handed back to be refused; nothing here retries.

use super::notices::Notices;
use crate::protocol::{header, sse};
use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::timeout;

/// Response headers.
const HEADERS: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
const IDLE: Duration = Duration::from_secs(30);
/// Largest answer, bytes (data-plane.md 15.1: list of one server and kind).
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// What is kept of an error page.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Requests that a server may make during one exchange; more are not answered.
const MAX_REVERSE: usize = 16;

/// Why an exchange failed. Texts carry no address, header, query or body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No connection: name, TCP or TLS.
    #[error("{0}")]
    Connect(&'static str),
    /// A deadline passed.
    #[error("timed out waiting for {0}")]
    Timeout(&'static str),
    /// The connection broke.
    #[error("connection lost")]
    Broken,
    /// The server answered with this HTTP status.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The answer is too large.
    #[error("answer larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// The answer is no JSON-RPC answer to the request.
    #[error("answer is not a JSON-RPC response")]
    Malformed,
    /// A JSON-RPC error.
    #[error("JSON-RPC error {0}")]
    Rpc(i64),
}

/// A good answer.
#[derive(Debug)]
pub struct Answer {
    /// `result` as received.
    pub result: Box<RawValue>,
    /// `Mcp-Session-Id` of the response.
    pub session: Option<String>,
    /// Requests of the server that are still to be answered, as the raw bytes of their ids.
    pub reverse: Vec<ReverseRequest>,
}

/// A request that the server made to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseRequest {
    /// Raw id.
    pub id: String,
    /// Method.
    pub method: String,
}

/// A response that is no success, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// First 64 KiB of the body.
    pub body: Bytes,
    /// Value of a header by which Envoy's guard says who made the reply.
    pub details: Option<String>,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
}

/// Sends and waits for the response headers.
///
/// # Errors
/// [`ExchangeError::Connect`], [`ExchangeError::Timeout`] or [`ExchangeError::Broken`].
pub async fn send(request: RequestBuilder) -> Result<Response, ExchangeError> {
    match timeout(HEADERS, request.send()).await {
        Err(_) => Err(ExchangeError::Timeout("response headers")),
        Ok(Err(error)) => Err(connect_error(&error)),
        Ok(Ok(response)) => Ok(response),
    }
}

/// Which step of a request failed, without address or body.
pub fn connect_error(error: &reqwest::Error) -> ExchangeError {
    if error.is_timeout() {
        return ExchangeError::Timeout("connection");
    }
    if !error.is_connect() {
        return ExchangeError::Broken;
    }
    no_connection(error)
}

/// Which step of connecting failed.
pub(super) fn no_connection(error: &(dyn std::error::Error + 'static)) -> ExchangeError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if inner.is::<tower::timeout::error::Elapsed>() {
            return ExchangeError::Timeout("connection");
        }
        if let Some(cause) = tls_failure(inner) {
            return ExchangeError::Connect(cause);
        }
        if text.contains("certificate") {
            return ExchangeError::Connect("certificate is not valid");
        }
        if text.contains("address not allowed") {
            return ExchangeError::Connect("address not allowed");
        }
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return ExchangeError::Connect("connection refused");
        }
        if text.contains("dns error") || text.contains("lookup address") {
            return ExchangeError::Connect("name not resolved");
        }
        cause = inner.source();
    }
    ExchangeError::Connect("no connection")
}

/// What is wrong with a server's TLS, and who can mend it.
fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use rustls::{CertificateError, Error};
    let mut error = error;
    let error = loop {
        if let Some(found) = error.downcast_ref::<Error>() {
            break found;
        }
        // An error of I/O may wrap another one, which is not its source.
        error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    };
    let Error::InvalidCertificate(reason) = error else {
        return Some("TLS handshake failed; does the port speak TLS?");
    };
    Some(match reason {
        CertificateError::UnknownIssuer => {
            "certificate of an unknown authority; give the authority as the server's caCert (registration: caCertSecretRef)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate is for another name than the URL's"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        _ => "certificate is not valid",
    })
}

/// Reads the answer to the request with this raw `id`.
///
/// # Errors
/// [`ExchangeError`]; a status other than 2xx is [`ExchangeError::Status`].
pub async fn answer(
    response: Response,
    id: &str,
    notices: Option<&Notices>,
) -> Result<Answer, ExchangeError> {
    let status = response.status();
    if !status.is_success() {
        return Err(ExchangeError::Status(status.as_u16()));
    }
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let session = header(header::SESSION);
    let content_type = header("content-type").unwrap_or_default();
    let mut reverse = Vec::new();
    let result = if header::is_sse(&content_type) {
        from_events(response, id, notices, &mut reverse).await?
    } else if header::is_json(&content_type) {
        let body = body(response, MAX_ANSWER).await?;
        matching(&body, id, notices, &mut reverse)?.ok_or(ExchangeError::Malformed)?
    } else {
        return Err(ExchangeError::Malformed);
    };
    Ok(Answer {
        result,
        session,
        reverse,
    })
}

/// Reads a response that is no success.
pub async fn failure(response: Response, details_header: &str) -> Failure {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    Failure {
        status: response.status().as_u16(),
        content_type: header("content-type").unwrap_or_default(),
        details: header(details_header),
        challenge: header("www-authenticate"),
        body: body(response, MAX_ERROR_BODY).await.unwrap_or_default(),
    }
}

async fn next_piece(
    stream: &mut (impl futures::Stream<Item = reqwest::Result<Bytes>> + Unpin),
) -> Result<Option<Bytes>, ExchangeError> {
    match timeout(IDLE, stream.next()).await {
        Err(_) => Err(ExchangeError::Timeout("response body")),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) => Err(ExchangeError::Broken),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// [`ExchangeError`].
pub async fn body(response: Response, limit: usize) -> Result<Bytes, ExchangeError> {
    let mut stream = response.bytes_stream();
    let mut whole = Vec::new();
    while let Some(piece) = next_piece(&mut stream).await? {
        if whole.len() + piece.len() > limit {
            return Err(ExchangeError::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

async fn from_events(
    response: Response,
    id: &str,
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) -> Result<Box<RawValue>, ExchangeError> {
    let mut stream = response.bytes_stream();
    let mut decoder = sse::Decoder::default();
    let mut total = 0;
    while let Some(piece) = next_piece(&mut stream).await? {
        total += piece.len();
        if total > MAX_ANSWER {
            return Err(ExchangeError::TooLarge);
        }
        for event in decoder.push(&piece).map_err(|_| ExchangeError::Malformed)? {
            if let Some(result) = matching(event.data.as_bytes(), id, notices, reverse)? {
                return Ok(result);
            }
        }
    }
    let last = decoder.finish().map_err(|_| ExchangeError::Malformed)?;
    match last {
        Some(event) => matching(event.data.as_bytes(), id, notices, reverse)?.ok_or(ExchangeError::Broken),
        None => Err(ExchangeError::Broken),
    }
}

/// The result in this message when it answers `id`; notices are posted, requests collected, everything else dropped.
fn matching(
    text: &[u8],
    id: &str,
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) -> Result<Option<Box<RawValue>>, ExchangeError> {
    if text.is_empty() {
        return Ok(None);
    }
    let message: Incoming<'_> = serde_json::from_slice(text).map_err(|_| ExchangeError::Malformed)?;
    if let Some(method) = message.method {
        observe(&method, message.id, notices, reverse);
        return Ok(None);
    }
    if message.id.is_none_or(|raw| raw.get() != id) {
        // An error about a message that the server could not read has a null id.
        return match message.error {
            Some(error) => Err(ExchangeError::Rpc(error.code)),
            None => Ok(None),
        };
    }
    match (message.result, message.error) {
        (Some(result), None) => Ok(Some(result.to_owned())),
        (_, Some(error)) => Err(ExchangeError::Rpc(error.code)),
        (None, None) => Err(ExchangeError::Malformed),
    }
}

fn observe(
    method: &str,
    id: Option<&RawValue>,
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) {
    match (id, notices) {
        (Some(id), _) if reverse.len() < MAX_REVERSE => {
            reverse.push(ReverseRequest {
                id: id.get().to_owned(),
                method: method.to_owned(),
            });
        }
        (None, Some(notices)) => notices.received(method),
        _ => {}
    }
}

/// The body that answers a request of a server: `ping` is fine, everything else is not offered.
pub fn reverse_answer(request: &ReverseRequest) -> String {
    match request.method.as_str() {
        "ping" => crate::protocol::reply::result(&request.id, "{}"),
        method => {
            let text = format!("Method not found: {method}");
            crate::protocol::reply::error(
                Some(&request.id),
                crate::protocol::reply::METHOD_NOT_FOUND,
                &text,
                None,
            )
        }
    }
}

/// Reads a notice stream: every message until the stream ends, breaks, or `idle` passes without a byte.
/// Calls `on_event` with the id of each event that has one.
pub async fn listen(
    response: Response,
    idle: Duration,
    notices: &Notices,
    on_event: &mut (dyn FnMut(&str) + Send),
) -> Vec<ReverseRequest> {
    let mut stream = response.bytes_stream();
    let mut decoder = sse::Decoder::default();
    let mut reverse = Vec::new();
    while let Ok(Some(Ok(piece))) = timeout(idle, stream.next()).await {
        let Ok(events) = decoder.push(&piece) else { break };
        for event in events {
            if let Some(id) = &event.id {
                on_event(id);
            }
            if let Ok(message) = serde_json::from_str::<Incoming<'_>>(&event.data)
                && let Some(method) = message.method
            {
                observe(&method, message.id, Some(notices), &mut reverse);
            }
        }
        if !reverse.is_empty() {
            break;
        }
    }
    reverse
}
