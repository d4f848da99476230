//! One JSON-RPC exchange over streamable HTTP: POST, then the answer as JSON or out of an event stream. Requests that a
//! server makes on the way are handed back to be refused; nothing here retries.

mod incoming;

use super::notices::Notices;
use crate::protocol::{header, sse};
use bytes::Bytes;
use futures::StreamExt as _;
use incoming::{Incoming, matching, observe};
use reqwest::{RequestBuilder, Response};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::timeout;

/// Response headers.
const HEADERS: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
const IDLE: Duration = Duration::from_secs(30);
/// Largest answer, bytes (data-plane.md 15.1: list of one server and kind).
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Largest answer to what is no list, bytes: `initialize`, `ping` and the like are small.
pub const MAX_SHORT: usize = 1024 * 1024;
/// A larger message is read by a thread of its own: no request must wait for this worker meanwhile.
const LARGE: usize = 64 * 1024;
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
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
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

/// The largest answer to a request of this method, bytes.
#[must_use]
pub fn longest(method: &str) -> usize {
    if method.ends_with("/list") {
        MAX_ANSWER
    } else {
        MAX_SHORT
    }
}

/// Reads the answer to the request with this raw `id`, of at most `limit` bytes.
///
/// # Errors
/// [`ExchangeError`]; a status other than 2xx is [`ExchangeError::Status`].
pub async fn answer(
    response: Response,
    (id, limit): (&str, usize),
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
        from_events(response, (id, limit), notices, &mut reverse).await?
    } else if header::is_json(&content_type) {
        let body = body(response, limit).await?;
        let found = matching(body, id, notices, &mut reverse).await?;
        found.ok_or(ExchangeError::Malformed)?
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
    let (mut whole, mut paced) = (Vec::new(), LARGE);
    while let Some(piece) = next_piece(&mut stream).await? {
        if whole.len() + piece.len() > limit {
            return Err(ExchangeError::TooLarge(limit));
        }
        whole.extend_from_slice(&piece);
        pace(whole.len(), &mut paced).await;
    }
    Ok(whole.into())
}

/// Lets others have their turn after every [`LARGE`] bytes: a fast server would keep the worker for megabytes.
async fn pace(total: usize, paced: &mut usize) {
    if total >= *paced {
        *paced = total + LARGE;
        yield_now().await;
    }
}

async fn from_events(
    response: Response,
    (id, limit): (&str, usize),
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) -> Result<Box<RawValue>, ExchangeError> {
    let mut stream = response.bytes_stream();
    let mut decoder = sse::Decoder::default();
    let (mut total, mut paced) = (0, LARGE);
    while let Some(piece) = next_piece(&mut stream).await? {
        total += piece.len();
        if total > limit {
            return Err(ExchangeError::TooLarge(limit));
        }
        for event in decoder.push(&piece).map_err(|_| ExchangeError::Malformed)? {
            if let Some(result) = matching(event.data.into(), id, notices, reverse).await? {
                return Ok(result);
            }
        }
        pace(total, &mut paced).await;
    }
    let last = decoder.finish().map_err(|_| ExchangeError::Malformed)?;
    let last = last.ok_or(ExchangeError::Broken)?;
    let found = matching(last.data.into(), id, notices, reverse).await?;
    found.ok_or(ExchangeError::Broken)
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
                let id = message.id.map(|id| id.get().to_owned());
                observe(&method, id, Some(notices), &mut reverse);
            }
        }
        if !reverse.is_empty() {
            break;
        }
    }
    reverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of so many bytes, blanks between them.
    fn response(size: usize, kind: &'static str) -> Response {
        let result = r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#;
        let (before, after) = if kind == "text/event-stream" {
            ("data: ", "\n\n")
        } else {
            ("", "")
        };
        let blanks = " ".repeat(size - result.len() - before.len() - after.len());
        let text = format!("{before}{blanks}{result}{after}");
        assert_eq!(text.len(), size);
        let response = http::Response::builder().header("content-type", kind);
        response.body(text).unwrap().into()
    }

    #[tokio::test]
    async fn s23_lists_have_16_mib_and_other_answers_one() {
        assert_eq!(
            (longest("tools/list"), longest("resources/templates/list")),
            (16 << 20, 16 << 20)
        );
        for method in ["ping", "initialize", "server/discover", "prompts/get"] {
            assert_eq!(longest(method), 1 << 20);
        }
        for kind in ["application/json", "text/event-stream"] {
            let whole = answer(response(MAX_SHORT, kind), ("1", MAX_SHORT), None).await;
            assert_eq!(whole.unwrap().result.get(), r#"{"a":1}"#, "{kind}");
            let more = answer(response(MAX_SHORT + 1, kind), ("1", MAX_SHORT), None).await;
            assert_eq!(more.err(), Some(ExchangeError::TooLarge(MAX_SHORT)), "{kind}");
        }
    }
}
