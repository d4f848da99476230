//! The data plane of the MCP gateway: broker, router and their shared catalog. Layers, upper may import lower:
//! `protocol ← options ← telemetry ← config ← auth ← transport ← authn, bridges, sessions, upstreams, kubernetes ←
//! aggregation ← decision ← pipeline ← router | front ← run`.
//! `router` and `front` never import each other.

pub mod aggregation;
pub mod auth;
pub mod authn;
pub mod bridges;
pub mod config;
pub mod decision;
pub mod example;
pub mod front;
pub mod kubernetes;
pub mod options;
pub mod pipeline;
pub mod protocol;
pub mod router;
pub mod run;
pub mod secret;
pub mod sessions;
pub mod telemetry;
pub mod transport;
pub mod upstreams;

/// Version of this build: `serverInfo.version`, `clientInfo.version` and `--version`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of this build, from `MCP_GATEWAY_REVISION` when it was built.
pub const REVISION: &str = match option_env!("MCP_GATEWAY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
