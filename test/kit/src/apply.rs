//! Reading YAML documents and storing them by server-side apply, as `kubectl apply --server-side` would.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use serde_json::Value;

/// A CRD that was created a moment ago is served within this time.
const SERVED_DEADLINE: Duration = Duration::from_secs(10);
const SERVED_POLL: Duration = Duration::from_millis(100);

/// Why documents were not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text is not YAML.
    #[error("YAML: {0}")]
    Yaml(String),
    /// A document is not a Kubernetes object.
    #[error("document without apiVersion, kind or metadata.name: {0}")]
    NotAnObject(String),
    /// The API server does not serve the kind.
    #[error("{kind} is not served: {reason}")]
    UnknownKind {
        /// Group, version and kind.
        kind: String,
        /// What discovery said last.
        reason: String,
    },
    /// The API server refused the object.
    #[error("{what}: {source}")]
    Refused {
        /// Kind and name.
        what: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
}

/// The non-empty documents of a YAML text.
///
/// # Errors
/// When the text is not YAML.
pub fn parse_yaml(text: &str) -> Result<Vec<Value>, ApplyError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| ApplyError::Yaml(error.to_string()))?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// Applies every document of `text` in order, forcing ownership of its fields to `manager`. Objects without a namespace go
/// to `namespace`. A kind whose CRD was created a moment ago is awaited for 10 s. Returns the stored objects.
///
/// # Errors
/// At the first document that cannot be applied.
pub async fn apply_yaml(
    client: &kube::Client,
    text: &str,
    manager: &str,
    namespace: &str,
) -> Result<Vec<DynamicObject>, ApplyError> {
    let mut stored = Vec::new();
    for document in parse_yaml(text)? {
        stored.push(apply(client, document, manager, namespace).await?);
    }
    Ok(stored)
}

/// Applies one object; see [`apply_yaml`].
///
/// # Errors
/// When the object's kind is not served or the API server refuses it.
pub async fn apply(
    client: &kube::Client,
    object: Value,
    manager: &str,
    namespace: &str,
) -> Result<DynamicObject, ApplyError> {
    let shown = object.to_string().chars().take(120).collect::<String>();
    let object: DynamicObject = serde_json::from_value(object)
        .map_err(|error| ApplyError::NotAnObject(format!("{error}: {shown}")))?;
    let (Some(types), Some(name)) = (object.types.clone(), object.metadata.name.clone()) else {
        return Err(ApplyError::NotAnObject(shown));
    };
    let kind =
        GroupVersionKind::try_from(&types).map_err(|error| ApplyError::NotAnObject(error.to_string()))?;
    let api = api_for(
        client,
        &kind,
        object.metadata.namespace.as_deref().unwrap_or(namespace),
    )
    .await?;
    let params = PatchParams::apply(manager).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .map_err(|source| ApplyError::Refused {
            what: format!("{} {name}", kind.kind),
            source: Box::new(source),
        })
}

async fn api_for(
    client: &kube::Client,
    kind: &GroupVersionKind,
    namespace: &str,
) -> Result<Api<DynamicObject>, ApplyError> {
    // Written out, because a task that awaits `eventually` with a borrowing closure is not known to be `Send`.
    let deadline = tokio::time::Instant::now() + SERVED_DEADLINE;
    let (resource, capabilities) = loop {
        match kube::discovery::pinned_kind(client, kind).await {
            Ok(found) => break found,
            Err(error) if tokio::time::Instant::now() > deadline => {
                let kind = format!("{}/{} {}", kind.group, kind.version, kind.kind);
                return Err(ApplyError::UnknownKind {
                    kind,
                    reason: error.to_string(),
                });
            }
            Err(_) => tokio::time::sleep(SERVED_POLL).await,
        }
    };
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_are_skipped() {
        let documents = parse_yaml("---\na: 1\n---\n# only a comment\n---\nb: [2]\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1]["b"][0], 2);
    }

    #[test]
    fn broken_yaml_is_an_error() {
        assert!(parse_yaml("a: [1").is_err());
    }
}
