//! RoleBinding `mcp-gateway` (operator.md 5.1).

use mcp_gateway_api::names;
use serde_json::json;

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let sections = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": names::BROKER},
        "subjects": [{"kind": "ServiceAccount", "name": names::BROKER, "namespace": blueprint.namespace()}],
    });
    Child::owned(blueprint, Kind::RoleBinding, names::BROKER, sections)
}
