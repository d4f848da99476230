//! What we read of a `Gateway`: a lenient view, so that a value this version does not know (a new enum member of a
//! later Gateway API) never hides the whole object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    names,
    object_key::{Age, ObjectKey, is_live},
    selector::{LabelSelector, Labels},
};

/// A Gateway as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Identity.
    pub key: ObjectKey,
    /// Age.
    pub age: Age,
    /// False while it is being deleted.
    pub live: bool,
    /// Labels.
    pub labels: Labels,
    /// Value of the scope annotation, if any.
    pub scope_annotation: Option<String>,
    /// `spec.gatewayClassName`.
    pub class_name: String,
    /// `spec.listeners`.
    pub listeners: Vec<Listener>,
    /// `status.addresses`.
    pub addresses: Vec<Address>,
    /// `status.listeners`, by name.
    pub listener_status: BTreeMap<String, Vec<ForeignCondition>>,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Name, unique in the Gateway.
    pub name: String,
    /// Host that it serves; absent: every host.
    pub hostname: Option<String>,
    /// Port.
    pub port: i32,
    /// `HTTP`, `HTTPS`, `TLS`, …
    pub protocol: String,
    /// TLS settings.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    pub allowed_routes: AllowedRoutes,
}

/// TLS settings of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ListenerTls {
    /// `Terminate` (also when absent) or `Passthrough`.
    pub mode: Option<String>,
}

/// Which routes may attach to a listener (operator.md 4.6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    namespaces: Option<RouteNamespaces>,
    kinds: Option<Vec<RouteKind>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct RouteNamespaces {
    from: Option<String>,
    selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct RouteKind {
    group: Option<String>,
    kind: String,
}

/// One entry of `status.addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Address {
    /// `IPAddress`, `Hostname`, …
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The address.
    pub value: String,
}

/// A condition that another controller wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForeignCondition {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// How many extensions a Gateway takes (operator.md 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One.
    Gateway,
    /// One for each listener port.
    Listener,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    gateway_class_name: String,
    listeners: Vec<Listener>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
    listeners: Vec<ListenerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListenerStatus {
    name: String,
    conditions: Vec<ForeignCondition>,
}

impl Gateway {
    /// Reads the view out of a Gateway object.
    ///
    /// # Errors
    /// When a member that we read has another type than Gateway API gives it.
    pub fn from_value(object: &Value) -> Result<Self, serde_json::Error> {
        let Document {
            metadata,
            spec,
            status,
        } = Document::deserialize(object)?;
        Ok(Self {
            key: ObjectKey::of(&metadata),
            age: Age::of(&metadata),
            live: is_live(&metadata),
            scope_annotation: metadata
                .annotations
                .and_then(|mut all| all.remove(names::SCOPE_ANNOTATION)),
            labels: metadata.labels.unwrap_or_default(),
            class_name: spec.gateway_class_name,
            listeners: spec.listeners,
            addresses: status.addresses,
            listener_status: status
                .listeners
                .into_iter()
                .map(|entry| (entry.name, entry.conditions))
                .collect(),
        })
    }

    /// The listener called `name`.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// Names of the listeners, for messages; at most ten.
    #[must_use]
    pub fn listener_names(&self) -> String {
        crate::conditions::name_list(self.listeners.iter().map(|listener| listener.name.as_str()))
    }

    /// How many extensions it takes.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.scope_annotation.as_deref() {
            Some(names::SCOPE_LISTENER) => Scope::Listener,
            _ => Scope::Gateway,
        }
    }

    /// The value of the scope annotation when it is one that we do not know; it then counts as `Gateway`.
    #[must_use]
    pub fn unknown_scope(&self) -> Option<&str> {
        self.scope_annotation
            .as_deref()
            .filter(|value| ![names::SCOPE_GATEWAY, names::SCOPE_LISTENER].contains(value))
    }
}

impl Listener {
    /// True for HTTP, and for HTTPS that is terminated here.
    #[must_use]
    pub fn carries_http(&self) -> bool {
        let passthrough = self
            .tls
            .as_ref()
            .and_then(|tls| tls.mode.as_deref())
            .is_some_and(|mode| mode == "Passthrough");
        self.protocol.eq_ignore_ascii_case("HTTP") || (self.is_https() && !passthrough)
    }

    /// True when clients speak TLS to it.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.protocol.eq_ignore_ascii_case("HTTPS")
    }
}

impl AllowedRoutes {
    /// True when an HTTPRoute of `namespace` (with `labels`) may attach to a listener of a Gateway in
    /// `gateway_namespace`.
    #[must_use]
    pub fn allow(&self, namespace: &str, labels: &Labels, gateway_namespace: &str) -> bool {
        self.allow_namespace(namespace, labels, gateway_namespace) && self.allow_http_routes()
    }

    fn allow_namespace(&self, namespace: &str, labels: &Labels, gateway_namespace: &str) -> bool {
        let from = self
            .namespaces
            .as_ref()
            .and_then(|namespaces| namespaces.from.as_deref());
        match from.unwrap_or("Same") {
            "Same" => namespace == gateway_namespace,
            "All" => true,
            "Selector" => self
                .namespaces
                .as_ref()
                .and_then(|namespaces| namespaces.selector.as_ref())
                .is_some_and(|selector| selector.matches(labels)),
            _ => false,
        }
    }

    fn allow_http_routes(&self) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| {
            kinds.is_empty()
                || kinds.iter().any(|kind| {
                    kind.kind == "HTTPRoute"
                        && kind
                            .group
                            .as_deref()
                            .is_none_or(|group| group == names::GATEWAY_API_GROUP)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(allowed: &Value) -> Gateway {
        Gateway::from_value(&json!({
            "metadata": {"name": "gw", "namespace": "infra", "annotations": {"mcp.kuadrant.io/extension-scope": "listener"}},
            "spec": {"gatewayClassName": "istio", "listeners": [
                {"name": "mcp", "port": 8080, "protocol": "HTTP", "allowedRoutes": allowed}]},
        }))
        .expect("a Gateway")
    }

    fn allows(allowed: &Value, namespace: &str, label: Option<&str>) -> bool {
        let labels = label
            .map(|team| ("team".to_owned(), team.to_owned()))
            .into_iter()
            .collect();
        gateway(allowed)
            .listener("mcp")
            .expect("listener")
            .allowed_routes
            .allow(namespace, &labels, "infra")
    }

    #[test]
    fn allowed_routes_follow_gateway_api() {
        let from = |value: &str| json!({"namespaces": {"from": value}});
        assert!(allows(&json!({}), "infra", None) && !allows(&json!({}), "team", None));
        assert!(allows(&from("Same"), "infra", None) && !allows(&from("Same"), "team", None));
        assert!(allows(&from("All"), "team", None));
        assert!(!allows(&from("None"), "infra", None));
        assert!(!allows(&from("Sometimes"), "infra", None));
        let selector =
            json!({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}});
        assert!(allows(&selector, "x", Some("a")) && !allows(&selector, "x", Some("b")));
        assert!(!allows(
            &json!({"namespaces": {"from": "Selector"}}),
            "x",
            Some("a")
        ));
        let invalid = json!({"namespaces": {"from": "Selector", "selector": {"matchExpressions": [
            {"key": "team", "operator": "Near", "values": ["a"]}]}}});
        assert!(!allows(&invalid, "x", Some("a")));
        let grpc_only = json!({"namespaces": {"from": "All"}, "kinds": [{"kind": "GRPCRoute"}]});
        assert!(!allows(&grpc_only, "x", None));
    }

    #[test]
    fn an_unknown_scope_counts_as_gateway_and_is_named() {
        let gateway = gateway(&json!({}));
        assert_eq!(gateway.scope(), Scope::Gateway);
        assert_eq!(gateway.unknown_scope(), Some("listener"));
    }
}
