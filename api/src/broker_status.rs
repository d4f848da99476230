//! The JSON of the broker's `/status` and `/status/{name}` (data-plane.md 2.5 and 15.2): written by the broker, read by
//! the operator (operator.md 8.11) and by people. Member names and order are part of the contract.

use serde::{Deserialize, Serialize};

/// Body of `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatus {
    /// One entry per configured server, in the order of the config.
    pub servers: Vec<ServerStatus>,
    /// No server unready, nothing invalid, no conflict, no config error.
    pub overall_valid: bool,
    /// Number of configured servers.
    pub total_servers: u64,
    /// Servers that are ready.
    pub healthy_servers: u64,
    /// Servers that are not.
    pub un_healthy_servers: u64,
    /// Tools that lost their published name to another server.
    pub tool_conflicts: u64,
    /// When this was written, RFC 3339.
    pub timestamp: String,
    /// Client sessions with a tool scope (`select_tools`).
    pub scoped_sessions: u64,
    /// The config in use.
    pub config: ConfigStatus,
    /// Name of the pod.
    pub replica: String,
    /// Issuers of tokens whose keys are missing or old.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_problems: Vec<KeyProblem>,
}

/// `keyProblems[]`: the keys of an issuer are not as they should be (operator.md 10.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyProblem {
    /// `issuer` of the provider.
    pub issuer: String,
    /// The last keys still verify its tokens; without usable keys its callers are answered with 503.
    pub usable: bool,
    /// What is wrong, since when and until when, to be read after "the keys of issuer …".
    pub message: String,
}

/// `config` of [`BrokerStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigStatus {
    /// The config hash that is served (operator.md section 7); empty before the first good config.
    pub hash: String,
    /// `watch` (the Secret) or `file`.
    pub source: String,
    /// When it was applied, RFC 3339; empty before the first.
    pub loaded_at: String,
    /// What is wrong with the newest config, or which of its items were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was ignored: unknown keys and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One server of [`BrokerStatus`]; with `items` the body of `GET /status/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerStatus {
    /// `<name>:<prefix>:<hostname>`.
    pub id: String,
    /// Server name, `<namespace>/<registration>`.
    pub name: String,
    /// When the server was last contacted with a verdict, RFC 3339; empty before the first attempt.
    pub last_validated: String,
    /// What the operator shows; never a credential, query string, response body or header value.
    pub message: String,
    /// Whether the server is served.
    pub ready: bool,
    /// Tools served now.
    pub total_tools: u64,
    /// Prompts served now.
    pub total_prompts: u64,
    /// Resources served now.
    pub total_resources: u64,
    /// Resource templates served now.
    pub total_resource_templates: u64,
    /// Tools that do not validate.
    pub invalid_tools: u64,
    /// Which, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid_tool_list: Vec<InvalidItem>,
    /// Prompts that do not validate.
    pub invalid_prompts: u64,
    /// Which, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid_prompt_list: Vec<InvalidItem>,
    /// Items whose published name another server owns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<ItemConflict>,
    /// What does not stop the server but should be looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// `legacy`, `modern`, or empty while unknown.
    pub era: String,
    /// Verdict about the protocol version.
    pub protocol_validation: ProtocolValidation,
    /// Failures of connect, ping or list since the last success.
    pub consecutive_failures: u32,
    /// The items come from the last good list.
    pub stale: bool,
    /// A list was cut at its limit.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// Names of the items, in `/status/{name}` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ServerItems>,
}

/// `invalidToolList[]` and `invalidPromptList[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvalidItem {
    /// The server's own name of the item.
    pub name: String,
    /// Every violation.
    pub errors: Vec<String>,
}

/// `conflicts[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemConflict {
    /// `tool`, `prompt`, `resource` or `resourceTemplate`.
    pub kind: String,
    /// The published name or URI.
    pub name: String,
    /// Server name of the owner.
    pub owner: String,
}

impl ItemConflict {
    /// Who owns what these are about, each once, by name.
    #[must_use]
    pub fn owners(conflicts: &[Self]) -> Vec<&str> {
        let mut owners: Vec<&str> = conflicts.iter().map(|conflict| conflict.owner.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

/// `protocolValidation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProtocolValidation {
    /// Whether the gateway speaks the server's version.
    pub is_valid: bool,
    /// The version that the server negotiated.
    pub supported_version: String,
    /// The version that the gateway asked for.
    pub expected_version: String,
}

/// `items`: what the server offers and under which published name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerItems {
    /// Tools.
    pub tools: Vec<ItemName>,
    /// Prompts.
    pub prompts: Vec<ItemName>,
    /// Resources by URI, and templates by URI template.
    pub resources: Vec<ItemName>,
}

/// One entry of [`ServerItems`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemName {
    /// The server's own name or URI.
    pub name: String,
    /// The published name or URI; empty when another server owns it.
    pub published: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_status_of_the_contract_round_trips_with_its_members_in_order() {
        let golden = r#"{"servers":[{"id":"ns/weather:weather_:weather.mcp.local","name":"ns/weather","lastValidated":"2026-07-28T10:00:00.123456789Z","message":"server added successfully. Total tools added 4. Total prompts added 0","ready":true,"totalTools":4,"totalPrompts":0,"totalResources":1,"totalResourceTemplates":0,"invalidTools":1,"invalidToolList":[{"name":"bad","errors":["inputSchema.type must be \"object\""]}],"invalidPrompts":0,"conflicts":[{"kind":"tool","name":"weather_now","owner":"ns/older"}],"era":"legacy","protocolValidation":{"isValid":true,"supportedVersion":"2025-11-25","expectedVersion":"2025-11-25"},"consecutiveFailures":0,"stale":false}],"overallValid":false,"totalServers":1,"healthyServers":1,"unHealthyServers":0,"toolConflicts":1,"timestamp":"now","scopedSessions":0,"config":{"hash":"0123456789abcdef","source":"watch","loadedAt":"then"},"replica":"pod-1"}"#;
        let status: BrokerStatus = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), golden);
    }

    #[test]
    fn an_older_broker_with_fewer_members_is_still_read() {
        let status: BrokerStatus =
            serde_json::from_str(r#"{"servers":[{"name":"a/b","ready":true}],"config":{"hash":"x"}}"#)
                .unwrap();
        assert!(status.servers[0].ready);
        assert_eq!(status.config.hash, "x");
    }
}
