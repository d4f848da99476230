//! Objects of a large installation: 2,000 teams with an extension each, 10,000 registrations.

use serde_json::{Value, json};

pub(crate) const EXTENSIONS: usize = 2_000;
pub(crate) const REGISTRATIONS: usize = 10_000;

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": kind, "spec": spec, "metadata": {
        "namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}"),
        "creationTimestamp": "2026-01-01T00:00:00Z"}})
}

pub(crate) fn registration(n: usize, hint: &str) -> Value {
    let team = format!("team-{}", n % EXTENSIONS);
    let spec = json!({"targetRef": {"name": format!("r{n}")}, "prefix": format!("p{n}_"), "hint": hint});
    object("MCPServerRegistration", &team, &format!("s{n}"), &spec)
}

pub(crate) fn extension(n: usize, log_level: &str) -> Value {
    let spec = json!({"targetRef": {"name": format!("gw{n}"), "namespace": "infra", "sectionName": "mcp"},
        "publicHost": format!("mcp{n}.example.com"), "logLevel": log_level});
    object("MCPGatewayExtension", &format!("team-{n}"), "e", &spec)
}

/// Everything, with Gateways, routes and a grant.
pub(crate) fn world() -> Vec<Value> {
    let mut all: Vec<Value> = (0..EXTENSIONS).map(|n| extension(n, "info")).collect();
    all.extend((0..REGISTRATIONS).map(|n| registration(n, "old")));
    for n in 0..EXTENSIONS {
        all.push(json!({"kind": "Gateway", "metadata": {"namespace": "infra", "name": format!("gw{n}")},
            "spec": {"gatewayClassName": "istio", "listeners": [{"name": "mcp", "port": 8080, "protocol": "HTTP",
                "hostname": format!("mcp{n}.example.com"), "allowedRoutes": {"namespaces": {"from": "All"}}}]}}));
    }
    for n in 0..REGISTRATIONS {
        let team = format!("team-{}", n % EXTENSIONS);
        all.push(json!({"kind": "HTTPRoute", "metadata": {"namespace": team, "name": format!("r{n}")},
            "spec": {"hostnames": [format!("r{n}.example.com")], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]},
            "status": {"parents": [{"controllerName": "istio.io/gateway-controller",
                "parentRef": {"name": format!("gw{}", n % EXTENSIONS), "namespace": "infra"},
                "conditions": [{"type": "Accepted", "status": "True"}]}]}}));
    }
    let from = |n: usize| json!({"group": "mcp.kuadrant.io", "kind": "MCPGatewayExtension", "namespace": format!("team-{n}")});
    all.push(
        json!({"kind": "ReferenceGrant", "metadata": {"namespace": "infra", "name": "all"}, "spec": {
        "from": (0..EXTENSIONS).map(from).collect::<Vec<_>>(),
        "to": [{"group": "gateway.networking.k8s.io", "kind": "Gateway"}]}}),
    );
    all
}
