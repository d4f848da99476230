//! Flags and environment (data-plane.md 2.2, 2.3): words → raw values (`flags`) → validated [`Options`]. A bad value is
//! one line and exit code 2. Nothing here touches files, sockets or the process environment.

mod flags;
mod raw;
mod validate;

#[cfg(test)]
mod tests;

use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

pub use flags::{FlagError, parse};

/// The validated settings of the process.
#[derive(Clone)]
pub struct Options {
    /// Config file candidates, in order of trial.
    pub config_files: Vec<PathBuf>,
    /// Secret `(namespace, name)` to watch beside the file.
    pub config_secret: Option<(String, String)>,
    /// Base URL of the cluster's API server, as the kubelet tells it to pods.
    pub api_server: Option<String>,
    /// Host that clients use, lower case, without port; empty in standalone mode.
    pub public_host: String,
    /// Hairpin target.
    pub private_host: PrivateHost,
    /// PEM file trusted for the hairpin.
    pub gateway_ca_cert: Option<PathBuf>,
    /// Bind address of the broker, `host:port`.
    pub broker_address: String,
    /// Bind address of the router, `host:port`; `None` in standalone mode.
    pub router_address: Option<String>,
    /// Bind address of the admin listener; `None` turns it off.
    pub metrics_address: Option<String>,
    /// `/debug/pprof` on loopback.
    pub enable_pprof: bool,
    /// HMAC keys.
    pub keys: KeyOptions,
    /// Lifetime of a client session.
    pub session_length: Duration,
    /// Store URL; empty means in process.
    pub cache_connection: Secret,
    /// Tick of every server connection.
    pub check_interval: Duration,
    /// Write timeout of replies that are not streams; zero means none.
    pub write_timeout: Duration,
    /// Largest request body, bytes.
    pub max_request_body: usize,
    /// Names of accepted flags whose feature this build does not have.
    pub not_built: Vec<&'static str>,
    /// Lists are empty without a valid `x-mcp-authorized`.
    pub enforce_capability_filtering: bool,
    /// What happens to a server with invalid tools.
    pub invalid_tool_policy: InvalidToolPolicy,
    /// PEM public key that verifies `x-mcp-authorized`.
    pub trusted_header_key: Option<String>,
    /// Servers that want per-user tokens get them.
    pub url_elicitation: bool,
    /// The gateway's own tools are published.
    pub discovery_tools: bool,
    /// Above this many tools a list shows the gateway's own tools only; zero never.
    pub discovery_threshold: usize,
    /// Origins added to the built-in set.
    pub allowed_origins: Vec<String>,
    /// What the Envoy filter is configured with; router deadlines derive from it.
    pub message_timeout: Duration,
    /// Upper bound for timer extensions; zero means none.
    pub max_message_timeout: Duration,
    /// Items in one page of a list.
    pub page_size: usize,
    /// Standalone mode.
    pub standalone: bool,
    /// Longest wait for a client's answer to a question of a server without sessions.
    pub bridge_wait: Duration,
    /// The front forwards calls to MCP servers itself: standalone, or `--data-path=direct`.
    pub forwards: bool,
    /// Lowest level that is logged.
    pub log_level: LogLevel,
    /// JSON instead of text.
    pub log_json: bool,
    /// OAuth protected-resource metadata.
    pub oauth: OauthOptions,
    /// Name of this replica in `/status`.
    pub replica: String,
}

/// HMAC keys of the gateway.
#[derive(Clone)]
pub struct KeyOptions {
    /// The current key; `None` only in standalone mode.
    pub signing: Option<Secret>,
    /// The previous key, for verification only.
    pub previous: Option<Secret>,
}

/// `--mcp-gateway-private-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateHost {
    /// `https` instead of `http`.
    pub tls: bool,
    /// Host without port.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// `--invalid-tool-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToolPolicy {
    /// Drop and report the invalid items.
    FilterOut,
    /// Withdraw the server.
    RejectServer,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything but traces.
    Debug,
    /// Lifecycle and refusals.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors.
    Error,
}

/// `OAUTH_…` (data-plane.md 2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthOptions {
    /// `resource_name`.
    pub resource_name: String,
    /// `resource`, absolute or a path.
    pub resource: String,
    /// `authorization_servers`.
    pub authorization_servers: Vec<String>,
    /// `bearer_methods_supported`.
    pub bearer_methods: Vec<String>,
    /// `scopes_supported`, without `offline_access`.
    pub scopes: Vec<String>,
}

/// The word of the command line that begins a child process: then the number of its parent, the program, and the arguments.
pub const CHILD_OF: &str = "child-of";

/// What the command line asks for.
pub enum Command {
    /// Serve.
    Run(Box<Options>),
    /// Print this text and exit 0.
    Print(String),
    /// Be a small MCP server to try the gateway with: at this address, or on standard input and output.
    Example(Option<String>),
    /// Become the server of a command: number of the parent, program, arguments.
    Child(String, String, Vec<String>),
}
