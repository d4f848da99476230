//! The message (data-plane.md 4.5, 7, 8.6): which server a call goes to, with which edits. Everything that names an item
//! (`tools/call`, `prompts/get`, `resources/…`) is one code.

use super::head::{broker_edits, credentials};
use super::target::{self, Target};
use super::{Answer, Decision, Edits, Facts, Guard, Head, Metadata, Need, Rules, repair, selection};
use crate::aggregation::catalog::Catalog;
use crate::aggregation::view::{Permit, View};
use crate::auth::session::SessionClaims;
use crate::protocol::json::quoted;
use crate::protocol::message::{Message, MessageError, MessageKind};
use crate::protocol::reply::{INVALID_REQUEST, PARSE_ERROR, Refusal, SESSION};
use crate::protocol::{header, version};
use crate::sessions::store::BackendSession;
use crate::upstreams::items::{Hints, ItemKind};

/// A request with its message.
pub struct Request<'a> {
    /// Headers as the client sent them.
    pub head: &'a Head,
    /// Edits of the header phase, not yet repeated here.
    pub rules: &'a Rules,
    /// The message, or why there is none.
    pub message: &'a Result<Message<'a>, MessageError>,
}

/// Decides about a message.
pub fn judge(request: &Request<'_>, catalog: &Catalog, facts: &Facts) -> Decision {
    let message = match request.message {
        Ok(message) => message,
        Err(error) => return Decision::Answer(unreadable(error)),
    };
    let modern = message.meta_version.is_some()
        || request
            .head
            .get(header::PROTOCOL_VERSION)
            .is_some_and(version::is_modern);
    if message.kind == MessageKind::Request && !modern && target::is_routed(&message.method) {
        return routed(request, message, (catalog, facts));
    }
    // Everything else is the broker's, which also refuses what no era knows.
    Decision::Broker(to_broker(request, message, catalog))
}

fn unreadable(error: &MessageError) -> Answer {
    let (refusal, id) = match error {
        MessageError::Parse => (Refusal::new(400, PARSE_ERROR, "parse error", "parse"), None),
        MessageError::Invalid(id) => (
            Refusal::new(400, INVALID_REQUEST, "invalid request", "invalid"),
            id.clone(),
        ),
        MessageError::Batch => (
            Refusal::new(400, INVALID_REQUEST, "batch requests are not supported", "batch"),
            None,
        ),
    };
    Answer {
        refusal,
        id,
        session: None,
    }
}

fn to_broker(request: &Request<'_>, message: &Message<'_>, catalog: &Catalog) -> Edits {
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

fn answer(message: &Message<'_>, token: Option<&str>, refusal: Refusal) -> Decision {
    Decision::Answer(Answer {
        refusal,
        id: message.id.map(str::to_owned),
        session: token.map(str::to_owned),
    })
}

fn routed(request: &Request<'_>, message: &Message<'_>, (catalog, facts): (&Catalog, &Facts)) -> Decision {
    let Some(token) = request.head.get(header::SESSION) else {
        return answer(
            message,
            None,
            Refusal::new(400, INVALID_REQUEST, "missing Mcp-Session-Id", "session_missing"),
        );
    };
    let (Some(claims), false) = (&facts.claims, facts.revoked == Some(true)) else {
        return answer(message, None, session_not_found());
    };
    let unserved = |version: &str| version::served(version).is_none();
    if request.head.get(header::PROTOCOL_VERSION).is_some_and(unserved) {
        let refusal = Refusal::new(
            400,
            INVALID_REQUEST,
            "unsupported MCP-Protocol-Version",
            "version",
        );
        return answer(message, Some(token), refusal);
    }
    let target = match target::target(message) {
        Ok(target) => target,
        Err(refusal) => return answer(message, Some(token), refusal),
    };
    let selection = selection(request.head, request.rules);
    let Some(permit) = target.permit(&View::new(catalog, &selection)) else {
        // Whether the session was ended is known only to the store, and comes before what it may see.
        return match facts.revoked {
            Some(_) => answer(message, Some(token), target.unknown()),
            None => Decision::Need(Need::Facts(claims.clone(), String::new())),
        };
    };
    let server = permit.server();
    if target.completion && !server.snapshot.completions {
        return Decision::Broker(to_broker(request, message, catalog));
    }
    if facts.revoked.is_none() {
        return Decision::Need(Need::Facts(claims.clone(), server.config.name.clone()));
    }
    let Some(backend) = &facts.backend else {
        return Decision::Need(Need::Backend(claims.clone(), server.config.clone()));
    };
    let call = Call {
        message,
        target,
        token,
        claims,
        backend,
    };
    Decision::Forward(
        server.config.clone(),
        forward(request, &call, &permit, selection.virtual_server.first()),
    )
}

/// The answer to a bad, expired, revoked or foreign session.
pub fn session_not_found() -> Refusal {
    Refusal::new(404, SESSION, "session not found", "session")
}

struct Call<'a> {
    message: &'a Message<'a>,
    target: Target<'a>,
    token: &'a str,
    claims: &'a SessionClaims,
    backend: &'a BackendSession,
}

/// Edits of a call to a legacy server. It takes the permit: nothing unpermitted is forwarded.
fn forward(
    request: &Request<'_>,
    call: &Call<'_>,
    permit: &Permit<'_>,
    virtual_server: Option<&String>,
) -> Edits {
    let (entry, config) = (permit.entry(), &permit.server().config);
    let mut set = vec![
        (":authority", config.hostname.clone()),
        (":path", config.path.clone()),
        (header::METHOD, header::encode(&call.message.method)),
        (header::SERVER_NAME, header::encode(&config.name)),
        (call.target.name_header, header::encode(permit.target())),
    ];
    let mut remove: Vec<String> = ["mcp-method", "mcp-name", "last-event-id"]
        .map(str::to_owned)
        .to_vec();
    remove.extend(
        request
            .head
            .fields
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("mcp-param-"))
            .cloned(),
    );
    match &call.backend.id {
        Some(id) => set.push((header::SESSION, id.clone())),
        None => remove.push(header::SESSION.to_owned()),
    }
    if call.backend.version.as_str() >= "2025-06-18" {
        set.push((header::PROTOCOL_VERSION, call.backend.version.clone()));
    } else {
        remove.push(header::PROTOCOL_VERSION.to_owned());
    }
    if call.target.kind == ItemKind::Tool {
        set.push((header::HINTS, hints_value(entry.hints)));
    }
    if let Some(timeout) = config.call_timeout {
        set.push((header::UPSTREAM_TIMEOUT, timeout.as_millis().to_string()));
    }
    Edits {
        set,
        remove,
        splice: (permit.target() != call.target.name.value)
            .then(|| (call.target.name.range.clone(), quoted(permit.target()))),
        metadata: metadata(call, permit, virtual_server),
        guard: Some(Guard {
            session: Some(call.token.to_owned()),
            credentials: credentials(request.head, &config.forward_headers),
            repair: Some(repair::Context::new(
                call.message.id,
                call.claims,
                &config.name,
                call.backend,
            )),
            hairpin: false,
            pass_challenge: config.forward_headers.iter().any(|name| name == "authorization"),
        }),
    }
}

fn metadata(call: &Call<'_>, permit: &Permit<'_>, virtual_server: Option<&String>) -> Metadata {
    let (entry, config) = (permit.entry(), &permit.server().config);
    let mut text = vec![
        ("method", call.message.method.to_string()),
        ("era", "legacy".to_owned()),
        ("server", config.name.clone()),
        (call.target.member, permit.target().to_owned()),
        ("published_name", call.target.name.value.to_string()),
        ("session", call.claims.jti.to_string()),
        ("route", call.target.route.to_owned()),
    ];
    text.extend(call.message.id.map(|id| ("request_id", id.to_owned())));
    text.extend(virtual_server.map(|name| ("virtual_server", name.clone())));
    Metadata {
        text,
        hints: (call.target.kind == ItemKind::Tool).then_some(entry.hints),
    }
}

/// `readOnly=…,destructive=…,idempotent=…,openWorld=…`
fn hints_value(hints: Hints) -> String {
    let word = |hint: Option<bool>| hint.map_or("unspecified", |hint| if hint { "true" } else { "false" });
    format!(
        "readOnly={},destructive={},idempotent={},openWorld={}",
        word(hints.read_only),
        word(hints.destructive),
        word(hints.idempotent),
        word(hints.open_world)
    )
}
