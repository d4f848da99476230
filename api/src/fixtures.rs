//! Objects for unit tests, from minimal JSON put through the real parsers.

#![expect(clippy::indexing_slicing, reason = "test data of known shape")]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    extension::MCPGatewayExtension, gateway::Gateway, grant::ReferenceGrant,
    registration::MCPServerRegistration, route::HttpRoute, service::Service, world::World,
};

/// Builds a [`World`] object by object.
#[derive(Default)]
pub(crate) struct WorldBuilder(pub(crate) World);

fn meta(key: &str, second: i64) -> Value {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{key}"), "generation": 1,
        "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")})
}

pub(crate) fn extension(key: &str, second: i64, gateway: &str, listener: &str) -> MCPGatewayExtension {
    let (namespace, name) = gateway.split_once('/').expect("namespace/name");
    serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension", "metadata": meta(key, second),
        "spec": {"targetRef": {"name": name, "namespace": namespace, "sectionName": listener}},
    }))
    .expect("an extension")
}

impl WorldBuilder {
    /// A Gateway `infra/gw` with listeners `mcp` 8080, `mcps` 8080 and `other` 9090, open to all namespaces.
    pub(crate) fn gateway(mut self, scope: Option<&str>) -> Self {
        let listener = |name: &str, port: i32, hostname: &str| {
            json!({"name": name, "port": port, "protocol": "HTTP", "hostname": hostname,
                "allowedRoutes": {"namespaces": {"from": "All"}}})
        };
        let annotations = scope.map_or_else(
            || json!({}),
            |scope| json!({"mcp.kuadrant.io/extension-scope": scope}),
        );
        let mut metadata = meta("infra/gw", 0);
        metadata["annotations"] = annotations;
        self.set_gateway(
            &json!({"metadata": metadata, "spec": {"gatewayClassName": "istio", "listeners": [
            listener("mcp", 8080, "mcp.example.com"), listener("mcps", 8080, "*.mcp.local"),
            listener("other", 9090, "*.other.local")]}}),
        );
        self
    }

    pub(crate) fn set_gateway(&mut self, object: &Value) {
        self.0
            .set_gateway(Arc::new(Gateway::from_value(object).expect("a Gateway")));
    }

    pub(crate) fn extension(mut self, key: &str, second: i64, gateway: &str, listener: &str) -> Self {
        self.0
            .set_extension(Arc::new(extension(key, second, gateway, listener)));
        self
    }

    pub(crate) fn grant(mut self, from: (&str, &str, &str), namespace: &str, to: (&str, &str)) -> Self {
        let object = json!({"metadata": {"namespace": namespace, "name": format!("grant-{}-{}", from.2, to.1)},
            "spec": {"from": [{"group": from.0, "kind": from.1, "namespace": from.2}],
                "to": [{"group": to.0, "kind": to.1}]}});
        let grant = ReferenceGrant::from_value(&object)
            .expect("a grant")
            .expect("live");
        self.0.set_grant(Arc::new(grant));
        self
    }

    pub(crate) fn gateway_grant(self, namespace: &str) -> Self {
        self.grant(
            ("mcp.kuadrant.io", "MCPGatewayExtension", namespace),
            "infra",
            ("gateway.networking.k8s.io", "Gateway"),
        )
    }

    /// A route accepted on `infra/gw`, listener `section`, with one Service backend.
    pub(crate) fn route(mut self, key: &str, host: &str, section: Option<&str>, backend: &Value) -> Self {
        let object = json!({"metadata": meta(key, 0), "spec": {"hostnames": [host], "rules": [{"backendRefs": [backend]}]},
            "status": {"parents": [{"controllerName": "istio.io/gateway-controller",
                "parentRef": {"name": "gw", "namespace": "infra", "sectionName": section},
                "conditions": [{"type": "Accepted", "status": "True"}]}]}});
        self.0
            .set_route(Arc::new(HttpRoute::from_value(&object).expect("a route")));
        self
    }

    pub(crate) fn service(mut self, key: &str, spec: &Value) -> Self {
        let object = json!({"metadata": meta(key, 0), "spec": spec});
        self.0
            .set_service(Arc::new(Service::from_value(&object).expect("a Service")));
        self
    }

    pub(crate) fn registration(mut self, key: &str, second: i64, spec: &Value) -> Self {
        let object: MCPServerRegistration = serde_json::from_value(json!({
            "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPServerRegistration", "metadata": meta(key, second),
            "spec": spec}))
        .expect("a registration");
        self.0.set_registration(Arc::new(object));
        self
    }
}
