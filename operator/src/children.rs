//! The child objects of an extension (operator.md 5): one file for each, each a pure function from [`Blueprint`] to an
//! apply body that holds exactly the fields we own, with defaults written out wherever a list is atomic.

use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Map, Value, json};

use crate::{blueprint::Blueprint, kinds::Kind};

pub(crate) mod command;
pub(crate) mod config_secret;
pub(crate) mod deployment;
pub(crate) mod disruption_budget;
pub(crate) mod env;
pub(crate) mod envoy_filter;
pub(crate) mod network_policy;
pub(crate) mod role;
pub(crate) mod role_binding;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod signing_key;
pub(crate) mod tokens_route;
pub(crate) mod trusted_headers;

/// One object that the operator applies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Child {
    pub(crate) kind: Kind,
    pub(crate) key: ObjectKey,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    owners: Vec<Value>,
    sections: Value,
}

impl Child {
    /// A child in the extension's namespace with the common labels and the controller ownerReference; `sections` are
    /// the members beside `metadata`.
    fn owned(blueprint: &Blueprint, kind: Kind, name: &str, sections: Value) -> Self {
        let mut child = Self::labelled(kind, ObjectKey::new(blueprint.namespace(), name), sections);
        child.owners.push(owner_reference(blueprint));
        child
    }

    /// An object with the common labels.
    fn labelled(kind: Kind, key: ObjectKey, sections: Value) -> Self {
        let labels = [names::NAME_LABEL, names::MANAGED_BY_LABEL];
        Self {
            kind,
            key,
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect(),
            annotations: Map::new(),
            owners: Vec::new(),
            sections,
        }
    }

    /// Adds a label.
    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), json!(value));
        self
    }

    /// Adds an annotation.
    fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), json!(value));
        self
    }

    /// The apply body; `resource_version` makes it conditional on that version.
    pub(crate) fn body(&self, resource_version: Option<&str>) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(self.key.name));
        metadata.insert("namespace".to_owned(), json!(self.key.namespace));
        metadata.insert("labels".to_owned(), json!(self.labels));
        if !self.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(self.annotations));
        }
        if !self.owners.is_empty() {
            metadata.insert("ownerReferences".to_owned(), json!(self.owners));
        }
        if let Some(version) = resource_version {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), json!(self.kind.api_version()));
        body.insert("kind".to_owned(), json!(self.kind.name()));
        body.insert("metadata".to_owned(), Value::Object(metadata));
        if let Value::Object(sections) = &self.sections {
            body.extend(sections.clone());
        }
        Value::Object(body)
    }
}

/// The two labels of every child, also the selector of the broker's pods.
pub(crate) fn common_labels() -> Value {
    let [(name_key, name), (managed_key, managed)] = [names::NAME_LABEL, names::MANAGED_BY_LABEL];
    json!({name_key: name, managed_key: managed})
}

fn owner_reference(blueprint: &Blueprint) -> Value {
    json!({
        "apiVersion": Kind::Extension.api_version(),
        "kind": Kind::Extension.name(),
        "name": blueprint.key.name,
        "uid": blueprint.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
pub(crate) mod tests;
