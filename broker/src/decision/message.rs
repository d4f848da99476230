//! The message (data-plane.md 4.5, 7, 8.6): which server a call goes to, with which edits. Everything that names an item
//! (`tools/call`, `prompts/get`, `resources/…`) is one code.

use super::head::{broker_edits, credentials};
use super::{Answer, Decision, Edits, Facts, Guard, Head, Metadata, Need, Rules, repair, selection};
use crate::aggregation::catalog::Catalog;
use crate::aggregation::view::{Permit, View};
use crate::auth::session::SessionClaims;
use crate::protocol::json::quoted;
use crate::protocol::message::{Message, MessageError, MessageKind, Routed};
use crate::protocol::reply::{INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, Refusal, SESSION};
use crate::protocol::{header, version};
use crate::sessions::store::BackendSession;
use crate::upstreams::items::{Hints, ItemKind};

/// A method that is routed to the server of the item that it names.
struct RoutedMethod {
    kind: ItemKind,
    route: &'static str,
    name_header: &'static str,
    metadata_member: &'static str,
    by_uri: bool,
}

const fn by_name(
    kind: ItemKind,
    route: &'static str,
    name_header: &'static str,
    metadata_member: &'static str,
) -> RoutedMethod {
    RoutedMethod {
        kind,
        route,
        name_header,
        metadata_member,
        by_uri: false,
    }
}

const fn by_uri(route: &'static str) -> RoutedMethod {
    RoutedMethod {
        kind: ItemKind::Resource,
        route,
        name_header: header::RESOURCE_URI,
        metadata_member: "resource",
        by_uri: true,
    }
}

fn routed_method(method: &str) -> Option<RoutedMethod> {
    match method {
        "tools/call" => Some(by_name(ItemKind::Tool, "tool-call", header::TOOL_NAME, "tool")),
        "prompts/get" => Some(by_name(
            ItemKind::Prompt,
            "prompt-get",
            header::PROMPT_NAME,
            "prompt",
        )),
        "resources/read" => Some(by_uri("resource-read")),
        "resources/subscribe" | "resources/unsubscribe" => Some(by_uri("subscription")),
        _ => None,
    }
}

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
    match (message.kind, routed_method(&message.method)) {
        (MessageKind::Request, Some(method)) if !modern => {
            routed(request, message, &method, (catalog, facts))
        }
        // Everything else is the broker's, which also refuses what no era knows.
        _ => Decision::Broker(to_broker(request, message, catalog)),
    }
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

fn routed(
    request: &Request<'_>,
    message: &Message<'_>,
    method: &RoutedMethod,
    (catalog, facts): (&Catalog, &Facts),
) -> Decision {
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
    let (name, missing) = if method.by_uri {
        (&message.uri, "missing params.uri")
    } else {
        (&message.name, "missing params.name")
    };
    let Some(name) = name else {
        return answer(
            message,
            Some(token),
            Refusal::new(200, INVALID_PARAMS, missing, "params"),
        );
    };
    let selection = selection(request.head, request.rules);
    let view = View::new(catalog, &selection);
    let permit = if method.by_uri {
        view.permit_uri(&name.value)
    } else {
        view.permit(method.kind, &name.value)
    };
    let Some(permit) = permit else {
        // Whether the session was ended is known only to the store, and comes before what it may see.
        return match facts.revoked {
            Some(_) => answer(message, Some(token), unknown(method.kind, &name.value)),
            None => Decision::Need(Need::Facts(claims.clone(), String::new())),
        };
    };
    let server = permit.server();
    if facts.revoked.is_none() {
        return Decision::Need(Need::Facts(claims.clone(), server.config.name.clone()));
    }
    let Some(backend) = &facts.backend else {
        return Decision::Need(Need::Backend(claims.clone(), server.config.clone()));
    };
    let call = Call {
        message,
        method,
        name,
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

/// The answer to a name that is unknown or hidden.
pub fn unknown(kind: ItemKind, name: &str) -> Refusal {
    let refusal = |text: String| Refusal::new(200, INVALID_PARAMS, text, "unknown");
    match kind {
        ItemKind::Tool => refusal(format!("Unknown tool: {name}")),
        ItemKind::Prompt => refusal(format!("Unknown prompt: {name}")),
        ItemKind::Resource | ItemKind::Template => {
            refusal("Resource not found".to_owned()).with_data(format!(r#"{{"uri":{}}}"#, quoted(name)))
        }
    }
}

struct Call<'a> {
    message: &'a Message<'a>,
    method: &'a RoutedMethod,
    name: &'a Routed<'a>,
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
        (call.method.name_header, header::encode(permit.target())),
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
    if call.method.kind == ItemKind::Tool {
        set.push((header::HINTS, hints_value(entry.hints)));
    }
    if let Some(timeout) = config.call_timeout {
        set.push((header::UPSTREAM_TIMEOUT, timeout.as_millis().to_string()));
    }
    Edits {
        set,
        remove,
        splice: (permit.target() != call.name.value)
            .then(|| (call.name.range.clone(), quoted(permit.target()))),
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
        (call.method.metadata_member, permit.target().to_owned()),
        ("published_name", call.name.value.to_string()),
        ("session", call.claims.jti.to_string()),
        ("route", call.method.route.to_owned()),
    ];
    text.extend(call.message.id.map(|id| ("request_id", id.to_owned())));
    text.extend(virtual_server.map(|name| ("virtual_server", name.clone())));
    Metadata {
        text,
        hints: (call.method.kind == ItemKind::Tool).then_some(entry.hints),
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
