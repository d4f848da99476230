//! `MCPVirtualServer`: a named selection of published tools, prompts and resources (operator.md 1.3).

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a private scope"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Desired state of a virtual server.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp.kuadrant.io",
    version = "v1alpha1",
    kind = "MCPVirtualServer",
    plural = "mcpvirtualservers",
    shortname = "mcpvs",
    category = "mcp",
    namespaced,
    status = "MCPVirtualServerStatus",
    derive = "PartialEq",
    doc = "MCPVirtualServer names a selection of published tools, prompts and resources. Clients choose it by the header X-Mcp-Virtualserver: <namespace>/<name>; lists and calls are then restricted to it.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.resolvedTools"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MCPVirtualServerSpec {
    /// What the selection is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Published (prefixed) tool names.
    #[schemars(
        length(min = 1, max = 1024),
        inner(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub tools: Vec<String>,
    /// Published prompt names. Absent: every prompt. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub prompts: Option<Vec<String>>,
    /// Resource URIs. Absent: every resource. Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        inner(length(min = 1, max = 2048), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))
    )]
    pub resources: Option<Vec<String>>,
}

/// Observed state of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPVirtualServerStatus {
    /// `Ready` and `ToolsResolved` (operator.md 2.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// How many listed tools are served now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_tools: Option<i32>,
}
