//! The validated config. Values are parsed once here; later layers trust them.

use super::ca_bundle::CaBundle;
use super::front::FrontSettings;
use super::trouble::Trouble;
use crate::protocol::uri_prefix::UriPrefix;
use crate::secret::Secret;
use http::HeaderMap;
use mcp_gateway_api::authorization::Policies;
use mcp_gateway_api::config::PolicyProvider;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Everything that one config document says.
#[derive(Clone)]
pub struct Snapshot {
    /// Config hash, reported as `config.hash`.
    pub hash: String,
    /// Enabled and disabled servers in the document's order.
    pub servers: Vec<Arc<ServerConfig>>,
    /// Virtual servers by name.
    pub virtual_servers: HashMap<String, VirtualServer>,
    /// PEM bundle trusted for the hairpin and every `https` server.
    pub gateway_ca_pem: String,
    /// Further hosts of clients, in comparable form.
    pub public_hosts: Vec<String>,
    /// Further origins; `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Who may use what.
    pub policies: Policies,
    /// Issuers of tokens; with one of them every caller needs a token.
    pub providers: Vec<PolicyProvider>,
    /// What concerns the front itself.
    pub front: FrontSettings,
    /// Items that were left out, with the reason.
    pub errors: Vec<String>,
    /// What was ignored.
    pub warnings: Vec<String>,
}

/// One virtual server: sets of published names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualServer {
    /// Tools.
    pub tools: HashSet<String>,
    /// Prompts; `None` means all.
    pub prompts: Option<HashSet<String>>,
    /// Resource URIs; `None` means all.
    pub resources: Option<HashSet<String>>,
}

/// One MCP server.
#[derive(Clone)]
pub struct ServerConfig {
    /// Server name.
    pub name: String,
    /// `<name>:<prefix>:<hostname>`.
    pub id: String,
    /// Where the broker connects.
    pub url: Url,
    /// `:authority` of calls, in comparable form.
    pub hostname: String,
    /// Path and query of `url`.
    pub path: String,
    /// Put before every name.
    pub prefix: String,
    /// Put into every URI; `None` when URIs are published as they are (`resourceURIs`).
    pub uris: Option<UriPrefix>,
    /// False: not served, keeps nothing but its entry in the status.
    pub enabled: bool,
    /// `Authorization` of the broker's own connection.
    pub credential: Secret,
    /// Added to the roots for this server.
    pub ca: CaBundle,
    /// Lists are fetched per caller.
    pub user_specific_list: bool,
    /// Per-user token page; empty text means the built-in page.
    pub token_url_elicitation: Option<String>,
    /// Credential headers that this server may see, lower case.
    pub forward_headers: Vec<String>,
    /// Categories.
    pub category: Vec<String>,
    /// Hint.
    pub hint: String,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Precedence: creation time, UID, position in the document.
    pub age: (String, String, usize),
    /// Which era is tried.
    pub protocol: Protocol,
    /// Limit of one call.
    pub call_timeout: Option<Duration>,
    /// Results name this server as their `serverInfo` and not the gateway, when they name one.
    pub expose_server_info: bool,
    /// How the server is spoken with.
    pub transport: Transport,
    /// Process that the gateway starts and keeps running for this server.
    pub command: Option<Arc<ChildCommand>>,
    /// One process of `command` for all sessions.
    pub shared: bool,
    /// Sent with every request to the server, calls of clients included: set by the owner of the file.
    pub headers: HeaderMap,
    /// `url` is the gateway's own end of a bridge, which may be on this machine.
    pub bridged: bool,
    /// Why a bridged server cannot be reached.
    pub trouble: Trouble,
}

/// `servers[].transport`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    #[default]
    StreamableHttp,
    /// HTTP with a stream and an endpoint for messages, of 2024-11-05.
    Sse,
    /// Lines on standard input and output of `command`.
    Stdio,
}

/// A command and its surroundings. Arguments and variables may be credentials: no `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ChildCommand {
    /// Program, a path or a name that is looked up in `PATH`.
    pub program: String,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Variables beside the few that are passed on.
    pub environment: BTreeMap<String, String>,
    /// Working directory.
    pub folder: Option<String>,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// `servers[].protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Find out.
    #[default]
    Auto,
    /// `initialize`.
    Legacy,
    /// `server/discover`.
    Modern,
}

impl ServerConfig {
    /// True when a connection made for `other` must be made anew for `self` (data-plane.md 3.4).
    pub fn needs_new_connection(&self, other: &Self, ca_bundle_changed: bool) -> bool {
        let differs = self.url != other.url
            || self.hostname != other.hostname
            || self.prefix != other.prefix
            || self.credential != other.credential
            || self.ca != other.ca
            || self.enabled != other.enabled
            || self.user_specific_list != other.user_specific_list
            || self.protocol != other.protocol
            || self.transport != other.transport
            || self.command != other.command
            || self.shared != other.shared
            || self.headers != other.headers
            || self.token_url_elicitation != other.token_url_elicitation
            || self.forward_headers != other.forward_headers;
        differs || (ca_bundle_changed && self.url.scheme() == "https")
    }

    /// True when nothing that anybody sees differs.
    pub fn same_facts(&self, other: &Self) -> bool {
        self.category == other.category
            && self.hint == other.hint
            && self.tags == other.tags
            && self.call_timeout == other.call_timeout
            && self.expose_server_info == other.expose_server_info
            && self.uris == other.uris
            && self.age == other.age
    }
}
