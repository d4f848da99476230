//! What became of a request to a server, until its reply is passed on.

use crate::decision::Forward;
use crate::decision::repair::FailedReply;
use crate::sessions::lease::Lease;
use crate::transport::exchange::ExchangeError;
use tokio::time::{Instant, timeout_at};

/// What became of a request so far.
pub(super) struct Sent {
    pub(super) reply: Result<reqwest::Response, ExchangeError>,
    pub(super) lease: Option<Lease>,
    /// When the whole call has to be over.
    pub(super) deadline: Option<Instant>,
}

/// A reply whose body is still to come, and when it has to be there.
pub(super) struct Reply {
    pub(super) response: reqwest::Response,
    pub(super) deadline: Option<Instant>,
}

impl Forward {
    /// When a request that is sent now has to be answered as a whole (`callTimeout`).
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.server.call_timeout.map(|limit| Instant::now() + limit)
    }
}

/// What `work` gives, unless the deadline passes before.
pub(super) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// What the repair is told of a reply, or of none.
pub(super) fn failed_reply(reply: &Result<reqwest::Response, ExchangeError>) -> FailedReply<'_> {
    let (status, details) = match reply {
        Ok(response) => (response.status().as_u16(), "via_upstream"),
        Err(ExchangeError::Timeout(_)) => (504, "response_timeout"),
        Err(_) => (503, "upstream_failure"),
    };
    let headers = reply.as_ref().ok().map(reqwest::Response::headers);
    let content_type = headers.and_then(|headers| headers.get("content-type"));
    FailedReply {
        status,
        details,
        content_type: content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default(),
    }
}
