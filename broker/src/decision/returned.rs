//! What a client sends back for a server (data-plane.md 10.1, 10.3): the answer to a request of the server, or the progress
//! of it. The id or token that the gateway sealed says where it goes.

use super::forward::OnBehalf;
use super::message::{Request, answer, session};
use super::relay::{OURS, Ticket};
use super::repair::fingerprint;
use super::{Decision, Facts, Need};
use crate::aggregation::catalog::Catalog;
use crate::protocol::message::{Message, MessageKind};
use crate::protocol::reply::{INVALID_REQUEST, Refusal};
use std::ops::Range;

/// The sealed value of a message.
pub struct Sealed {
    text: String,
    range: Range<usize>,
    method: &'static str,
    route: &'static str,
}

/// The sealed value when the message has one in the right place.
pub fn sealed(message: &Message<'_>) -> Option<Sealed> {
    let (text, range, method, route) = match message.kind {
        MessageKind::Response => {
            let text: String = serde_json::from_str(message.id?).ok()?;
            (text, message.id_range.clone()?, "response", "client-response")
        }
        MessageKind::Notification if message.method == "notifications/progress" => {
            let token = message.progress_token.as_ref()?;
            let text = token.value.to_string();
            (
                text,
                token.range.clone(),
                "notifications/progress",
                "notification",
            )
        }
        _ => return None,
    };
    text.starts_with(OURS).then_some(Sealed {
        text,
        range,
        method,
        route,
    })
}

fn refuse(message: &Message<'_>, token: &str, status: u16) -> Decision {
    let refusal = Refusal::new(status, INVALID_REQUEST, "unknown request id", "response");
    answer(message, Some(token), refusal)
}

/// Decides where it goes: to the backend session that asked, as long as that one is in use.
pub fn judge(
    request: &Request<'_>,
    message: &Message<'_>,
    sealed: &Sealed,
    (catalog, facts): (&Catalog, &Facts),
) -> Decision {
    let (token, claims) = match session(request, message, facts) {
        Ok(session) => session,
        Err(answer) => return *answer,
    };
    let Some(ticket) = Ticket::open(request.keys, &sealed.text) else {
        return refuse(message, token, 400);
    };
    if ticket.jti != claims.jti {
        return refuse(message, token, 403);
    }
    let Some(server) = catalog.server(&ticket.server) else {
        return refuse(message, token, 400);
    };
    if facts.asked.as_deref() != Some(ticket.server.as_str()) {
        return Decision::Need(Need::Facts(claims.clone(), ticket.server));
    }
    let Some(backend) = facts
        .backend
        .as_ref()
        .filter(|backend| fingerprint(backend) == ticket.backend)
    else {
        return refuse(message, token, 400);
    };
    let session = OnBehalf {
        head: request.head,
        token: Some(token),
        claims,
        server: &server.config,
        backend,
        user_token: facts.user_token.as_ref(),
    };
    let splice = (sealed.range.clone(), ticket.original);
    Decision::Forward(Box::new(session.forward_back(
        sealed.method,
        sealed.route,
        splice,
    )))
}
