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
    // The person's own token for the server goes before what the file says for everybody.
    let person = edits.set.iter().any(|(name, _)| *name == "authorization");
    for (name, value) in &forward.server.headers {
        if !(person && name == "authorization") {
            headers.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::{Dialect, read_as};
    use crate::decision::Edits;
    use crate::sessions::store::BackendSession;
    use std::sync::Arc;

    #[test]
    fn a_persons_token_goes_before_the_one_that_the_file_has_for_everybody() {
        let dialect = Dialect {
            forwards: true,
            local: None,
        };
        let text = b"servers:\n- {name: ns/a, url: 'http://a.test/mcp'}\n";
        let mut config = read_as(text, dialect).unwrap().servers[0].as_ref().clone();
        for (name, value) in [("authorization", "Bearer file"), ("x-team", "a")] {
            config.headers.insert(name, HeaderValue::from_static(value));
        }
        let person = ("authorization", "Bearer person".to_owned());
        for (set, expected) in [(vec![person], "Bearer person"), (Vec::new(), "Bearer file")] {
            let forward = Forward {
                server: Arc::new(config.clone()),
                backend: BackendSession::stateless(),
                edits: Edits {
                    set,
                    ..Edits::default()
                },
                reply: None,
                rule: String::new(),
                once: None,
                links: None,
            };
            let sent = outgoing(&forward, Method::POST, (HeaderMap::new(), &Bytes::new()));
            assert_eq!(sent.headers["authorization"], expected);
            assert_eq!(sent.headers["x-team"], "a");
        }
    }
}
