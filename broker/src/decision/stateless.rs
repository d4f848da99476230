//! Requests of the stateless revision (data-plane.md 4.1, 4.7): which they are, what they must say twice, and where those
//! go that name an item. Nothing of them is remembered.

use super::bridge::Bridge;
use super::forward::{Call, call};
use super::message::{Request, answer, hidden, to_broker};
use super::round::Round;
use super::{Decision, Facts, Forward, Head, Need, target, user_token};
use crate::aggregation::catalog::{Catalog, Server};
use crate::aggregation::user_lists::{self, PerCaller};
use crate::aggregation::view::{Permit, View};
use crate::auth::identity;
use crate::auth::keys::Keys;
use crate::auth::pool::{self, Person, Pool, pool};
use crate::auth::session::SessionClaims;
use crate::protocol::message::{Message, MessageKind};
use crate::protocol::reply::{
    HEADER_MISMATCH, INTERNAL, INVALID_PARAMS, METHOD_NOT_FOUND, Refusal, UNSUPPORTED_VERSION,
};
use crate::protocol::version::Era;
use crate::protocol::{header, meta, mirror::Mirror, version};
use crate::sessions::store::BackendSession;
use crate::upstreams::items::ItemKind;
use serde_json::Value;
use uuid::Uuid;

/// Path on which every request is taken as one of this revision.
pub const PATH: &str = "/mcp/stateless";
/// Path on which none is.
pub const SESSION_PATH: &str = "/mcp/stateful";
/// Methods that the gateway answers itself.
const OWN: [&str; 2] = ["server/discover", "subscriptions/listen"];

/// Whether the headers alone make a request one of this revision, if it has no session.
pub fn says_so(head: &Head) -> bool {
    match head.path_only() {
        SESSION_PATH => false,
        PATH => true,
        _ => head
            .get(header::PROTOCOL_VERSION)
            .is_some_and(|version| version::is_modern(version.trim())),
    }
}

/// Whether a message is one of this revision. `session`: its session token is one of ours; asked only when that decides.
pub fn is_stateless(head: &Head, message: &Message<'_>, session: impl FnOnce() -> bool) -> bool {
    match head.path_only() {
        SESSION_PATH => false,
        PATH => true,
        _ => (says_so(head) || message.meta.version.is_some()) && !session(),
    }
}

/// Whether the headers alone make a request one of this revision. `session`: its session token is one of ours, which the path
/// of this revision makes nothing of.
pub fn is_by_head(head: &Head, session: bool) -> bool {
    head.path_only() == PATH || (says_so(head) && !session)
}

/// How a request speaks, as metrics and records say it; `session`: its session token is one of ours.
pub fn era(head: &Head, message: Option<&Message<'_>>, session: bool) -> Era {
    let stateless = match message {
        Some(message) => is_stateless(head, message, || session),
        None => is_by_head(head, session),
    };
    if stateless { Era::Modern } else { Era::Legacy }
}

/// Whose backend sessions serve the caller.
pub fn pool_of(head: &Head, keys: &Keys, (now, nonce): (u64, Uuid)) -> Pool {
    let verified = head
        .caller
        .as_ref()
        .map(|caller| identity::binding_of(keys, caller.subject()).current);
    pool(
        keys,
        (verified.as_deref(), head.get("authorization")),
        (now, nonce),
    )
}

/// Tells callers apart in what they get and bring back; `None` is the anonymous caller.
pub fn who(head: &Head, keys: &Keys) -> Option<String> {
    let verified = head
        .caller
        .as_ref()
        .map(|caller| identity::binding_of(keys, caller.subject()).current);
    pool::who(keys, verified.as_deref(), head.get("authorization"))
}

fn mismatch(name: &str) -> Refusal {
    Refusal::new(
        400,
        HEADER_MISMATCH,
        format!("HeaderMismatch: {name}"),
        "header_mismatch",
    )
}

/// The only value of a header, without blanks around it.
fn single(head: &Head, name: &str) -> Option<String> {
    match head.all(name).as_slice() {
        [value] => Some(value.trim().to_owned()),
        _ => None,
    }
}

/// Checks what every request must say in headers and body, in the order in which a client should learn of it.
///
/// # Errors
/// The refusal: -32020, -32602, -32022, or -32601 with 404.
pub fn check(head: &Head, message: &Message<'_>) -> Result<(), Refusal> {
    check_version(head, message)?;
    if single(head, header::MCP_METHOD).as_deref() != Some(message.method.as_ref()) {
        return Err(mismatch("Mcp-Method"));
    }
    if !is_known(&message.method) {
        let what = format!("Method not found: {}", message.method);
        return Err(Refusal::new(404, METHOD_NOT_FOUND, what, "method"));
    }
    let member = match message.method.as_ref() {
        "tools/call" | "prompts/get" => &message.name,
        "resources/read" => &message.uri,
        _ => return Ok(()),
    };
    let Some(member) = member else { return Ok(()) };
    let given = single(head, header::MCP_NAME);
    let decoded = given.as_deref().and_then(header::decode);
    if decoded.as_deref() == Some(member.value.as_ref()) {
        Ok(())
    } else {
        Err(mismatch("Mcp-Name"))
    }
}

fn check_version(head: &Head, message: &Message<'_>) -> Result<(), Refusal> {
    let given = single(head, header::PROTOCOL_VERSION).ok_or_else(|| mismatch("MCP-Protocol-Version"))?;
    let missing = |name: &str| {
        let what = format!("missing params._meta[\"{name}\"]");
        Refusal::new(400, INVALID_PARAMS, what, "meta")
    };
    let version = message
        .meta
        .version
        .as_deref()
        .ok_or_else(|| missing(meta::VERSION))?;
    if message.meta.capabilities.is_none() {
        return Err(missing(meta::CAPABILITIES));
    }
    if version != given {
        return Err(mismatch("MCP-Protocol-Version"));
    }
    if version != version::MODERN {
        let data = serde_json::json!({"supported": version::SERVED, "requested": version}).to_string();
        let refusal = Refusal::new(
            400,
            UNSUPPORTED_VERSION,
            "Unsupported protocol version",
            "version",
        );
        return Err(refusal.with_data(data));
    }
    Ok(())
}

fn is_known(method: &str) -> bool {
    let lists = ItemKind::listed_by(method).is_some();
    lists || OWN.contains(&method) || is_routed(method)
}

/// Methods that name an item.
pub fn is_routed(method: &str) -> bool {
    matches!(
        method,
        "tools/call" | "prompts/get" | "resources/read" | "completion/complete"
    )
}

/// Compares the headers that mirror arguments with the arguments.
fn check_mirrors(head: &Head, message: &Message<'_>, mirrors: &[Mirror]) -> Result<(), Refusal> {
    if mirrors.is_empty() {
        return Ok(());
    }
    let arguments = message
        .arguments
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let arguments = arguments.unwrap_or_default();
    for mirror in mirrors {
        let given = head.all(&mirror.header);
        let given = match given.as_slice() {
            [] => None,
            [value] => Some(value.trim()),
            _ => return Err(mismatch(&mirror.header)),
        };
        if !mirror.agrees(&arguments, given) {
            return Err(mismatch(&mirror.header));
        }
    }
    Ok(())
}

/// Decides about a message of this revision.
pub fn judge(request: &Request<'_>, message: &Message<'_>, (catalog, facts): (&Catalog, &Facts)) -> Decision {
    if message.kind == MessageKind::Request && is_routed(&message.method) {
        return match check(request.head, message) {
            Ok(()) => routed(request, message, (catalog, facts)),
            Err(refusal) => answer(message, None, refusal),
        };
    }
    Decision::Broker(to_broker(request, message, catalog))
}

fn routed(request: &Request<'_>, message: &Message<'_>, (catalog, facts): (&Catalog, &Facts)) -> Decision {
    let target = match target::target(message) {
        Ok(target) => target,
        Err(refusal) => {
            return answer(
                message,
                None,
                Refusal {
                    status: 400,
                    ..refusal
                },
            );
        }
    };
    let pool = pool_of(request.head, request.keys, (facts.now, facts.nonce));
    let own = facts.own.as_ref().and_then(|own| PerCaller::merge(catalog, own));
    let view = target.view(message, (catalog, facts), own.as_ref());
    if message.method == "tools/call" && view.meta_tool(&target.name.value).is_some() {
        return Decision::Broker(to_broker(request, message, catalog));
    }
    let Some(permit) = target.permit(&view) else {
        return match &pool {
            Pool::Caller(claims) if facts.own.is_none() && user_lists::wanted(catalog) => {
                let behalf = user_token::behalf(request.head, request.keys, claims, facts.now);
                Decision::Need(Need::UserLists(Box::new(behalf)))
            }
            _ => unlisted((request, message, facts), (&target, &view))
                .unwrap_or_else(|| hidden(message, None, (&target, &view))),
        };
    };
    let mirrors = permit.entry().mirrors.as_deref().unwrap_or_default();
    if message.method == "tools/call"
        && let Err(refusal) = check_mirrors(request.head, message, mirrors)
    {
        return answer(message, None, refusal);
    }
    let server = permit.server();
    if target.completion && !server.snapshot.completions {
        return Decision::Broker(to_broker(request, message, catalog));
    }
    let pool = if request.rules.url_elicitation && server.config.token_url_elicitation.is_some() {
        match with_token((request, message, facts), (catalog, server)) {
            Ok(claims) => Pool::Caller(claims),
            Err(decision) => return *decision,
        }
    } else {
        pool
    };
    let backend = match backend(server, &pool, facts) {
        Ok(backend) => backend,
        Err(need) => return Decision::Need(*need),
    };
    let on_behalf = (&pool, &backend);
    forwarded((request, message, facts), (target, &permit), on_behalf, catalog)
}

/// On whose behalf a server is spoken to that wants a token of the person, once the token is there. Only a verified
/// identity finds its token again: what a caller merely says of itself could be said by others, too.
fn with_token(
    (request, message, facts): (&Request<'_>, &Message<'_>, &Facts),
    (catalog, server): (&Catalog, &Server),
) -> Result<SessionClaims, Box<Decision>> {
    let Some(Person { current, former }) = user_token::person_of(request.head, request.keys, facts.now)
    else {
        let what = "MCP server requires a per-user token, which a client without a session leaves only where the gateway verifies who calls";
        let refusal = Refusal::new(200, INTERNAL, what, "user_token");
        return Err(Box::new(answer(message, None, refusal)));
    };
    let need = |claims| {
        Err(Box::new(Decision::Need(Need::Facts(
            claims,
            server.config.name.clone(),
        ))))
    };
    let former = match former {
        _ if facts.asked.as_ref() != Some(&server.config.name) => return need(current),
        Some(former) if facts.user_token.is_none() && facts.whose == Some(current.jti) => {
            return need(former);
        }
        former => former.filter(|former| facts.user_token.is_some() && facts.whose == Some(former.jti)),
    };
    let claims = former.unwrap_or(current);
    match user_token::missing_without_session((request.head, message), (catalog, server), &claims, facts) {
        Some(decision) => Err(Box::new(decision)),
        None => Ok(claims),
    }
}

/// What stands in the way of a name that only a list for this verified caller alone could hold: the token that the list needs.
fn unlisted(
    asked: (&Request<'_>, &Message<'_>, &Facts),
    (target, view): (&target::Target<'_>, &View<'_>),
) -> Option<Decision> {
    let (request, ..) = asked;
    (request.rules.url_elicitation && request.head.caller.is_some()).then_some(())?;
    let server = view.unlisted(target.kind, &target.name.value)?;
    let found = with_token(asked, (view.catalog(), server));
    found.err().map(|decision| *decision)
}

/// The session with the server, or what must be fetched for it.
fn backend(server: &Server, pool: &Pool, facts: &Facts) -> Result<BackendSession, Box<Need>> {
    if server.snapshot.era() == Era::Modern {
        return Ok(BackendSession::stateless());
    }
    let claims = pool.claims();
    if pool.once().is_none() && facts.asked.as_ref() != Some(&server.config.name) {
        return Err(Box::new(Need::Facts(claims.clone(), server.config.name.clone())));
    }
    let opening = || Box::new(Need::Backend(claims.clone(), server.config.clone()));
    facts.backend.clone().ok_or_else(opening)
}

fn forwarded(
    (request, message, facts): (&Request<'_>, &Message<'_>, &Facts),
    (target, permit): (target::Target<'_>, &Permit<'_>),
    (pool, backend): (&Pool, &BackendSession),
    catalog: &Catalog,
) -> Decision {
    let server = Era::of(&backend.version);
    let round = Round {
        server: permit.server().config.name.clone(),
        method: message.method.to_string(),
        name: permit.target().to_owned(),
        binding: who(request.head, request.keys),
        now: facts.now,
        nonce: facts.nonce,
    };
    let mut state = None;
    if let Some(sealed) = &message.request_state {
        let opened = round.open(request.keys, &sealed.value);
        let Some(opened) = opened.filter(|_| server == Era::Modern) else {
            let refusal = Refusal::new(400, INVALID_PARAMS, "invalid requestState", "request_state");
            return answer(message, None, refusal);
        };
        state = Some((sealed.range.clone(), opened));
    }
    let raw = |range: &std::ops::Range<usize>| message.text.get(range.clone()).map(str::to_owned);
    let bridge = Bridge {
        client: Era::Modern,
        server,
        method: message.method.to_string(),
        id: message.id.unwrap_or("null").to_owned(),
        progress: message.meta.progress_token.as_ref().and_then(raw),
        mapped: (server == Era::Legacy).then(|| format!("\"g1-{}\"", facts.nonce.simple())),
        logs: message.meta.log_level.is_some(),
        private: facts.selection.is_personal(),
        state,
        round: Some(round),
        own_info: permit.server().config.expose_server_info,
    };
    let level = message.meta.log_level.as_ref().map(|level| level.to_string());
    let facts_of_call = Call {
        head: request.head,
        message,
        target,
        token: None,
        claims: pool.claims(),
        backend,
        level: level.as_ref(),
        user_token: facts.user_token.as_ref(),
        virtual_server: facts.selection.virtual_server.first(),
        bridge: Some(bridge),
        capabilities: String::new(),
        reads_replies: true,
    };
    let mut forward = call(&facts_of_call, permit);
    let guard = forward.edits.guard.as_mut();
    if let Some(context) = guard.and_then(|guard| guard.repair.as_mut()) {
        let catalog_and_server = (request.head, catalog, permit.server());
        context.user = user_token::again(catalog_and_server, (pool.claims(), true), facts);
    }
    let once = pool.once().filter(|_| server == Era::Legacy).cloned();
    Decision::Forward(Box::new(Forward { once, ..forward }))
}

#[cfg(test)]
mod tests;
