//! Role `mcp-gateway`: the broker may watch its own config Secret, nothing else (operator.md 5.1, without the verb that it
//! never uses).

use mcp_gateway_api::names;
use serde_json::json;

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let rules = json!({"rules": [{
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [names::CONFIG_SECRET],
        "verbs": ["list", "watch"],
    }]});
    Child::owned(blueprint, Kind::Role, names::BROKER, rules)
}
