//! The edits of requests that go to an MCP server, and the plan for its reply (data-plane.md 8.6, 8.10).

use super::bridge::Bridge;
use super::head::credentials;
use super::relay::{Place, Relay};
use super::repair::{self, Subject};
use super::rewrite::{Form, ReplyPlan};
use super::target::Target;
use super::{Edits, Forward, Guard, Head, Metadata};
use crate::aggregation::view::Permit;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::protocol::header;
use crate::protocol::json::quoted;
use crate::protocol::message::Message;
use crate::protocol::version::Era;
use crate::secret::Secret;
use crate::sessions::store::BackendSession;
use crate::upstreams::items::{Hints, ItemKind};
use std::ops::Range;
use std::sync::Arc;

/// What servers of streamable HTTP insist on.
const BOTH: &str = "application/json, text/event-stream";

/// A call of an item.
pub struct Call<'a> {
    /// Headers.
    pub head: &'a Head,
    /// Message.
    pub message: &'a Message<'a>,
    /// What is called.
    pub target: Target<'a>,
    /// The client's session token, when it has a session.
    pub token: Option<&'a str>,
    /// Claims of its session, or of the one on whose behalf the server is spoken to.
    pub claims: &'a SessionClaims,
    /// Backend session.
    pub backend: &'a BackendSession,
    /// Log level of the session or the request.
    pub level: Option<&'a String>,
    /// Per-user token for the server.
    pub user_token: Option<&'a Secret>,
    /// Virtual server of the request.
    pub virtual_server: Option<&'a String>,
    /// What is changed between the two, when one of them has no sessions.
    pub bridge: Option<Bridge>,
    /// What the server is told that the client can do, JSON text; used with a bridge.
    pub capabilities: String,
    /// Replies come through this process anyway; where they do not, reading one costs a phase that was asked for before.
    pub reads_replies: bool,
}

/// The session on whose behalf something goes to a server.
pub struct OnBehalf<'a> {
    /// Headers.
    pub head: &'a Head,
    /// The client's session token, when it has a session.
    pub token: Option<&'a str>,
    /// Claims of its session, or of the one on whose behalf the server is spoken to.
    pub claims: &'a SessionClaims,
    /// Server.
    pub server: &'a Arc<ServerConfig>,
    /// Backend session.
    pub backend: &'a BackendSession,
    /// Per-user token for the server.
    pub user_token: Option<&'a Secret>,
}

impl Call<'_> {
    /// How the client speaks.
    fn era(&self) -> Era {
        if self.token.is_some() {
            Era::Legacy
        } else {
            Era::Modern
        }
    }
}

/// True when a reply of a server may have to be rewritten: the client can be asked something, or takes only JSON.
pub fn may_rewrite(head: &Head, claims: &SessionClaims) -> bool {
    !header::accepts(head.get("accept")).sse || can_be_asked(&claims.cap)
}

/// True when the client declared a capability that a server can use.
pub fn can_be_asked(capabilities: &str) -> bool {
    capabilities.contains(['e', 'u', 's', 'r'])
}

/// The forwarding of a call. It takes the permit: nothing unpermitted is forwarded.
pub fn call(call: &Call<'_>, permit: &Permit<'_>) -> Forward {
    let (entry, config) = (permit.entry(), &permit.server().config);
    let session = OnBehalf {
        head: call.head,
        token: call.token,
        claims: call.claims,
        server: config,
        backend: call.backend,
        user_token: call.user_token,
    };
    let mut edits = session.towards(&call.message.method, (Subject::Call, call.message.id));
    edits
        .set
        .push((call.target.name_header, header::encode(permit.target())));
    if call.target.kind == ItemKind::Tool {
        edits.set.push((header::HINTS, hints_value(entry.hints)));
    }
    if let Some(timeout) = config.call_timeout {
        edits
            .set
            .push((header::UPSTREAM_TIMEOUT, timeout.as_millis().to_string()));
    }
    let mut splices = Vec::new();
    if permit.target() != call.target.name.value {
        splices.push((call.target.name.range.clone(), quoted(permit.target())));
    }
    if let Some(bridge) = &call.bridge {
        splices.extend(bridge.edits(call.message, call.level, &call.capabilities));
    }
    if Era::of(&call.backend.version) == Era::Modern {
        mirrored(&mut edits, call, permit);
    }
    edits.splice = call.message.joined(splices);
    edits.metadata = metadata(call, permit);
    let is_changed = call.target.completion && call.reads_replies;
    let reply = session.reply((call.message.id, is_changed), call.level, call.bridge.clone());
    let reply = reply.map(|plan| ReplyPlan {
        completion: call.target.completion,
        ..plan
    });
    let may_link = call.token.is_some() && matches!(call.target.kind, ItemKind::Tool | ItemKind::Prompt);
    let links = may_link && !call.target.completion && permit.server().snapshot.resources;
    Forward {
        rule: permit.outcome().to_string(),
        links: links.then_some((call.claims.jti, call.claims.exp)),
        ..session.forward(edits, reply)
    }
}

/// The headers by which a request of the stateless revision says what it is about. A client's own `Mcp-Param-*` were
/// compared with its arguments, or come from nowhere and go no further.
fn mirrored(edits: &mut Edits, call: &Call<'_>, permit: &Permit<'_>) {
    edits
        .set
        .push((header::MCP_METHOD, call.message.method.to_string()));
    if !call.target.completion {
        edits
            .set
            .push((header::MCP_NAME, header::encode(permit.target())));
    }
    edits
        .remove
        .retain(|name| name != header::MCP_METHOD && (call.target.completion || name != header::MCP_NAME));
    if call.token.is_none() {
        edits.remove.retain(|name| !name.starts_with(header::MCP_PARAM));
        return;
    }
    let mirrors = permit.entry().mirrors.as_deref().unwrap_or_default();
    if mirrors.is_empty() || call.target.kind != ItemKind::Tool {
        return;
    }
    let arguments = call
        .message
        .arguments
        .and_then(|text| serde_json::from_str(text).ok());
    let arguments: serde_json::Value = arguments.unwrap_or_default();
    for mirror in mirrors {
        if let Some(value) = mirror.value(&arguments) {
            edits.remove.retain(|name| *name != mirror.header);
            edits.mirrored.push((mirror.header.clone(), value));
        }
    }
}

impl OnBehalf<'_> {
    /// The edits that every request to a server has.
    pub fn towards(&self, method: &str, (subject, id): (Subject, Option<&str>)) -> Edits {
        let config = self.server;
        let mut set = vec![
            (":authority", config.hostname.clone()),
            (":path", config.path.clone()),
            (header::METHOD, header::encode(method)),
            (header::SERVER_NAME, header::encode(&config.name)),
        ];
        let mut remove: Vec<String> = [header::MCP_METHOD, header::MCP_NAME].map(str::to_owned).to_vec();
        let parameters = self.head.fields.iter().map(|(name, _)| name);
        remove.extend(
            parameters
                .filter(|name| name.starts_with(header::MCP_PARAM))
                .cloned(),
        );
        if subject != Subject::Stream {
            remove.push(LAST_EVENT_ID.to_owned());
            set.push(("accept", BOTH.to_owned()));
        }
        match &self.backend.id {
            Some(id) => set.push((header::SESSION, id.clone())),
            None => remove.push(header::SESSION.to_owned()),
        }
        if self.backend.version.as_str() >= "2025-06-18" {
            set.push((header::PROTOCOL_VERSION, self.backend.version.clone()));
        } else {
            remove.push(header::PROTOCOL_VERSION.to_owned());
        }
        let mut credentials = credentials(self.head, &config.forward_headers);
        if let Some(token) = self.user_token {
            // What the guard removes is what the client sent; the person's own token for this server stays.
            credentials.retain(|(name, _)| *name != "authorization");
            set.push(("authorization", token.expose().to_owned()));
        }
        let context = repair::Context::new((subject, id), self.claims, &config.name, self.backend);
        Edits {
            set,
            remove,
            guard: Some(Box::new(Guard {
                session: self.token.map(str::to_owned),
                credentials,
                repair: Some(context),
                hairpin: false,
                pass_challenge: config.forward_headers.iter().any(|name| name == "authorization"),
            })),
            ..Edits::default()
        }
    }

    /// The plan for the reply to the request with this id, or for a stream; `is_changed` when more than a bridge and the
    /// server's URIs ask for one.
    pub fn reply(
        &self,
        (id, is_changed): (Option<&str>, bool),
        level: Option<&String>,
        bridge: Option<Bridge>,
    ) -> Option<ReplyPlan> {
        let takes_events = header::accepts(self.head.get("accept")).sse;
        let changed = is_changed || bridge.is_some() || self.server.uris.is_some();
        let form = match (takes_events, id) {
            (true, _) if changed || can_be_asked(&self.claims.cap) => Form::Events,
            (false, Some(_)) => Form::Json,
            _ => return None,
        };
        let to = (self.server.as_ref(), self.backend);
        let relay = Relay::new(self.claims, to, Place::Call, takes_events);
        Some(ReplyPlan {
            relay: relay.with_level(level.cloned()),
            form,
            id: id.map(str::to_owned),
            bridge,
            completion: false,
        })
    }

    /// The forwarding with these edits and this plan.
    pub fn forward(&self, mut edits: Edits, reply: Option<ReplyPlan>) -> Forward {
        if reply.is_some() {
            edits.set.push(("accept-encoding", "identity".to_owned()));
        }
        Forward {
            server: Arc::clone(self.server),
            backend: self.backend.clone(),
            edits,
            reply,
            rule: String::new(),
            once: None,
            links: None,
        }
    }

    /// The forwarding of a message that calls nothing, with one value of its body put back.
    pub fn forward_back(&self, method: &str, route: &'static str, splice: (Range<usize>, String)) -> Forward {
        let mut edits = self.towards(method, (Subject::Answer, None));
        edits.splice = Some(splice);
        edits.metadata = Metadata {
            text: vec![
                ("method", method.to_owned()),
                ("era", "legacy".to_owned()),
                ("server", self.server.name.clone()),
                ("session", self.claims.jti.to_string()),
                ("route", route.to_owned()),
            ],
            hints: None,
        };
        self.forward(edits, None)
    }
}

/// Header by which a client takes up a stream again.
pub const LAST_EVENT_ID: &str = "last-event-id";

fn metadata(call: &Call<'_>, permit: &Permit<'_>) -> Metadata {
    let (entry, config) = (permit.entry(), &permit.server().config);
    let mut text = vec![
        ("method", call.message.method.to_string()),
        ("era", call.era().as_str().to_owned()),
        ("server", config.name.clone()),
        (call.target.member, permit.target().to_owned()),
        ("published_name", call.target.name.value.to_string()),
        ("route", call.target.route.to_owned()),
    ];
    // What serves a client without a session is no session of that client.
    text.extend(call.token.map(|_| ("session", call.claims.jti.to_string())));
    text.extend(call.message.id.map(|id| ("request_id", id.to_owned())));
    text.extend(call.virtual_server.map(|name| ("virtual_server", name.clone())));
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
