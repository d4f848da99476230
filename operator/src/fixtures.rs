//! Objects for unit tests, from minimal JSON put through the real cache.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::object_key::ObjectKey;
use serde_json::{Value, json};

use crate::{
    blueprint::Settings,
    cache::Cache,
    context::{Context, Parts},
    events::Events,
    kinds::Kind,
    metrics::Metrics,
    queue::Queue,
};

/// What a reconcile gets, over `objects` and a scripted API server.
pub(crate) fn context(client: kube::Client, objects: Objects) -> Context {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Context::new(Parts {
        events: Events::new(client.clone(), None),
        client,
        cache: Arc::new(objects.0),
        queue: Arc::new(Queue::default()),
        metrics: Arc::new(Metrics::new()),
        settings: Arc::new(Settings {
            broker_image: "broker".to_owned(),
            broker_log_level: None,
            cluster_domain: "cluster.local".to_owned(),
            namespace: "mcp-system".to_owned(),
            manages_webhook: true,
            webhook_configuration_owner: None,
            operator_condition: None,
        }),
        http: reqwest::Client::new(),
        status_interval: Duration::from_secs(30),
    })
}

/// A cache that is filled object by object.
#[derive(Default)]
pub(crate) struct Objects(pub(crate) Cache);

fn metadata(key: &str, second: i64) -> Value {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{key}"), "generation": 1, "resourceVersion": "1",
        "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")})
}

impl Objects {
    /// Stores an object under its own name.
    pub(crate) fn put(self, kind: Kind, key: &str, body: &Value) -> Self {
        self.put_at(kind, key, 1, body)
    }

    /// Stores an object that was created at `second`.
    pub(crate) fn put_at(self, kind: Kind, key: &str, second: i64, body: &Value) -> Self {
        let mut object = body.clone();
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.name());
        let mut all = metadata(key, second);
        if let (Value::Object(all), Value::Object(more)) = (&mut all, &object["metadata"]) {
            all.extend(more.clone());
        }
        object["metadata"] = all;
        let (namespace, name) = key.split_once('/').expect("namespace/name");
        self.0.apply(kind, &ObjectKey::new(namespace, name), object);
        self
    }

    /// Ends the first list of a kind: from now on changes count.
    pub(crate) fn listed(self, kind: Kind) -> Self {
        let keys = self
            .0
            .list(kind, |_| true)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        self.0.finish_list(kind, &keys);
        self
    }

    /// Gateway `infra/gw` with listener `mcp` on 8080 and `mcps` on 8080, and extension `team/ext` on it with a grant.
    pub(crate) fn gateway_and_extension(self) -> Self {
        let listener = |name: &str, hostname: &str| {
            json!({"name": name, "port": 8080, "protocol": "HTTP", "hostname": hostname,
                "allowedRoutes": {"namespaces": {"from": "All"}}})
        };
        let listeners = [
            listener("mcp", "mcp.example.com"),
            listener("mcps", "*.mcp.local"),
        ];
        let gateway = json!({"spec": {"gatewayClassName": "istio", "listeners": listeners}});
        let grant = json!({"spec": {
            "from": [{"group": "mcp.kuadrant.io", "kind": "MCPGatewayExtension", "namespace": "team"}],
            "to": [{"group": "gateway.networking.k8s.io", "kind": "Gateway"}],
        }});
        let spec = json!({"spec": {"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
        self.put(Kind::Gateway, "infra/gw", &gateway)
            .put(Kind::ReferenceGrant, "infra/allow", &grant)
            .put(Kind::Extension, "team/ext", &spec)
    }

    /// A server with Service, accepted HTTPRoute and registration `<namespace>/<name>`, prefix `<name>_`.
    pub(crate) fn server(self, key: &str, second: i64, spec: &Value) -> Self {
        let (_, name) = key.split_once('/').expect("namespace/name");
        let parent = json!({"name": "gw", "namespace": "infra", "sectionName": "mcps"});
        let route = json!({
            "spec": {"parentRefs": [parent], "hostnames": [format!("{name}.mcp.local")],
                "rules": [{"backendRefs": [{"name": name, "port": 80}]}]},
            "status": {"parents": [{"controllerName": "istio.io/gateway-controller", "parentRef": parent,
                "conditions": [{"type": "Accepted", "status": "True"}]}]},
        });
        let mut registration = json!({"targetRef": {"name": name}, "prefix": format!("{name}_")});
        if let (Value::Object(registration), Value::Object(more)) = (&mut registration, spec) {
            registration.extend(more.clone());
        }
        self.put(Kind::Service, key, &json!({"spec": {"ports": [{"port": 80}]}}))
            .put(Kind::HttpRoute, key, &route)
            .put_at(Kind::Registration, key, second, &json!({"spec": registration}))
    }
}
