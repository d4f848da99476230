//! The body of a request: read whole, within a limit and a deadline (data-plane.md 15.1).

use crate::decision::head::too_large;
use crate::protocol::reply::{INVALID_REQUEST, PARSE_ERROR, Refusal};
use axum::body::{Body, Bytes};
use std::time::Duration;
use tokio::time::timeout;

const BODY_READ: Duration = Duration::from_secs(30);

/// Reads it.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match timeout(BODY_READ, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(400, PARSE_ERROR, "parse error", "body")),
        Err(_) => Err(Refusal::new(
            408,
            INVALID_REQUEST,
            "request body timed out",
            "body_timeout",
        )),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
