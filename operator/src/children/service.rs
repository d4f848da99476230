//! Service `mcp-gateway` (operator.md 5.4): its type and everything but two ports and the selector is the user's.

use mcp_gateway_api::names;
use serde_json::{Value, json};

use super::{Child, common_labels};
use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) fn build(blueprint: &Blueprint) -> Child {
    let spec = json!({"spec": {
        "selector": common_labels(),
        "ports": [port("http", names::BROKER_HTTP_PORT), port("grpc", names::ROUTER_GRPC_PORT)],
    }});
    Child::owned(blueprint, Kind::Service, names::BROKER, spec)
}

fn port(name: &str, number: i32) -> Value {
    json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"})
}
