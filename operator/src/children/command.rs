//! The flags of the broker that the operator owns (operator.md 5.2, table of `command`).

use mcp_gateway_api::{extension::DataPath, names};

use crate::{blueprint::Blueprint, preserve::Flag};

/// Element 0: the program's name in the image's working directory.
pub(crate) const PROGRAM: &str = "./mcp_gateway";
/// Where the config Secret is mounted.
pub(crate) const CONFIG_MOUNT: &str = "/config";
/// The flag that a user sets while `maxBodyBytes` is unset.
pub(crate) const MAX_BODY_FLAG: &str = "--max-request-body-size";
/// The flag with the Gateway's address.
pub(crate) const PRIVATE_HOST_FLAG: &str = "--mcp-gateway-private-host";

/// Elements 1 to 10, those that apply.
pub(crate) fn flags(blueprint: &Blueprint) -> Vec<Flag> {
    let spec = &blueprint.extension.spec;
    let mut flags = vec![
        Flag::new(
            "--mcp-broker-public-address",
            format!("0.0.0.0:{}", names::BROKER_HTTP_PORT),
        ),
        Flag::new(PRIVATE_HOST_FLAG, blueprint.private_host.as_str()),
        Flag::new(
            "--mcp-gateway-config",
            format!("{CONFIG_MOUNT}/{}", names::CONFIG_KEY),
        ),
        Flag::new(
            "--mcp-check-interval",
            spec.backend_ping_interval_seconds.to_string(),
        ),
        Flag::new("--mcp-gateway-public-host", blueprint.public_host.as_str()),
    ];
    if spec.url_elicitation.is_enabled() {
        flags.push(Flag::switch("--enable-url-elicitation"));
    }
    if let Some(level) = blueprint.log_level() {
        flags.push(Flag::new("--log-level", level.to_string()));
    }
    if let Some(bytes) = spec.max_body_bytes {
        flags.push(Flag::new(MAX_BODY_FLAG, bytes.to_string()));
    }
    let secret = format!("{}/{}", blueprint.namespace(), names::CONFIG_SECRET);
    flags.push(Flag::new("--mcp-gateway-config-secret", secret));
    if spec.data_path == DataPath::Direct {
        flags.push(Flag::new("--data-path", "direct"));
    }
    flags
}
