//! The config document that the operator writes and the broker reads: Secret `mcp-gateway-config`, key `config.yaml`
//! (operator.md section 7, data-plane.md section 3). Only the shape and its rendering live here; the broker's
//! item-wise validation and the members that only hand-written files have are the broker's.
//! Invariant: equal values render to equal bytes, and no type here shows a credential by `Debug` or `Display`.

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Largest document that the operator writes, in bytes (operator.md section 7).
pub const CONFIG_MAX_BYTES: usize = 900_000;

/// The whole document.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayConfig {
    /// First 16 hex digits of the SHA-256 of the document without this member; [`render`] sets it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Federated MCP servers, oldest registration first. Always present.
    pub servers: Vec<ServerEntry>,
    /// Virtual servers by name. Always present.
    pub virtual_servers: Vec<VirtualServerEntry>,
    /// PEM bundle trusted for the hairpin and for every `https` server.
    #[serde(rename = "gatewayCACertPEM", skip_serializing_if = "String::is_empty")]
    pub gateway_ca_cert_pem: String,
    /// Hosts that clients may use: the public host and those of custom routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_hosts: Vec<String>,
    /// Origins allowed beside the built-in set; `*` allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Policies (operator.md 10.6); a policy that is not accepted is present with `valid: false`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_policies: Vec<AuthPolicyEntry>,
    /// True when a policy, valid or not, attaches to the Gateway, listener or extension.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
}

/// One MCP server, made from one `MCPServerRegistration`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerEntry {
    /// Server name, `<namespace>/<registration>`; unique.
    pub name: String,
    /// Full URL that the broker connects to; the router uses its path.
    pub url: String,
    /// Host of the HTTPRoute, used as `:authority`; empty means the host of `url`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Put before every name as it is; empty means none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// `Authorization` value of the broker's own connection, verbatim; never used for client calls.
    #[serde(
        skip_serializing_if = "Credential::is_empty",
        serialize_with = "credential_text"
    )]
    pub credential: Credential,
    /// PEM added to the roots for this server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca_cert: String,
    /// Whether the server is served.
    pub state: ServerState,
    /// Per-user token by URL; present with an empty `url` means the built-in page.
    #[serde(rename = "tokenURLElicitation", skip_serializing_if = "Option::is_none")]
    pub token_url_elicitation: Option<TokenUrlElicitation>,
    /// True when the lists are fetched per caller.
    #[serde(skip_serializing_if = "is_false")]
    pub user_specific_list: bool,
    /// Discovery categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub category: Vec<String>,
    /// Discovery hint.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Discovery tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Credential headers of the client that this server may see, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward_headers: Vec<String>,
    /// `sse`; empty means `streamable-http`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Limit of one call, such as `30s`; empty means none of ours.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub call_timeout: String,
    /// Creation time of the registration, RFC 3339: first key of name precedence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// UID of the registration: second key of name precedence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// `servers[].state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// Connected and served.
    #[default]
    Enabled,
    /// In the document, keeps its prefix, not served.
    Disabled,
}

/// `servers[].tokenURLElicitation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenUrlElicitation {
    /// Page that takes the token; empty means the gateway's own page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// One virtual server: a named subset of what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualServerEntry {
    /// `<namespace>/<name>`.
    pub name: String,
    /// Published tool names; an empty list means none.
    pub tools: Vec<String>,
    /// Published prompt names; absent means all, an empty list none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// Published resource URIs; absent means all, an empty list none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<String>>,
}

/// One `MCPAuthPolicy` as the broker gets it (operator.md 10.6).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthPolicyEntry {
    /// `<namespace>/<name>`.
    pub name: String,
    /// Generation of the policy, reported back as enforced.
    pub generation: i64,
    /// False: everything that the policy concerns is denied.
    pub valid: bool,
    /// What the policy is attached to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<PolicyTarget>,
    /// `Allow` or `Deny` when no rule matches.
    pub default_action: PolicyAction,
    /// Where tokens come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<PolicyProvider>,
    /// Rules in the policy's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

/// `authPolicies[].targets[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyTarget {
    /// Kind of the target object, for example `Gateway`.
    pub kind: String,
    /// `<namespace>/<name>`.
    pub name: String,
    /// Listener port when the target is one listener of a Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Effect of a rule and of `defaultAction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAction {
    /// Let through.
    Allow,
    /// Refuse: the default, so that an absent value closes.
    #[default]
    Deny,
}

/// `authPolicies[].providers[]`: exactly one of `jwks` and `jwks_url` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyProvider {
    /// Name inside the policy.
    pub name: String,
    /// Required `iss`.
    pub issuer: String,
    /// Accepted `aud` values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// JWK set as JSON text, resolved by the operator.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwks: String,
    /// Remote JWK set, `https`.
    #[serde(rename = "jwksURL", skip_serializing_if = "String::is_empty")]
    pub jwks_url: String,
    /// PEM roots for `jwks_url`.
    #[serde(rename = "jwksCACert", skip_serializing_if = "String::is_empty")]
    pub jwks_ca_cert: String,
    /// Refresh interval of `jwks_url` in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_interval_seconds: Option<u32>,
    /// Accepted signature algorithms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// Clock leeway in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway_seconds: Option<u32>,
    /// Scopes that a token must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_scopes: Vec<String>,
}

/// `authPolicies[].rules[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyRule {
    /// Name of the rule, for audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What a match does.
    pub effect: PolicyAction,
    /// All must hold; empty holds for everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<PolicyMatch>,
    /// `Tool`, `Prompt`, `Resource` or `*`, as the policy writes it.
    pub kind: String,
    /// `<namespace>/<server>:<item>` with `*` (operator.md 10.2).
    pub resource: String,
    /// CEL; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub condition: String,
}

/// `authPolicies[].rules[].matches[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyMatch {
    /// Dotted claim path.
    pub claim: String,
    /// Accepted values.
    pub values: Vec<String>,
}

/// A credential in plain text. It has no `Debug`, `Display` or `Serialize`: only [`render`] writes it out.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Credential(String);

impl Credential {
    /// Wraps a value as it came from the Secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The plain text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn credential_text<S: Serializer>(value: &Credential, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.0)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The bytes to store and their identity.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedConfig {
    /// The document, with its `hash` member. It holds credentials: never log it.
    pub yaml: String,
    /// The config hash that brokers report as `config.hash`: 16 lower-case hex digits.
    pub hash: String,
}

/// A document that could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The YAML serializer refused a value.
    #[error("render config document: {0}")]
    Render(#[from] serde_saphyr::SerializeError),
    /// The text is not a config document; the text itself is not repeated, it may hold credentials.
    #[error("parse config document at {location}")]
    Parse {
        /// Line and column, or `unknown position`.
        location: String,
    },
}

/// Renders the document deterministically. The `hash` member of `config` is ignored and replaced.
///
/// # Errors
/// [`ConfigError::Render`] when the serializer fails, which no value of these types is known to cause.
pub fn render(config: &GatewayConfig) -> Result<RenderedConfig, ConfigError> {
    let mut document = config.clone();
    document.hash = String::new();
    let hash = hash_of(serialize(&document)?.as_bytes());
    document.hash.clone_from(&hash);
    Ok(RenderedConfig {
        yaml: serialize(&document)?,
        hash,
    })
}

/// Reads a document that [`render`] wrote. Unknown members are ignored.
///
/// # Errors
/// [`ConfigError::Parse`] for anything that is not such a document.
pub fn parse(yaml: &str) -> Result<GatewayConfig, ConfigError> {
    serde_saphyr::from_str(yaml).map_err(|error| ConfigError::Parse {
        location: location_of(&error),
    })
}

/// First 16 hex digits of the SHA-256 of `bytes`: the identity of a config that carries no `hash` of its own.
pub fn hash_of(bytes: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(bytes));
    digits.truncate(16);
    digits
}

/// Line and column of a YAML error, without any of the text around it.
pub fn location_of(error: &serde_saphyr::Error) -> String {
    match position_of(error) {
        Some((line, column)) => format!("line {line} column {column}"),
        None => "unknown position".to_owned(),
    }
}

/// Line and column of a YAML error, both from 1.
pub fn position_of(error: &serde_saphyr::Error) -> Option<(u64, u64)> {
    let location = error.location()?;
    Some((location.line(), location.column()))
}

fn serialize(document: &GatewayConfig) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(document)
}

#[cfg(test)]
mod tests;
