//! A client's request as it goes out to a server: the edits of its decision, and nothing that is between the gateway and
//! its clients or Envoy.

use super::passing::drop_hop;
use crate::decision::{Forward, Head};
use crate::protocol::header;
use crate::protocol::message::splice;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request that is on its way to a server.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A request with the edits of its decision.
pub(super) fn outgoing(
    forward: &Forward,
    method: Method,
    (mut headers, body): (HeaderMap, &Bytes),
) -> Outgoing {
    edit(&mut headers, forward);
    let spliced = forward.edits.splice.as_ref();
    let spliced = spliced.and_then(|(range, text)| splice(body, range, text));
    Outgoing {
        method,
        headers,
        body: spliced.map_or_else(|| body.clone(), Bytes::from),
    }
}

/// The headers of a request once more, for a call that is repeated.
pub(super) fn header_map(head: &Head) -> HeaderMap {
    let fields = head.fields.iter().filter(|(name, _)| !name.starts_with(':'));
    fields
        .filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}

/// What the decision says about the headers; what is between the gateway and Envoy only is left out.
fn edit(headers: &mut HeaderMap, forward: &Forward) {
    drop_hop(headers);
    for name in ["host", "content-length", "expect"] {
        headers.remove(name);
    }
    let internal: Vec<HeaderName> = headers
        .keys()
        .filter(|name| header::is_internal(name.as_str()))
        .cloned()
        .collect();
    for name in &internal {
        headers.remove(name);
    }
    let edits = &forward.edits;
    for name in &edits.remove {
        headers.remove(name.as_str());
    }
    let withheld = edits.guard.iter().flat_map(|guard| &guard.credentials);
    for (name, _) in withheld {
        headers.remove(*name);
    }
    let for_server = |name: &str| !name.starts_with(':') && !header::is_internal(name);
    for (name, value) in edits.set.iter().filter(|(name, _)| for_server(name)) {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    for (name, value) in &edits.mirrored {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &forward.server.headers {
        headers.insert(name, value.clone());
    }
}
