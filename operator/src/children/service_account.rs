//! ServiceAccount `mcp-gateway` (operator.md 5.1).

use mcp_gateway_api::names;
use serde_json::json;

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let sections = json!({"automountServiceAccountToken": false});
    Child::owned(blueprint, Kind::ServiceAccount, names::BROKER, sections)
}
