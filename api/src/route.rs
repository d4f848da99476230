//! What we read of an `HTTPRoute`: hosts, parents, backends and what controllers said about its parents.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    gateway::ForeignCondition,
    names,
    object_key::{Age, ObjectKey, is_live},
};

/// An HTTPRoute as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Identity.
    pub key: ObjectKey,
    /// Age.
    pub age: Age,
    /// False while it is being deleted.
    pub live: bool,
    /// `spec.hostnames`.
    pub hostnames: Vec<String>,
    /// `spec.rules`.
    pub rules: Vec<RouteRule>,
    /// `status.parents`.
    pub parents: Vec<ParentStatus>,
}

/// One rule; only its backends matter to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// `backendRefs`.
    pub backend_refs: Vec<BackendRef>,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// Group; absent or empty is the core group.
    pub group: Option<String>,
    /// Kind; absent is Service.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent is the route's.
    pub namespace: Option<String>,
    /// Port.
    pub port: Option<i32>,
}

/// One entry of `status.parents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// Who wrote the entry.
    pub controller_name: String,
    /// The parent that it is about.
    pub parent_ref: ParentRef,
    /// What the controller says.
    pub conditions: Vec<ForeignCondition>,
}

/// A reference to a parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// Group; absent is Gateway API.
    pub group: Option<String>,
    /// Kind; absent is Gateway.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent is the route's.
    pub namespace: Option<String>,
    /// Listener name.
    pub section_name: Option<String>,
    /// Listener port.
    pub port: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    hostnames: Vec<String>,
    rules: Vec<RouteRule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    parents: Vec<ParentStatus>,
}

impl HttpRoute {
    /// Reads the view out of an HTTPRoute object.
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
            hostnames: spec.hostnames,
            rules: spec.rules,
            parents: status.parents,
        })
    }

    /// Gateways whose controller accepted the route, with the accepted parentRef; entries of our own are left out,
    /// and so are parents of another kind (operator.md 8.3).
    pub fn accepted_parents(&self) -> impl Iterator<Item = (ObjectKey, &ParentStatus)> {
        self.parents
            .iter()
            .filter(|parent| parent.controller_name != names::CONTROLLER_NAME)
            .filter(|parent| parent.says("Accepted", "True"))
            .filter_map(|parent| Some((parent.parent_ref.gateway(&self.key.namespace)?, parent)))
    }
}

impl ParentStatus {
    /// True when a condition `kind` has `status`.
    #[must_use]
    pub fn says(&self, kind: &str, status: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.kind == kind && condition.status == status)
    }
}

impl ParentRef {
    /// The Gateway that is meant, when it is one; `route_namespace` is the default.
    #[must_use]
    pub fn gateway(&self, route_namespace: &str) -> Option<ObjectKey> {
        let is_gateway = self.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && self
                .group
                .as_deref()
                .is_none_or(|group| group == names::GATEWAY_API_GROUP);
        is_gateway.then(|| {
            ObjectKey::new(
                self.namespace.as_deref().unwrap_or(route_namespace),
                self.name.as_str(),
            )
        })
    }
}

impl BackendRef {
    /// The Service that is meant, when it is one; `route_namespace` is the default.
    #[must_use]
    pub fn service(&self, route_namespace: &str) -> Option<ObjectKey> {
        let is_service = self.kind.as_deref().is_none_or(|kind| kind == "Service")
            && self.group.as_deref().is_none_or(str::is_empty);
        is_service.then(|| {
            ObjectKey::new(
                self.namespace.as_deref().unwrap_or(route_namespace),
                self.name.as_str(),
            )
        })
    }
}
