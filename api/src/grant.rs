//! `ReferenceGrant`: may an object of one namespace refer to one of another? (operator.md 4.5)

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    names,
    object_key::{ObjectKey, is_live},
};

/// A grant as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Identity; the namespace is the one that is referred into.
    pub key: ObjectKey,
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct To {
    group: String,
    kind: String,
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    from: Vec<From>,
    to: Vec<To>,
}

/// A reference that may need a grant.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Group and kind that refer.
    pub from: (&'a str, &'a str),
    /// Namespace that refers.
    pub from_namespace: &'a str,
    /// Group and kind that are referred to.
    pub to: (&'a str, &'a str),
    /// The object that is referred to.
    pub target: &'a ObjectKey,
}

impl ReferenceGrant {
    /// Reads the view out of a ReferenceGrant of any version; `None` while the grant is being deleted.
    ///
    /// # Errors
    /// When a member that we read has another type than Gateway API gives it.
    pub fn from_value(object: &Value) -> Result<Option<Self>, serde_json::Error> {
        let Document { metadata, spec } = Document::deserialize(object)?;
        Ok(is_live(&metadata).then(|| Self {
            key: ObjectKey::of(&metadata),
            from: spec.from,
            to: spec.to,
        }))
    }

    /// True when any `from` and any `to` entry fit the reference, whatever their position.
    #[must_use]
    pub fn permits(&self, reference: &Reference<'_>) -> bool {
        self.key.namespace == reference.target.namespace
            && self
                .from
                .iter()
                .any(|from| from.fits(reference, reference.from.0))
            && self.to.iter().any(|to| to.fits(reference))
    }

    /// True when the grant would fit if its `from` group were not the retired one: worth a hint in the message.
    #[must_use]
    pub fn names_retired_group(&self, reference: &Reference<'_>) -> bool {
        self.from
            .iter()
            .any(|from| from.fits(reference, names::RETIRED_GROUP))
    }
}

impl From {
    fn fits(&self, reference: &Reference<'_>, group: &str) -> bool {
        self.group == group && self.kind == reference.from.1 && self.namespace == reference.from_namespace
    }
}

impl To {
    fn fits(&self, reference: &Reference<'_>) -> bool {
        let named = self.name.as_deref().filter(|name| !name.is_empty());
        (self.group.as_str(), self.kind.as_str()) == reference.to
            && named.is_none_or(|name| name == reference.target.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn permits(spec: &Value, from_namespace: &str) -> bool {
        let grant = ReferenceGrant::from_value(
            &json!({"metadata": {"name": "g", "namespace": "infra"}, "spec": spec}),
        )
        .expect("a grant")
        .expect("live");
        let target = ObjectKey::new("infra", "gw");
        grant.permits(&Reference {
            from: (names::GROUP, "MCPGatewayExtension"),
            from_namespace,
            to: (names::GATEWAY_API_GROUP, "Gateway"),
            target: &target,
        })
    }

    #[test]
    fn t11_a_matching_entry_may_stand_anywhere() {
        let other = json!({"group": "apps", "kind": "Deployment", "namespace": "team-a"});
        let ours = json!({"group": names::GROUP, "kind": "MCPGatewayExtension", "namespace": "team-a"});
        let to = json!([{"group": "", "kind": "Service"}, {"group": names::GATEWAY_API_GROUP, "kind": "Gateway", "name": "gw"}]);
        assert!(permits(&json!({"from": [other, ours], "to": to}), "team-a"));
        assert!(!permits(&json!({"from": [other, ours], "to": to}), "team-b"));
        assert!(!permits(&json!({"from": [other], "to": to}), "team-a"));
    }

    #[test]
    fn an_empty_name_means_every_object_and_another_name_none() {
        let from = json!([{"group": names::GROUP, "kind": "MCPGatewayExtension", "namespace": "team-a"}]);
        let to = |name: &str| json!([{"group": names::GATEWAY_API_GROUP, "kind": "Gateway", "name": name}]);
        assert!(permits(&json!({"from": from, "to": to("")}), "team-a"));
        assert!(!permits(&json!({"from": from, "to": to("gw-2")}), "team-a"));
    }
}
