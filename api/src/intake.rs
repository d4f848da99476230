//! Objects as they come from the API server or from files, put into a [`World`] by their kind.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    auth_policy::{DefaultAction, MCPAuthPolicy, MCPAuthPolicySpec, PolicyTargetRef},
    gateway::Gateway,
    grant::ReferenceGrant,
    names,
    object_key::ObjectKey,
    route::HttpRoute,
    world::World,
};

/// A kind that the rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// `MCPGatewayExtension`
    Extension,
    /// `MCPServerRegistration`
    Registration,
    /// `MCPVirtualServer`
    VirtualServer,
    /// `MCPAuthPolicy`
    Policy,
    /// `Gateway`
    Gateway,
    /// `HTTPRoute`
    HttpRoute,
    /// `ReferenceGrant`
    ReferenceGrant,
    /// `Namespace`
    Namespace,
}

/// Where the objects of a kind are in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedAs {
    /// API group; empty for core.
    pub group: &'static str,
    /// Versions that we understand, the preferred one first.
    pub versions: &'static [&'static str],
    /// Plural, as it stands in URLs.
    pub plural: &'static str,
}

impl ServedAs {
    const fn new(group: &'static str, versions: &'static [&'static str], plural: &'static str) -> Self {
        Self {
            group,
            versions,
            plural,
        }
    }
}

impl Watched {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Extension,
        Self::Registration,
        Self::VirtualServer,
        Self::Policy,
        Self::Gateway,
        Self::HttpRoute,
        Self::ReferenceGrant,
        Self::Namespace,
    ];

    /// The watched kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How the API server serves the kind.
    #[must_use]
    pub const fn served_as(self) -> ServedAs {
        const OURS: &[&str] = &[names::VERSION];
        const V1: &[&str] = &["v1"];
        match self {
            Self::Extension => ServedAs::new(names::GROUP, OURS, names::EXTENSIONS),
            Self::Registration => ServedAs::new(names::GROUP, OURS, names::REGISTRATIONS),
            Self::VirtualServer => ServedAs::new(names::GROUP, OURS, names::VIRTUAL_SERVERS),
            Self::Policy => ServedAs::new(names::GROUP, OURS, names::AUTH_POLICIES),
            Self::Gateway => ServedAs::new(names::GATEWAY_API_GROUP, V1, "gateways"),
            Self::HttpRoute => ServedAs::new(names::GATEWAY_API_GROUP, V1, "httproutes"),
            Self::ReferenceGrant => {
                ServedAs::new(names::GATEWAY_API_GROUP, &["v1", "v1beta1"], "referencegrants")
            }
            Self::Namespace => ServedAs::new("", V1, "namespaces"),
        }
    }

    /// The kind as it stands in objects.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Extension => "MCPGatewayExtension",
            Self::Registration => "MCPServerRegistration",
            Self::VirtualServer => "MCPVirtualServer",
            Self::Policy => "MCPAuthPolicy",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Namespace => "Namespace",
        }
    }

    /// Puts `object` into the world; a grant that is being deleted, and an object that cannot be decoded, leaves it. Of
    /// a policy that cannot be decoded a closed one stays: what it names must not open.
    ///
    /// # Errors
    /// When the object cannot be decoded.
    pub fn put(self, world: &mut World, object: &Value) -> Result<(), serde_json::Error> {
        let outcome = self.decode_into(world, object);
        if outcome.is_err() {
            self.remove(world, &key_of(object));
            if let (Self::Policy, Some(policy)) = (self, closed(object)) {
                world.set_policy(Arc::new(policy));
            }
        }
        outcome
    }

    fn decode_into(self, world: &mut World, object: &Value) -> Result<(), serde_json::Error> {
        match self {
            Self::Extension => world.set_extension(typed(object)?),
            Self::Registration => world.set_registration(typed(object)?),
            Self::VirtualServer => world.set_virtual_server(typed(object)?),
            Self::Policy => world.set_policy(typed(object)?),
            Self::Gateway => world.set_gateway(Arc::new(Gateway::from_value(object)?)),
            Self::HttpRoute => world.set_route(Arc::new(HttpRoute::from_value(object)?)),
            Self::ReferenceGrant => match ReferenceGrant::from_value(object)? {
                Some(grant) => world.set_grant(Arc::new(grant)),
                None => self.remove(world, &key_of(object)),
            },
            Self::Namespace => {
                let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
                let labels: Option<_> = serde_json::from_value(labels)?;
                world.set_namespace(key_of(object).name, labels.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Takes an object out of the world.
    pub fn remove(self, world: &mut World, key: &ObjectKey) {
        match self {
            Self::Extension => drop(world.remove_extension(key)),
            Self::Registration => drop(world.remove_registration(key)),
            Self::VirtualServer => drop(world.remove_virtual_server(key)),
            Self::Policy => drop(world.remove_policy(key)),
            Self::Gateway => drop(world.remove_gateway(key)),
            Self::HttpRoute => drop(world.remove_route(key)),
            Self::ReferenceGrant => drop(world.remove_grant(key)),
            Self::Namespace => drop(world.remove_namespace(&key.name)),
        }
    }
}

/// A policy without rules on the targets that can be read: it denies everything there (operator.md 10.4).
fn closed(object: &Value) -> Option<MCPAuthPolicy> {
    let targets = object.pointer("/spec/targetRefs").and_then(Value::as_array)?;
    let target_refs = targets
        .iter()
        .filter_map(|target| PolicyTargetRef::deserialize(target).ok())
        .collect();
    Some(MCPAuthPolicy {
        metadata: ObjectMeta::deserialize(object.get("metadata")?).ok()?,
        spec: MCPAuthPolicySpec {
            target_refs,
            authentication: None,
            default_action: DefaultAction::Deny,
            rules: Vec::new(),
        },
        status: None,
    })
}

fn typed<T: DeserializeOwned>(object: &Value) -> Result<Arc<T>, serde_json::Error> {
    T::deserialize(object).map(Arc::new)
}

/// `metadata.namespace` (empty for a cluster-scoped object) and `metadata.name`.
#[must_use]
pub fn key_of(object: &Value) -> ObjectKey {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"))
}
