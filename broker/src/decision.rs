//! What happens to a request: pure functions from a request, the catalog and known facts to a [`Decision`]
//! (data-plane.md 7). The header phase is `head`, the message `message`; failed replies of servers are `repair`, what
//! they say beside their answers `relay` and `rewrite`. No clock, network, store or randomness; `router` and `front`
//! only translate.

pub mod access;
pub mod batch;
pub mod bridge;
pub mod forward;
pub mod head;
pub mod message;
pub mod relay;
pub mod repair;
pub mod resume;
pub mod returned;
pub mod rewrite;
pub mod round;
pub mod stateless;
pub mod target;
pub mod user_token;

use crate::aggregation::user_lists::Own;
use crate::aggregation::view::Selection;
use crate::auth::capabilities::CapabilityRules;
use crate::auth::identity::{self, Binding};
use crate::auth::jwt::Verified;
use crate::auth::keys::Keys;
use crate::auth::pool::Behalf;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::protocol::header;
use crate::protocol::host;
use crate::protocol::reply::Refusal;
use crate::secret::Secret;
use crate::sessions::store::BackendSession;
use crate::upstreams::items::Hints;
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// Headers of a request as they came.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Names in lower case, pseudo headers included, values as bytes.
    pub fields: Vec<(String, Vec<u8>)>,
    /// No body follows.
    pub end_of_stream: bool,
    /// Who sent it, when the token of this request was verified.
    pub caller: Option<Arc<Verified>>,
}

impl Head {
    /// The first value of a header, when it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All values of a header; what is no text is kept as a replacement that equals nothing.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// `:method`.
    pub fn method(&self) -> &str {
        self.get(":method").unwrap_or_default()
    }

    /// `:path` with its query.
    pub fn path(&self) -> &str {
        self.get(":path").unwrap_or_default()
    }

    /// `:path` without its query.
    pub fn path_only(&self) -> &str {
        self.path().split(['?', '#']).next().unwrap_or_default()
    }

    /// What a session of this caller is bound to (data-plane.md 11.1): the verified identity, else the one that the token
    /// names; `None` for the anonymous caller.
    pub fn binding(&self, keys: &Keys) -> Option<Binding> {
        match &self.caller {
            Some(caller) => Some(identity::binding_of(keys, caller.subject())),
            None => identity::binding(keys, self.get("authorization")),
        }
    }

    /// `:authority` in comparable form.
    pub fn host(&self) -> String {
        host::comparable(
            self.get(":authority")
                .or_else(|| self.get("host"))
                .unwrap_or_default(),
        )
    }
}

/// Everything that is done to a request that goes on. Header values may be credentials: no `Debug` output shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Headers to set.
    pub set: Vec<(&'static str, String)>,
    /// Headers to remove.
    pub remove: Vec<String>,
    /// Bytes of the body to replace.
    pub splice: Option<(Range<usize>, String)>,
    /// `Mcp-Param-*` headers to set.
    pub mirrored: Vec<(String, String)>,
    /// Facts for policies and logs.
    pub metadata: Metadata,
    /// What the guard needs; present exactly when the request goes to an MCP server.
    pub guard: Option<Box<Guard>>,
}

impl std::fmt::Debug for Edits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set: Vec<&str> = self.set.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Edits")
            .field("set", &set)
            .field("remove", &self.remove)
            .finish_non_exhaustive()
    }
}

/// Dynamic metadata `mcp.kuadrant.io` (data-plane.md 8.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Text members.
    pub text: Vec<(&'static str, String)>,
    /// `hints` of a tool.
    pub hints: Option<Hints>,
}

/// Dynamic metadata `mcp.kuadrant.io/guard`. It holds credentials: no `Debug` output shows its values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// The client's session token, for the reply.
    pub session: Option<String>,
    /// Credential headers of the client that the server must not see.
    pub credentials: Vec<(&'static str, String)>,
    /// What a failed reply is decided by.
    pub repair: Option<repair::Context>,
    /// The request is a hairpin: the reply tells who made it.
    pub hairpin: bool,
    /// `www-authenticate` of the server may pass.
    pub pass_challenge: bool,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("hairpin", &self.hairpin)
            .finish_non_exhaustive()
    }
}

/// The decision about a message.
#[derive(Clone, Debug)]
pub enum Decision {
    /// To the broker.
    Broker(Edits),
    /// To an MCP server.
    Forward(Box<Forward>),
    /// Something must be fetched first; then decide again.
    Need(Need),
    /// Answered here.
    Answer(Answer),
}

/// A request that goes to an MCP server.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The server.
    pub server: Arc<ServerConfig>,
    /// The backend session that is used.
    pub backend: BackendSession,
    /// What is done to the request.
    pub edits: Edits,
    /// What is done to the reply, when anything.
    pub reply: Option<rewrite::ReplyPlan>,
    /// What let it pass, for the audit record: policy and rule, or nothing where no policy is asked.
    pub rule: String,
    /// The session that ends with the reply: the backend session was opened for this call alone.
    pub once: Option<SessionClaims>,
    /// The session whose links in the reply are noted, and its end in Unix seconds.
    pub links: Option<(Uuid, u64)>,
}

impl Forward {
    /// The call that is repeated when the server has lost its session, if it may be: the context of its repair.
    pub fn repeatable(&mut self) -> Option<&mut repair::Context> {
        let context = self.edits.guard.as_mut()?.repair.as_mut()?;
        (context.subject == repair::Subject::Call && context.backend.is_some()).then_some(context)
    }
}

/// A missing fact.
#[derive(Clone, Debug)]
pub enum Need {
    /// The store's facts about the session with the server of this name; an empty name asks about the session only.
    Facts(SessionClaims, String),
    /// A backend session.
    Backend(SessionClaims, Arc<ServerConfig>),
    /// What servers list for this caller alone.
    UserLists(Box<Behalf>),
    /// The server that gave a session a link to this URI.
    Link(SessionClaims, String),
    /// The per-user token for a server, or an entry of the page where a person leaves one.
    UserToken(SessionClaims, Arc<ServerConfig>),
}

/// An answer of the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is answered.
    pub refusal: Refusal,
    /// Raw id of the request, when there is one.
    pub id: Option<String>,
    /// The client's session token, when it was valid.
    pub session: Option<String>,
    /// What decided against the caller, for the audit record.
    pub rule: String,
}

/// What is known about a request beside its bytes.
#[derive(Clone, Default)]
pub struct Facts {
    /// Claims of the session token; `None` when there is no valid one.
    pub claims: Option<SessionClaims>,
    /// Set once the store was asked.
    pub revoked: Option<bool>,
    /// The server that the store was asked about; empty text when it was asked about the session only.
    pub asked: Option<String>,
    /// The session that the store was asked about.
    pub whose: Option<Uuid>,
    /// Backend session with the server concerned.
    pub backend: Option<BackendSession>,
    /// Log level of the session.
    pub level: Option<String>,
    /// Name of the server that the session called last.
    pub last: Option<String>,
    /// What the caller's inputs select.
    pub selection: Selection,
    /// Per-user token for the server concerned.
    pub user_token: Option<Secret>,
    /// Entry of the token page.
    pub elicitation: Option<Uuid>,
    /// What servers list for this caller alone.
    pub own: Option<Own>,
    /// Name of the server that gave the session a link to the resource that is read; the inner `None` when none did.
    pub link: Option<Option<String>>,
    /// When it came, Unix seconds.
    pub now: u64,
    /// New for each request.
    pub nonce: Uuid,
}

/// What of the process' settings decides.
#[derive(Clone)]
pub struct Rules {
    /// Largest body, bytes.
    pub max_body: usize,
    /// How `x-mcp-authorized` is read.
    pub capabilities: CapabilityRules,
    /// Servers that want per-user tokens get them.
    pub url_elicitation: bool,
    /// Calls are carried out here, so that one can be held open while its client is asked.
    pub holds_calls: bool,
}

/// The captured inputs of a client or policy (data-plane.md 8.5), read at `now` (Unix seconds).
pub fn selection(head: &Head, rules: &Rules, now: u64) -> Selection {
    Selection {
        virtual_server: head.all(header::VIRTUAL_SERVER),
        caller: head.caller.clone(),
        capabilities: rules.capabilities.read(&head.all(header::AUTHORIZED), now),
        scope: None,
        stateless: stateless::says_so(head),
    }
}

/// The internal headers of this request, to be removed.
pub fn internal_headers(head: &Head) -> Vec<String> {
    let mut names: Vec<String> = head
        .fields
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| header::is_internal(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
