//! `MCPAuthPolicy`: which tools, prompts and resources a caller with a verified JWT may use (operator.md 10.1).

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
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::StrDeserializer},
};

use crate::references::{CaSecretRef, JwksRef};

/// Desired state of a policy.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp.kuadrant.io",
    version = "v1alpha1",
    kind = "MCPAuthPolicy",
    plural = "mcpauthpolicies",
    shortname = "mcpap",
    category = "mcp",
    namespaced,
    status = "MCPAuthPolicyStatus",
    derive = "PartialEq",
    doc = "MCPAuthPolicy says which tools, prompts and resources a caller with a verified JWT may use. What it is attached to is closed: nothing passes without a rule that allows it.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Enforced')].status"
    ),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultAction"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.authentication) || self.targetRefs.all(t, t.kind == 'Gateway' || t.kind == 'MCPGatewayExtension')").message("authentication belongs to a policy for a Gateway or MCPGatewayExtension"),
    validation = Rule::new("self.targetRefs.all(t, self.targetRefs.exists_one(u, u.kind == t.kind && u.name == t.name && (has(u.sectionName) ? u.sectionName : '') == (has(t.sectionName) ? t.sectionName : '')))").message("targetRefs must be unique")
)]
#[serde(rename_all = "camelCase")]
pub struct MCPAuthPolicySpec {
    /// What the policy is attached to, always in the policy's own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<PolicyTargetRef>,
    /// Who callers are. Only on policies for a Gateway or MCPGatewayExtension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What happens to a request that no rule matches. `Allow` only takes effect when every concerned policy says so.
    #[serde(default)]
    pub default_action: DefaultAction,
    /// Rules; a matching Deny beats every Allow.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub rules: Vec<PolicyRule>,
}

/// One target of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(self.group == 'gateway.networking.k8s.io') == (self.kind == 'Gateway')").message("group and kind do not belong together"),
    validation = Rule::new("!has(self.sectionName) || self.kind == 'Gateway'").message("sectionName is only for a Gateway")
)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetRef {
    /// Group of the target.
    #[serde(default)]
    pub group: PolicyTargetGroup,
    /// Kind of the target.
    #[serde(default)]
    pub kind: PolicyTargetKind,
    /// Name of the target.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Listener of a Gateway; absent: the whole Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub section_name: Option<String>,
}

/// Group of a policy's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyTargetGroup {
    /// `gateway.networking.k8s.io`
    #[default]
    #[serde(rename = "gateway.networking.k8s.io")]
    GatewayApi,
    /// `mcp.kuadrant.io`
    #[serde(rename = "mcp.kuadrant.io")]
    Mcp,
}

/// Kind of a policy's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyTargetKind {
    /// A Gateway or one of its listeners.
    #[default]
    Gateway,
    /// An extension.
    MCPGatewayExtension,
    /// One MCP server.
    MCPServerRegistration,
    /// One virtual server.
    MCPVirtualServer,
}

/// How callers prove who they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// By JWT.
    pub jwt: JwtAuthentication,
}

/// JWT authentication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuthentication {
    /// Accepted issuers.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub providers: Vec<JwtProvider>,
}

/// One accepted issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtProvider {
    /// Name within the policy.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Compared exactly with the claim `iss`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub issuer: String,
    /// One of them must be in `aud`. Effective default: the resource of the extension.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 2048), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub jwks: Jwks,
    /// Accepted signature algorithms; never `none`, never symmetric.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub algorithms: Vec<Algorithm>,
    /// Seconds of tolerance for `exp`, `nbf` and `iat`.
    #[serde(default = "default_leeway")]
    #[schemars(range(min = 0, max = 300))]
    pub leeway_seconds: i32,
    /// Each must be a word of `scope` or a member of `scp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^[^,\s]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub required_scopes: Vec<String>,
}

/// Source of a JWK set, or of one single JWK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("[has(self.inline), has(self.secretRef), has(self.configMapRef), has(self.remote)].filter(x, x).size() == 1").message("exactly one of inline, secretRef, configMapRef, remote")
)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    /// The document itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub inline: Option<String>,
    /// A Secret with label `mcp.kuadrant.io/secret=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<JwksRef>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<JwksRef>,
    /// Fetched by the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteJwks>,
}

/// A JWK set behind a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteJwks {
    /// https only.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https://[^\s]+$"))]
    pub url: String,
    /// Certificates that the server is verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_secret_ref: Option<CaSecretRef>,
    /// Seconds between two fetches.
    #[serde(default = "default_refresh")]
    #[schemars(range(min = 30, max = 86_400))]
    pub refresh_interval_seconds: i32,
}

/// Asymmetric JWS algorithms. Neither `none` nor HMAC is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of RFC 7518 speak for themselves")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// The algorithm of this exact name.
    pub fn named(name: &str) -> Option<Self> {
        let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// Lets pass.
    #[default]
    Allow,
    /// Refuses.
    Deny,
}

/// What happens without a matching rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DefaultAction {
    /// Refuse.
    #[default]
    Deny,
    /// Let pass.
    Allow,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// Appears in audit records and explanations. Effective default `rule-<index>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub name: Option<String>,
    /// Allow or Deny.
    #[serde(default)]
    pub effect: Effect,
    /// All must hold. Empty: every caller with a verified token; in a Deny rule every caller.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub matches: Vec<RuleMatch>,
    /// What the rule is about.
    pub resource: RuleResource,
    /// CEL over `claims`, `annotations` (of the tool or resource) and `arguments` (of the call) that must hold, too. An
    /// error never allows and always denies. In lists a condition that names `arguments` counts as true in an Allow rule
    /// and as false in a Deny rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: Option<String>,
}

/// One condition on the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleMatch {
    /// Kind of the condition.
    #[serde(default)]
    #[serde(rename = "type")]
    pub match_type: MatchType,
    /// Condition on a claim.
    pub jwt: ClaimMatch,
}

/// Kind of a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    /// On a claim of the verified JWT.
    #[default]
    JWT,
}

/// Condition on a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.values)").message("exactly one of value and values"))]
#[serde(rename_all = "camelCase")]
pub struct ClaimMatch {
    /// Exact claim name, else a dotted path through nested objects.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub claim: String,
    /// The claim equals this, or contains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
    /// The claim equals one of these, or contains one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 1024)))]
    pub values: Option<Vec<String>>,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleResource {
    /// Tool, prompt or resource.
    pub kind: ResourceKind,
    /// `*` or `<namespace>/<server>:<item>` with the server's own, unprefixed names (operator.md 10.2).
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub name: String,
}

/// Kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource.
    Resource,
}

/// Observed state of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPAuthPolicyStatus {
    /// `Accepted`, `Enforced`, `Conflicted`, `ResourcesResolved` (operator.md 10.5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// One entry for each target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub targets: Vec<PolicyTargetStatus>,
}

/// What became of one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetStatus {
    /// Group of the target.
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// Name of the target.
    pub name: String,
    /// Listener of a Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The target exists and the policy is valid.
    pub accepted: bool,
    /// Every ready replica of every extension concerned holds this generation.
    pub enforced: bool,
    /// `<namespace>/<name>` of the extensions concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

fn default_leeway() -> i32 {
    30
}

fn default_refresh() -> i32 {
    300
}
