//! HTTPRoute `mcp-gateway-route` (operator.md 5.6): the MCP endpoint and its OAuth metadata, every defaulted field
//! written out, without `rules[].name` (younger than Gateway API v1.2.0).

use mcp_gateway_api::names;
use serde_json::{Value, json};

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

/// Headers that no client may send to the broker.
const STRIPPED: [&str; 2] = ["mcp-init-host", "router-key"];

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let mut endpoint = rule("/mcp");
    if let Value::Object(endpoint) = &mut endpoint {
        endpoint.insert(
            "filters".to_owned(),
            json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": STRIPPED}}]),
        );
    }
    managed(
        blueprint,
        names::ROUTE,
        &[endpoint, rule("/.well-known/oauth-protected-resource")],
    )
}

/// An HTTPRoute of ours on the extension's listener.
pub(super) fn managed(blueprint: &Blueprint, name: &str, rules: &[Value]) -> Child {
    let spec = json!({"spec": {
        "parentRefs": [{
            "group": names::GATEWAY_API_GROUP,
            "kind": "Gateway",
            "name": blueprint.gateway.name,
            "namespace": blueprint.gateway.namespace,
            "sectionName": blueprint.extension.spec.target_ref.section_name,
        }],
        "hostnames": [blueprint.public_host],
        "rules": rules,
    }});
    Child::owned(blueprint, Kind::HttpRoute, name, spec)
}

/// A rule that leads everything below `path` to the broker.
pub(super) fn rule(path: &str) -> Value {
    json!({
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [{
            "group": "",
            "kind": "Service",
            "name": names::BROKER,
            "port": names::BROKER_HTTP_PORT,
            "weight": 1,
        }],
    })
}
