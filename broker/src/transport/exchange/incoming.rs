//! What a server says while somebody waits for an answer: the answer, a request of its own, a notice.

use super::{ExchangeError, LARGE, MAX_REVERSE, ReverseRequest};
use crate::transport::notices::Notices;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

#[derive(Deserialize)]
struct RpcError {
    code: i64,
}

#[derive(Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    pub(super) method: Option<String>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RpcError>,
}

/// What a message is to somebody who waits for an answer.
enum Read {
    /// The answer.
    Result(Box<RawValue>),
    /// A request, which has an id, or a notification.
    Said(String, Option<String>),
    /// Somebody else's.
    Nothing,
}

/// The result in this message when it answers `id`; notices are posted, requests collected, everything else dropped.
pub(super) async fn matching(
    text: Bytes,
    id: &str,
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) -> Result<Option<Box<RawValue>>, ExchangeError> {
    let found = if text.len() > LARGE {
        let id = id.to_owned();
        let reading = spawn_blocking(move || read(&text, &id));
        reading.await.map_err(|_| ExchangeError::Malformed)?
    } else {
        read(&text, id)
    };
    match found? {
        Read::Result(result) => return Ok(Some(result)),
        Read::Said(method, id) => observe(&method, id, notices, reverse),
        Read::Nothing => {}
    }
    Ok(None)
}

fn read(text: &[u8], id: &str) -> Result<Read, ExchangeError> {
    if text.is_empty() {
        return Ok(Read::Nothing);
    }
    let message: Incoming<'_> = serde_json::from_slice(text).map_err(|_| ExchangeError::Malformed)?;
    let own = |raw: &RawValue| raw.get().to_owned();
    if let Some(method) = message.method {
        return Ok(Read::Said(method, message.id.map(own)));
    }
    if message.id.is_none_or(|raw| raw.get() != id) {
        // An error about a message that the server could not read has a null id.
        return match message.error {
            Some(error) => Err(ExchangeError::Rpc(error.code)),
            None => Ok(Read::Nothing),
        };
    }
    match (message.result, message.error) {
        (Some(result), None) => Ok(Read::Result(result.to_owned())),
        (_, Some(error)) => Err(ExchangeError::Rpc(error.code)),
        (None, None) => Err(ExchangeError::Malformed),
    }
}

pub(super) fn observe(
    method: &str,
    id: Option<String>,
    notices: Option<&Notices>,
    reverse: &mut Vec<ReverseRequest>,
) {
    match (id, notices) {
        (Some(id), _) if reverse.len() < MAX_REVERSE => {
            reverse.push(ReverseRequest {
                id,
                method: method.to_owned(),
            });
        }
        (None, Some(notices)) => notices.received(method),
        _ => {}
    }
}
