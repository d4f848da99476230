//! A stream that a client takes up again (data-plane.md 4.6): an event id that is not ours is a server's own, and belongs to
//! the server that the session called last.

use super::forward::{LAST_EVENT_ID, OnBehalf};
use super::relay::OURS;
use super::repair::Subject;
use super::{Decision, Edits, Facts, Head, Metadata, Need, internal_headers};
use crate::aggregation::catalog::Catalog;
use crate::protocol::header;

/// True for a GET that takes up a stream of a server.
pub fn is_resumption(head: &Head) -> bool {
    head.method() == "GET"
        && head
            .get(LAST_EVENT_ID)
            .is_some_and(|id| !id.is_empty() && !id.starts_with(OURS))
}

/// Decides where it goes. Whatever cannot be led to a server is the broker's, with `otherwise` as its edits: the broker
/// knows the answer to bad sessions, and opens its own stream for good ones.
pub fn judge(head: &Head, catalog: &Catalog, facts: &Facts, otherwise: &Edits) -> Decision {
    let broker = || Decision::Broker(otherwise.clone());
    let (Some(token), Some(claims)) = (head.get(header::SESSION), &facts.claims) else {
        return broker();
    };
    if !header::accepts(head.get("accept")).sse || facts.revoked == Some(true) {
        return broker();
    }
    if facts.asked.is_none() {
        return Decision::Need(Need::Facts(claims.clone(), String::new()));
    }
    let Some(server) = facts.last.as_ref().and_then(|name| catalog.server(name)) else {
        return broker();
    };
    let name = &server.config.name;
    if facts.asked.as_ref() != Some(name) {
        return Decision::Need(Need::Facts(claims.clone(), name.clone()));
    }
    let Some(backend) = &facts.backend else {
        return broker();
    };
    let session = OnBehalf {
        head,
        token: Some(token),
        claims,
        server: &server.config,
        backend,
        user_token: facts.user_token.as_ref(),
    };
    let mut edits = session.towards("GET", (Subject::Stream, None));
    edits.remove.extend(internal_headers(head));
    let kept = |name: &String| !edits.set.iter().any(|(set, _)| set == name);
    edits.remove = edits.remove.iter().filter(|name| kept(name)).cloned().collect();
    edits.metadata = Metadata {
        text: vec![
            ("method", "GET".to_owned()),
            ("era", "legacy".to_owned()),
            ("server", name.clone()),
            ("session", claims.jti.to_string()),
            ("route", "stream".to_owned()),
        ],
        hints: None,
    };
    let reply = session.reply((None, false), facts.level.as_ref(), None);
    Decision::Forward(Box::new(session.forward(edits, reply)))
}
