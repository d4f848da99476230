//! The message (data-plane.md 4.5, 7, 8.6): which server a call goes to, with which edits. Everything that names an item
//! (`tools/call`, `prompts/get`, `resources/…`) is one code.

use super::bridge::Bridge;
use super::forward::{Call, call};
use super::head::broker_edits;
use super::repair::UserToken;
use super::{Answer, Decision, Edits, Facts, Head, Need, Rules, returned, stateless, target, user_token};
use crate::aggregation::catalog::Catalog;
use crate::aggregation::table::Entry;
use crate::aggregation::user_lists::{self, PerCaller};
use crate::aggregation::view::{Permit, View};
use crate::auth::keys::Keys;
use crate::auth::pool::Behalf;
use crate::auth::session::{SessionClaims, capabilities};
use crate::protocol::message::{Message, MessageError, MessageKind};
use crate::protocol::reply::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Refusal, SESSION};
use crate::protocol::version::Era;
use crate::protocol::{header, version};
use crate::sessions::store::BackendSession;
use mcp_gateway_api::authorization::Outcome;

/// A request with its message.
pub struct Request<'a> {
    /// Headers as the client sent them.
    pub head: &'a Head,
    /// Edits of the header phase, not yet repeated here.
    pub rules: &'a Rules,
    /// Keys that open what the gateway sealed.
    pub keys: &'a Keys,
    /// The message, or why there is none.
    pub message: &'a Result<Message<'a>, MessageError>,
}

/// Decides about a message.
pub fn judge(request: &Request<'_>, catalog: &Catalog, facts: &Facts) -> Decision {
    let message = match request.message {
        Ok(message) => message,
        Err(error) => return Decision::Answer(unreadable(error)),
    };
    if stateless::is_stateless(request.head, message, || facts.claims.is_some()) {
        return stateless::judge(request, message, (catalog, facts));
    }
    if message.kind == MessageKind::Request && target::is_routed(&message.method) {
        return routed(request, message, (catalog, facts));
    }
    if let Some(sealed) = returned::sealed(message) {
        return returned::judge(request, message, &sealed, (catalog, facts));
    }
    // Everything else is the broker's, which also refuses what no era knows.
    Decision::Broker(to_broker(request, message, catalog))
}

fn unreadable(error: &MessageError) -> Answer {
    Answer {
        refusal: error.refusal(),
        id: error.id().map(str::to_owned),
        session: None,
        rule: String::new(),
    }
}

pub(super) fn to_broker(request: &Request<'_>, message: &Message<'_>, catalog: &Catalog) -> Edits {
    let method = if message.kind == MessageKind::Response {
        "response"
    } else {
        message.method.as_ref()
    };
    let mut edits = broker_edits(request.head, Edits::default(), method);
    if !catalog.is_public_host(&request.head.host()) && !catalog.hosts.public.is_empty() {
        edits.set.push((":authority", catalog.hosts.public.clone()));
    }
    edits
}

pub(super) fn answer(message: &Message<'_>, token: Option<&str>, refusal: Refusal) -> Decision {
    Decision::Answer(Answer {
        refusal,
        id: message.id.map(str::to_owned),
        session: token.map(str::to_owned),
        rule: String::new(),
    })
}

/// The session of a message; the error is the answer to a missing, bad or ended one, or to an unknown version.
pub(super) fn session<'a>(
    request: &Request<'a>,
    message: &Message<'_>,
    facts: &'a Facts,
) -> Result<(&'a str, &'a SessionClaims), Box<Decision>> {
    let Some(token) = request.head.get(header::SESSION) else {
        let refusal = Refusal::new(400, INVALID_REQUEST, "missing Mcp-Session-Id", "session_missing");
        return Err(Box::new(answer(message, None, refusal)));
    };
    let (Some(claims), false) = (&facts.claims, facts.revoked == Some(true)) else {
        return Err(Box::new(answer(message, None, session_not_found())));
    };
    let unserved = |version: &str| !version::is_known(version);
    if request.head.get(header::PROTOCOL_VERSION).is_some_and(unserved) {
        let refusal = Refusal::new(
            400,
            INVALID_REQUEST,
            "unsupported MCP-Protocol-Version",
            "version",
        );
        return Err(Box::new(answer(message, Some(token), refusal)));
    }
    Ok((token, claims))
}

/// The answer about an item that is unknown or hidden: the same to the caller, but the audit record tells the two apart.
/// Of an item of the list that policies refuse with these arguments the caller learns just that.
pub(super) fn hidden(
    message: &Message<'_>,
    token: Option<&str>,
    (target, view): (&target::Target<'_>, &View<'_>),
) -> Decision {
    let denial = view.denial(target.kind, &target.name.value);
    let mut refusal = match &denial {
        Some(Outcome::Refused(_)) => Refusal::new(200, INVALID_PARAMS, "Denied by policy", "policy"),
        _ => target.unknown(),
    };
    if denial.is_some() {
        refusal.reason = "policy";
    }
    Decision::Answer(Answer {
        refusal,
        id: message.id.map(str::to_owned),
        session: token.map(str::to_owned),
        rule: denial.map(|denial| denial.to_string()).unwrap_or_default(),
    })
}

/// The session of a message, and the item that it is about.
fn addressed<'a, 'm>(
    request: &Request<'a>,
    message: &'m Message<'m>,
    facts: &'a Facts,
) -> Result<(&'a str, &'a SessionClaims, target::Target<'m>), Box<Decision>> {
    let (token, claims) = session(request, message, facts)?;
    match target::target(message) {
        Ok(target) => Ok((token, claims, target)),
        Err(refusal) => Err(Box::new(answer(message, Some(token), refusal))),
    }
}

fn routed(request: &Request<'_>, message: &Message<'_>, (catalog, facts): (&Catalog, &Facts)) -> Decision {
    let (token, claims, target) = match addressed(request, message, facts) {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    if facts.revoked.is_none()
        && let Some(server) = target.server(catalog)
    {
        // So that the rules are judged once, with everything that is known.
        return Decision::Need(Need::Facts(claims.clone(), server.config.name.clone()));
    }
    let (own, link) = unshared(&target, (catalog, facts));
    let view = target.view(message, (catalog, facts), own.as_ref());
    let view = view.linked(link.as_ref());
    if message.method == "tools/call" && view.meta_tool(&target.name.value).is_some() {
        return Decision::Broker(to_broker(request, message, catalog));
    }
    let Some(permit) = target.permit(&view) else {
        let need = missing(facts, (claims, catalog));
        return match need.or_else(|| unasked_link(message, claims, (&target, &view), facts)) {
            Some(need) => Decision::Need(need),
            None => unlisted((request, message), (token, claims), (&target, &view), facts)
                .unwrap_or_else(|| hidden(message, Some(token), (&target, &view))),
        };
    };
    let server = permit.server();
    if target.completion && !server.snapshot.completions {
        return Decision::Broker(to_broker(request, message, catalog));
    }
    if facts.asked.as_ref() != Some(&server.config.name) {
        return Decision::Need(Need::Facts(claims.clone(), server.config.name.clone()));
    }
    if request.rules.url_elicitation
        && let Some(decision) =
            user_token::missing((request.head, message, token), (catalog, server), claims, facts)
    {
        return decision;
    }
    let stateless = server.snapshot.era_for(Era::Legacy) == Era::Modern;
    if stateless && message.method.starts_with("resources/") && message.method != "resources/read" {
        return answer(message, Some(token), not_there(&message.method));
    }
    let own_session = facts.backend.clone().filter(|_| !stateless);
    let Some(backend) = own_session.or_else(|| stateless.then(BackendSession::stateless)) else {
        return Decision::Need(Need::Backend(claims.clone(), server.config.clone()));
    };
    let call = Call {
        head: request.head,
        message,
        target,
        token: Some(token),
        claims,
        backend: &backend,
        level: facts.level.as_ref(),
        user_token: facts.user_token.as_ref(),
        virtual_server: facts.selection.virtual_server.first(),
        bridge: stateless.then(|| bridge_of(message, facts, server.config.expose_server_info)),
        capabilities: offered(request.rules, claims),
        reads_replies: request.rules.holds_calls,
    };
    let again = user_token::again((request.head, catalog, server), (claims, false), facts);
    forwarded(&call, &permit, again)
}

/// What must be known before an item is said to be unknown: whether the session was ended, which only the store knows and
/// which comes before what it may see, and the caller's own lists.
fn missing(facts: &Facts, (claims, catalog): (&SessionClaims, &Catalog)) -> Option<Need> {
    if facts.revoked.is_none() {
        return Some(Need::Facts(claims.clone(), String::new()));
    }
    let unasked = facts.own.is_none() && user_lists::wanted(catalog);
    unasked.then(|| Need::UserLists(Box::new(Behalf::of_session(claims))))
}

/// What is there for this session alone, as far as it is known: its own lists, and the resource that it was given a link to.
fn unshared(
    target: &target::Target<'_>,
    (catalog, facts): (&Catalog, &Facts),
) -> (Option<PerCaller>, Option<Entry>) {
    let own = facts.own.as_ref().and_then(|own| PerCaller::merge(catalog, own));
    let server = facts.link.as_ref().and_then(Option::as_ref);
    let link = server.and_then(|server| catalog.linked(server, &target.name.value));
    (own, link)
}

/// Who gave the session a link to what it reads, when only that can tell where it is (data-plane.md 5.5).
fn unasked_link(
    message: &Message<'_>,
    claims: &SessionClaims,
    (target, view): (&target::Target<'_>, &View<'_>),
    facts: &Facts,
) -> Option<Need> {
    let uri = target.name.value.as_ref();
    let asks = message.method == "resources/read" && facts.link.is_none() && view.is_unlisted(uri);
    asks.then(|| Need::Link(claims.clone(), uri.to_owned()))
}

/// What stands in the way of a name that only a list for this caller alone could hold: the token that the list needs.
fn unlisted(
    (request, message): (&Request<'_>, &Message<'_>),
    (token, claims): (&str, &SessionClaims),
    (target, view): (&target::Target<'_>, &View<'_>),
    facts: &Facts,
) -> Option<Decision> {
    let server = view.unlisted(target.kind, &target.name.value)?;
    if !request.rules.url_elicitation {
        return None;
    }
    if facts.asked.as_ref() != Some(&server.config.name) {
        let need = Need::Facts(claims.clone(), server.config.name.clone());
        return Some(Decision::Need(need));
    }
    let asks = (request.head, message, token);
    user_token::missing(asks, (view.catalog(), server), claims, facts)
}

/// The forwarding; `again` says what is needed when the server refuses the person's token.
fn forwarded(facts_of_call: &Call<'_>, permit: &Permit<'_>, again: Option<UserToken>) -> Decision {
    let mut forward = call(facts_of_call, permit);
    let guard = forward.edits.guard.as_mut();
    if let Some(context) = guard.and_then(|guard| guard.repair.as_mut()) {
        context.user = again;
    }
    Decision::Forward(Box::new(forward))
}

/// What a server without sessions is told that the client can do: nothing, where nobody holds the call open to ask it.
fn offered(rules: &Rules, claims: &SessionClaims) -> String {
    if rules.holds_calls {
        capabilities(&claims.cap, version::MODERN).to_string()
    } else {
        "{}".to_owned()
    }
}

/// A call of a client with a session to a server without.
fn bridge_of(message: &Message<'_>, facts: &Facts, own_info: bool) -> Bridge {
    let token = message.meta.progress_token.clone();
    Bridge {
        client: Era::Legacy,
        server: Era::Modern,
        method: message.method.to_string(),
        id: message.id.unwrap_or("null").to_owned(),
        progress: token.and_then(|range| message.text.get(range).map(str::to_owned)),
        mapped: None,
        logs: facts.level.is_some(),
        private: true,
        state: None,
        round: None,
        own_info,
    }
}

/// The answer to a method that the server of an item has no counterpart of.
fn not_there(method: &str) -> Refusal {
    let what = format!("Method not found: {method}");
    Refusal::new(200, METHOD_NOT_FOUND, what, "method")
}

/// The answer to a bad, expired, revoked or foreign session.
pub fn session_not_found() -> Refusal {
    Refusal::new(404, SESSION, "session not found", "session")
}
