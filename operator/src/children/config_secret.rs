//! Secret `mcp-gateway-config`: the whole document, written only by the extension's reconcile (operator.md 5.5, 7).

use base64::{Engine, engine::general_purpose::STANDARD};
use mcp_gateway_api::names;
use serde_json::json;

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let data = json!({"data": {names::CONFIG_KEY: STANDARD.encode(blueprint.config_yaml.as_bytes())}});
    Child::owned(blueprint, Kind::Secret, names::CONFIG_SECRET, data)
        .label("app", names::BROKER)
        .label(names::AGGREGATED_LABEL, "true")
        .label(names::SECRET_LABEL, "true")
}
