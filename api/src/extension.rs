//! `MCPGatewayExtension`: makes one listener of a Gateway an MCP gateway (operator.md 1.1).

#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column has a type of its own"
)]
#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a private scope"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::references::{CaSecretRef, GatewayApiGroup, SecretRef, Switch};

/// Desired state of an MCP gateway on a Gateway's listener.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp.kuadrant.io",
    version = "v1alpha1",
    kind = "MCPGatewayExtension",
    plural = "mcpgatewayextensions",
    shortname = "mcpge",
    category = "mcp",
    namespaced,
    status = "MCPGatewayExtensionStatus",
    derive = "PartialEq",
    doc = "MCPGatewayExtension turns one listener of a Gateway into an MCP gateway: one endpoint /mcp behind which the tools of many MCP servers appear as one server. At most one in a namespace, and one for a Gateway.",
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(
        name = "Listener",
        type_ = "string",
        json_path = ".spec.targetRef.sectionName"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("!has(self.trustedHeadersKey) || !(self.trustedHeadersKey.secretName in ['mcp-gateway-config', 'mcp-gateway-session-signing-key'])").message("trustedHeadersKey.secretName names a Secret that the operator owns"))]
#[serde(rename_all = "camelCase")]
pub struct MCPGatewayExtensionSpec {
    /// The Gateway and listener to extend.
    pub target_ref: ExtensionTargetRef,
    /// Host name that clients use. Defaults to the listener's hostname, with a leading `*.` replaced by `mcp.`. A port is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 259),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:[0-9]{1,5})?$")
    )]
    #[x_kube(validation = Rule::new("!self.contains('://')").message("publicHost is a host name without a scheme"))]
    pub public_host: Option<String>,
    /// Address under which the broker reaches the Gateway itself, passed on verbatim. Defaults to the Gateway's Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub private_host: Option<String>,
    /// Seconds between two checks of each MCP server.
    #[serde(default = "default_ping_interval")]
    #[schemars(range(min = 10, max = 7200))]
    pub backend_ping_interval_seconds: i32,
    /// Key that verifies the header `x-mcp-authorized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_headers_key: Option<TrustedHeadersKey>,
    /// Whether the operator writes the HTTPRoutes of the gateway. Disabling leaves existing ones as they are.
    #[serde(default = "Switch::enabled")]
    pub http_route_management: Switch,
    /// Whether the operator writes a NetworkPolicy for the broker.
    #[serde(default = "Switch::enabled")]
    pub network_policy_management: Switch,
    /// Namespaces whose registrations may ask for client headers by `forwardHeaders`; the own namespace always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 63),
            regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub forward_headers_from: Vec<String>,
    /// Browser origins beside the built-in ones: `*` or `scheme://host[:port]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 512),
            regex(pattern = r"^(\*|[a-z][a-z0-9+.-]*://[^\s/,]+)$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_origins: Vec<String>,
    /// `Required` refuses everything that no MCPAuthPolicy allows, also when there is no policy at all.
    #[serde(default)]
    pub authorization: Authorization,
    /// How calls travel. `ExtProc`: Envoy carries them to the MCP server, and policies on the server's route apply. `Direct`: the gateway forwards them itself; needs no EnvoyFilter, and policies on the servers' own routes do not apply.
    #[serde(default)]
    pub data_path: DataPath,
    /// Secret with a Redis-protocol address for shared sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_store: Option<SecretRef>,
    /// Whether users may hand in tokens for single MCP servers by URL.
    #[serde(default)]
    pub url_elicitation: Switch,
    /// OAuth protected-resource metadata (RFC 9728) that the gateway serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth_protected_resource: Option<OAuthProtectedResource>,
    /// Log level of the broker. Unset: the operator's default, else the user's own flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Certificates trusted by the broker in addition to the system's, for MCP servers and for the Gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_bundle_ref: Option<CaSecretRef>,
    /// Largest accepted request body in bytes. Unset: 5242880.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_body_bytes: Option<i32>,
}

/// The Gateway and listener that an extension is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionTargetRef {
    /// Group of the target.
    #[serde(default)]
    pub group: GatewayApiGroup,
    /// Kind of the target.
    #[serde(default)]
    pub kind: GatewayKind,
    /// Name of the Gateway.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Namespace of the Gateway; the extension's own when absent. Another namespace needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
    /// Name of the listener of the Gateway.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub section_name: String,
}

/// The kind Gateway, the only allowed value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayKind {
    /// `Gateway`
    #[default]
    Gateway,
}

/// Where the public key for `x-mcp-authorized` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedHeadersKey {
    /// Secret in the extension's namespace; key `key` holds a PEM public key (SPKI, P-256).
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub secret_name: String,
    /// `Enabled`: the operator makes the pair, the private half in `<secretName>-private`.
    #[serde(default)]
    pub generate: Switch,
}

/// Whether authorisation needs a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Authorization {
    /// Requests are judged as soon as a policy concerns them.
    #[default]
    WhenPolicies,
    /// Requests that no policy allows are refused, also without any policy.
    Required,
}

/// How a call reaches its MCP server (design.md 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataPath {
    /// Through Envoy, decided by the router over ext_proc.
    #[default]
    ExtProc,
    /// Through the broker's own front.
    Direct,
}

/// Log level of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Lifecycle and refusals.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors only.
    Error,
}

/// OAuth protected-resource metadata (RFC 9728).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuthProtectedResource {
    /// Issuers of accepted tokens.
    #[schemars(
        length(min = 1, max = 10),
        inner(length(min = 1, max = 2048), regex(pattern = r"^https?://[^,\s]+$"))
    )]
    pub authorization_servers: Vec<String>,
    /// Name for people. Effective default `MCP Server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub resource_name: Option<String>,
    /// Identifier of the resource. Effective default `https://<public host>/mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^\S+$"))]
    pub resource: Option<String>,
    /// How tokens may be sent. Effective default `[header]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 10),
        inner(length(min = 1, max = 64), regex(pattern = r"^[^,\s]+$"))
    )]
    pub bearer_methods_supported: Option<Vec<String>>,
    /// Scopes that clients may ask for. Effective default `[basic]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 50),
        inner(length(min = 1, max = 253), regex(pattern = r"^[^,\s]+$"))
    )]
    pub scopes_supported: Option<Vec<String>>,
}

/// Observed state of an extension.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPGatewayExtensionStatus {
    /// `Ready` and `Progressing` (operator.md 2.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

fn default_ping_interval() -> i32 {
    60
}
