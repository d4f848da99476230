//! What has to happen while an operator that is about to be removed still runs (operator.md 4.8): take its Lease, so that it
//! writes nothing any more, remove the webhook configurations that it made, release the finalizers that only it would.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{
    auth_policy::MCPAuthPolicy, extension::MCPGatewayExtension, names, registration::MCPServerRegistration,
    virtual_server::MCPVirtualServer, webhooks,
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// How long the operator that goes may not take the Lease back: enough to type the next command. One that is installed
/// afterwards does not wait for it ([`names::UNINSTALLED_ANNOTATION`]).
const HELD_SECONDS: i32 = 120;
/// A leader that lost the Lease notices after its pause (2 s) and one attempt (2 s), and may still finish what it had begun
/// (3 s); everything is looked at again after this time.
const SETTLE: Duration = Duration::from_secs(8);
/// Objects of one kind that are listed at once.
const PAGE: u32 = 500;

/// The task.
#[derive(Clone)]
pub struct Uninstall {
    /// The cluster.
    pub client: Client,
    /// Namespace of the operator.
    pub namespace: String,
    /// Namespaces whose extension goes too: its EnvoyFilter lies elsewhere, fails closed, and nobody would remove it later.
    pub without_extensions: Vec<String>,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// A request failed.
    #[error("{step}: {source}")]
    Request {
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The wrong namespace was named.
    #[error("no operator in namespace {named}; it is in {operator}: give --namespace {operator}")]
    Elsewhere {
        /// What was said.
        named: String,
        /// Where it is.
        operator: String,
    },
    /// Finalizers came back as fast as they were released.
    #[error("not done in time; another operator works in this cluster")]
    Timeout,
}

fn request(step: &'static str) -> impl FnOnce(kube::Error) -> UninstallError {
    move |source| UninstallError::Request {
        step,
        source: Box::new(source),
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Namespace of the operator.
    pub namespace: String,
    /// Its Deployment is there still.
    pub operator_stays: bool,
    /// Webhook configurations, finalizers and filters that there were.
    pub removed: usize,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace, removed, ..
        } = self;
        writeln!(
            f,
            "Removed: {removed} webhook configurations, finalizers and filters. Gateways keep serving."
        )?;
        if self.operator_stays {
            write!(
                f,
                "The operator of {namespace} does nothing for {HELD_SECONDS} s: remove it in this time, or it goes on as before."
            )
        } else {
            write!(f, "There is no operator in {namespace}.")
        }
    }
}

/// Does it all; done twice it changes nothing.
///
/// # Errors
/// When the API server refuses a step, or `limit` passes.
pub async fn run(task: &Uninstall, limit: Duration) -> Result<Done, UninstallError> {
    tokio::time::timeout(limit, steps(task))
        .await
        .unwrap_or(Err(UninstallError::Timeout))
}

async fn steps(task: &Uninstall) -> Result<Done, UninstallError> {
    let operator = operator_of(task).await?;
    take_lease(task, &Mark::Going).await?;
    let mut removed = 0;
    loop {
        removed += undo(task).await?;
        tokio::time::sleep(SETTLE).await;
        // A second look finds what the former leader still wrote.
        let left = undo(task).await?;
        removed += left;
        if left > 0 {
            take_lease(task, &Mark::Going).await?;
            continue;
        }
        let operator_stays = operator.is_some();
        // An operator that is installed later takes finalizers again; this one waits, because the Lease is still held.
        take_lease(task, &Mark::Gone(operator.unwrap_or_default())).await?;
        return Ok(Done {
            namespace: task.namespace.clone(),
            operator_stays,
            removed,
        });
    }
}

/// Removes the webhook configurations and releases the finalizers; returns how much there was to do.
async fn undo(task: &Uninstall) -> Result<usize, UninstallError> {
    let validating = remove::<ValidatingWebhookConfiguration>(task).await?;
    let mutating = remove::<MutatingWebhookConfiguration>(task).await?;
    Ok(validating + mutating + release_all(task).await?)
}

/// UID of the operator's Deployment, if there is any; one in another namespace would undo the work.
async fn operator_of(task: &Uninstall) -> Result<Option<String>, UninstallError> {
    let api: Api<Deployment> = Api::all(task.client.clone());
    let params = ListParams::default().fields(&format!("metadata.name={}", names::OPERATOR));
    let found = api.list_metadata(&params).await;
    let found = found
        .map_err(request("look for the operator's Deployment"))?
        .items;
    let lies = |namespace: &Option<String>| namespace.as_deref() == Some(task.namespace.as_str());
    if let Some(own) = found.iter().find(|found| lies(&found.metadata.namespace)) {
        return Ok(own.metadata.uid.clone());
    }
    match found.into_iter().find_map(|found| found.metadata.namespace) {
        Some(operator) => Err(UninstallError::Elsewhere {
            named: task.namespace.clone(),
            operator,
        }),
        None => Ok(None),
    }
}

/// What the Lease says of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// It is going: no finalizer may be taken.
    Going,
    /// All is done; the UID of the Deployment that goes, or nothing.
    Gone(String),
}

/// Whether there is nowhere to put a Lease: the operator's namespace went before. Then there is no operator either.
fn is_homeless(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    status.code == 404 || (status.code == 403 && status.message.contains("being terminated"))
}

/// Becomes the holder of the Lease; tries again when the leader renews it at the same moment.
async fn take_lease(task: &Uninstall, mark: &Mark) -> Result<(), UninstallError> {
    let api: Api<Lease> = Api::namespaced(task.client.clone(), &task.namespace);
    loop {
        let current = api
            .get_opt(names::OPERATOR_LEASE)
            .await
            .map_err(request("read the operator's Lease"))?;
        let written = match current {
            Some(lease) => {
                api.replace(names::OPERATOR_LEASE, &PostParams::default(), &taken(lease, mark))
                    .await
            }
            None => {
                let created = api
                    .create(&PostParams::default(), &taken(new_lease(), mark))
                    .await;
                match created {
                    Err(error) if is_homeless(&error) => return Ok(()),
                    other => other,
                }
            }
        };
        match written {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return other.map(drop).map_err(request("take the operator's Lease")),
        }
    }
}

fn new_lease() -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(names::OPERATOR_LEASE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

/// The Lease as it is held by this task.
fn taken(mut lease: Lease, mark: &Mark) -> Lease {
    let now = MicroTime(Timestamp::try_from(SystemTime::now()).unwrap_or_default());
    let spec = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some("mcpgw-uninstall".to_owned()),
        lease_duration_seconds: Some(HELD_SECONDS),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        ..spec
    });
    let annotations = lease.metadata.annotations.get_or_insert_default();
    let (kept, value, other) = match mark {
        Mark::Going => (
            names::UNINSTALLING_ANNOTATION,
            "true",
            names::UNINSTALLED_ANNOTATION,
        ),
        Mark::Gone(operator) => (
            names::UNINSTALLED_ANNOTATION,
            operator.as_str(),
            names::UNINSTALLING_ANNOTATION,
        ),
    };
    annotations.remove(other);
    annotations.insert(kept.to_owned(), value.to_owned());
    lease
}

/// Deletes the configurations that the operator makes and maintains; returns how many there were.
async fn remove<K>(task: &Uninstall) -> Result<usize, UninstallError>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::all(task.client.clone());
    let mut found = 0;
    for name in [
        webhooks::NAME,
        webhooks::ADVISORY_NAME,
        webhooks::supplementary::NAME,
    ] {
        let live = api
            .get_metadata_opt(name)
            .await
            .map_err(request("read the webhook configurations"))?;
        // One that is going already waits for somebody else.
        if live.is_none_or(|live| live.metadata.deletion_timestamp.is_some()) {
            continue;
        }
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => {
                other.map_err(request("delete the webhook configurations"))?;
                found += 1;
            }
        }
    }
    Ok(found)
}

/// Deletes the EnvoyFilters of the extension in `namespace`, wherever they lie; returns how many there were.
async fn remove_filters(task: &Uninstall, namespace: &str) -> Result<usize, UninstallError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "networking.istio.io",
        "v1alpha3",
        "EnvoyFilter",
    ));
    let all: Api<DynamicObject> = Api::all_with(task.client.clone(), &resource);
    let (managed, by) = names::MANAGED_BY_LABEL;
    let owner = names::label_value(namespace);
    let labels = format!("{managed}={by},{}={owner}", names::EXTENSION_NAMESPACE_LABEL);
    let filters = match all.list_metadata(&ListParams::default().labels(&labels)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        other => other.map_err(request("list EnvoyFilters"))?,
    };
    let found = filters.items.len();
    for filter in filters.items {
        let (Some(name), Some(lies)) = (filter.metadata.name, filter.metadata.namespace) else {
            continue;
        };
        let api: Api<DynamicObject> = Api::namespaced_with(task.client.clone(), &lies, &resource);
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => {
                other.map_err(request("delete an EnvoyFilter"))?;
            }
        }
    }
    Ok(found)
}

/// Releases our finalizer on every object of our kinds, and deletes the filters of extensions that go; returns how much
/// there was to do.
async fn release_all(task: &Uninstall) -> Result<usize, UninstallError> {
    let mut found = 0;
    for namespace in &task.without_extensions {
        found += remove_filters(task, namespace).await?;
    }
    found += release::<MCPGatewayExtension>(task).await?;
    found += release::<MCPServerRegistration>(task).await?;
    found += release::<MCPVirtualServer>(task).await?;
    Ok(found + release::<MCPAuthPolicy>(task).await?)
}

async fn release<K>(task: &Uninstall) -> Result<usize, UninstallError>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let all: Api<K> = Api::all(task.client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    let mut released = 0;
    loop {
        let page = match all.list_metadata(&parameters).await {
            // The CRD is gone, and its objects with it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(released),
            other => other.map_err(request("list objects"))?,
        };
        for object in &page.items {
            released += usize::from(release_one::<K>(task, &object.metadata).await?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(released),
        }
    }
}

/// Whether it had the finalizer.
async fn release_one<K>(task: &Uninstall, metadata: &ObjectMeta) -> Result<bool, UninstallError>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != names::FINALIZER);
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return Ok(false);
    };
    if finalizers.len() == before {
        return Ok(false);
    }
    let api: Api<K> = Api::namespaced(task.client.clone(), namespace);
    let patch = json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}});
    match api
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        // Changed or gone meanwhile: the second look sees it.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(true),
        other => other.map(|_| true).map_err(request("release a finalizer")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        http::{Method, StatusCode, Uri},
    };
    use serde_json::Value;

    use super::*;

    /// An API server with one webhook configuration, which a leader that has not noticed anything makes once more; it notes
    /// what is deleted.
    fn undoing(deleted: &Arc<Mutex<Vec<String>>>) -> Client {
        let deleted = Arc::clone(deleted);
        let times_made = Arc::new(Mutex::new(2));
        let answer = move |method: Method, uri: Uri| {
            let path = uri.path();
            let configuration =
                path.ends_with(&format!("/validatingwebhookconfigurations/{}", webhooks::NAME));
            let mut left = times_made.lock().expect("free");
            let answer = if method == Method::DELETE {
                deleted.lock().expect("free").push(path.to_owned());
                *left -= 1;
                (
                    StatusCode::OK,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
                )
            } else if method == Method::POST {
                (
                    StatusCode::CREATED,
                    json!({"metadata": {"name": names::OPERATOR_LEASE}}),
                )
            } else if configuration && *left > 0 {
                (StatusCode::OK, json!({"metadata": {"name": webhooks::NAME}}))
            } else if path == "/apis/apps/v1/deployments" {
                let operator =
                    json!({"metadata": {"name": names::OPERATOR, "namespace": "mcp-system", "uid": "u"}});
                (StatusCode::OK, json!({"metadata": {}, "items": [operator]}))
            } else if path.contains("mcp.kuadrant.io") {
                (StatusCode::OK, json!({"metadata": {}, "items": []}))
            } else {
                let absent = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "no such object"});
                (StatusCode::NOT_FOUND, absent)
            };
            let (code, body): (StatusCode, Value) = answer;
            std::future::ready((code, Json(body)))
        };
        Client::new(Router::new().fallback(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn t55_a_configuration_that_the_leader_makes_once_more_is_deleted_once_more() {
        let deleted = Arc::default();
        let task = Uninstall {
            client: undoing(&deleted),
            namespace: "mcp-system".to_owned(),
            without_extensions: Vec::new(),
        };
        let done = run(&task, Duration::from_secs(60)).await.expect("done");
        assert!(done.operator_stays && done.removed == 2, "{done:?}");
        let wrong = Uninstall {
            namespace: "default".to_owned(),
            ..task
        };
        let refused = run(&wrong, Duration::from_secs(60))
            .await
            .expect_err("no operator");
        assert!(
            refused.to_string().ends_with("give --namespace mcp-system"),
            "{refused}"
        );
        assert_eq!(deleted.lock().expect("free").len(), 2, "{deleted:?}");
    }

    #[test]
    fn a_lease_that_is_taken_keeps_its_version_so_that_a_renewal_at_the_same_moment_is_noticed() {
        let mut lease = new_lease();
        lease.metadata.resource_version = Some("7".to_owned());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some("operator".to_owned()),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        });
        let taken = taken(lease, &Mark::Going);
        let last = super::taken(taken.clone(), &Mark::Gone("uid".to_owned()));
        let spec = taken.spec.expect("a spec");
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(spec.holder_identity.as_deref(), Some("mcpgw-uninstall"));
        assert_eq!(
            (spec.lease_duration_seconds, spec.lease_transitions),
            (Some(HELD_SECONDS), Some(3))
        );
        assert_eq!(
            taken.metadata.annotations.expect("annotations")[names::UNINSTALLING_ANNOTATION],
            "true"
        );
        let last = last.metadata.annotations.expect("annotations");
        assert!(!last.contains_key(names::UNINSTALLING_ANNOTATION));
        assert_eq!(last[names::UNINSTALLED_ANNOTATION], "uid");
    }
}
