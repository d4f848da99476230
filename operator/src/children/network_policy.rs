//! NetworkPolicy `mcp-gateway` (operator.md 5.9): who may reach which port of the broker.

use mcp_gateway_api::names;
use serde_json::{Value, json};

use super::{Child, common_labels};
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let http = json!([port(names::BROKER_HTTP_PORT)]);
    let both = json!([port(names::BROKER_HTTP_PORT), port(names::ROUTER_GRPC_PORT)]);
    let near = json!([from(&blueprint.settings.namespace), from(blueprint.namespace())]);
    let spec = json!({"spec": {
        "podSelector": {"matchLabels": common_labels()},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [from(&blueprint.gateway.namespace)], "ports": both},
            {"from": near, "ports": http},
            {"ports": [port(names::BROKER_METRICS_PORT)]},
        ],
    }});
    Child::owned(blueprint, Kind::NetworkPolicy, names::BROKER, spec)
}

fn port(number: i32) -> Value {
    json!({"port": number, "protocol": "TCP"})
}

fn from(namespace: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}})
}
