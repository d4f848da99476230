//! `MCPServerRegistration`: one MCP server behind an HTTPRoute (operator.md 1.2).

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

use crate::references::{CaSecretRef, CredentialRef, GatewayApiGroup, Switch};

/// Desired state of the registration of an MCP server.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp.kuadrant.io",
    version = "v1alpha1",
    kind = "MCPServerRegistration",
    plural = "mcpserverregistrations",
    shortname = "mcpsr",
    category = "mcp",
    namespaced,
    status = "MCPServerRegistrationStatus",
    derive = "PartialEq",
    doc = "MCPServerRegistration adds the MCP server behind an HTTPRoute to the MCP gateways on whose listeners that route is accepted.",
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.prefix"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.discoveredTools"),
    printcolumn(name = "Category", type_ = "string", json_path = ".spec.category"),
    printcolumn(
        name = "Credentials",
        type_ = "string",
        json_path = ".spec.credentialRef.name"
    ),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.protocolVersion",
        priority = 1
    ),
    printcolumn(
        name = "Prompts",
        type_ = "integer",
        json_path = ".status.discoveredPrompts",
        priority = 1
    ),
    printcolumn(
        name = "Resources",
        type_ = "integer",
        json_path = ".status.discoveredResources",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(oldSelf.prefix) || oldSelf.prefix == '' || (has(self.prefix) && self.prefix == oldSelf.prefix)").message("prefix is immutable once set"),
    validation = Rule::new("self.userSpecificList != 'Enabled' || (has(self.prefix) && self.prefix != '')").message("prefix is required when userSpecificList is Enabled")
)]
#[serde(rename_all = "camelCase")]
pub struct MCPServerRegistrationSpec {
    /// The HTTPRoute that leads to the MCP server.
    pub target_ref: RegistrationTargetRef,
    /// Put before every tool and prompt name of this server. Immutable once set. Absent: names are published unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^([a-z0-9][a-z0-9_]*)?$"))]
    pub prefix: Option<String>,
    /// Path of the MCP endpoint on the server.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[^\s?#]*$"))]
    pub path: String,
    /// Secret whose value is sent as `Authorization` by the gateway's own connection to the server (discovery), never on behalf of a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_ref: Option<CredentialRef>,
    /// Secret with the certificates that the server's TLS certificate is verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_secret_ref: Option<CaSecretRef>,
    /// `Disabled` takes the server's items away and keeps its prefix reserved.
    #[serde(default = "Switch::enabled")]
    pub state: Switch,
    /// The server wants a token of each user, handed in by URL. `{}` uses the built-in page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "tokenURLElicitation")]
    pub token_url_elicitation: Option<TokenURLElicitation>,
    /// The server's lists differ from user to user and are fetched for each caller.
    #[serde(default)]
    pub user_specific_list: Switch,
    /// Categories for discovery.
    #[serde(default = "default_category")]
    #[schemars(
        length(max = 3),
        inner(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub category: Vec<String>,
    /// A sentence for discovery: when to use this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^[^\x00-\x1f\x7f]*$"))]
    pub hint: Option<String>,
    /// Tags for discovery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 10),
        inner(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub tags: Vec<String>,
    /// Transport that the server speaks. `sse` (the older two-endpoint form) works only with `dataPath: Direct`.
    #[serde(default)]
    pub transport: Transport,
    /// Limit of one call in seconds. Unset: no limit of the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub call_timeout_seconds: Option<i32>,
    /// Credential headers of the client (lower case) that this server may see. None without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9!#$%&'*+.^_`|~-]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub forward_headers: Vec<String>,
}

/// The HTTPRoute of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationTargetRef {
    /// Group of the target.
    #[serde(default)]
    pub group: GatewayApiGroup,
    /// Kind of the target.
    #[serde(default)]
    pub kind: HttpRouteKind,
    /// Name of the HTTPRoute.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Namespace of the HTTPRoute; the registration's own when absent. Another namespace needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
}

/// The kind HTTPRoute, the only allowed value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpRouteKind {
    /// `HTTPRoute`
    #[default]
    HTTPRoute,
}

/// Where a user's token for a server is handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenURLElicitation {
    /// Page to open; absent: the gateway's own `/tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: Option<String>,
}

/// Transport of an MCP server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Streamable HTTP.
    #[default]
    #[serde(rename = "streamable-http")]
    StreamableHttp,
    /// The older HTTP+SSE transport.
    #[serde(rename = "sse")]
    Sse,
}

/// Observed state of a registration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPServerRegistrationStatus {
    /// `Ready` and `Conflicted` (operator.md 2.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// Tools that the brokers reported at the last successful answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_tools: Option<i32>,
    /// Prompts that the brokers reported at the last successful answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_prompts: Option<i32>,
    /// Resources, without templates, that the brokers reported at the last successful answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_resources: Option<i32>,
    /// Resource templates that the brokers reported at the last successful answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovered_resource_templates: Option<i32>,
    /// How the server is spoken to: `legacy` with sessions (2025-03-26 to 2025-11-25), `modern` without (2026-07-28). A server that
    /// offers both is `modern`. As the brokers reported it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub era: Option<String>,
    /// The revision of MCP that the brokers speak with the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
}

fn default_category() -> Vec<String> {
    vec!["uncategorised".to_owned()]
}

fn default_path() -> String {
    "/mcp".to_owned()
}
