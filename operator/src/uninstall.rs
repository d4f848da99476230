//! Leaving (operator.md 4.8): when the operator is told to stop and its own Deployment is gone or going, it releases
//! the finalizers, so that every object can be deleted afterwards. Data planes keep running.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Value, json};

use crate::{context::Context, kinds::Kind, reconcile::ReconcileError};

/// Releases every finalizer when this stop is an uninstall.
pub(crate) async fn leave(context: &Context) {
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match api.get_opt(names::OPERATOR).await {
        Ok(Some(deployment)) if deployment.metadata.deletion_timestamp.is_none() => return,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "Own Deployment cannot be read");
            return;
        }
    }
    tracing::info!("The operator is being uninstalled: finalizers are released");
    let extensions = context.cache.list(Kind::Extension, |_| true);
    for (key, object) in extensions
        .into_iter()
        .filter(|(_, object)| holds_finalizer(object))
    {
        if let Err(error) = release(context, Kind::Extension, &key, &object).await {
            tracing::warn!(name = %key, %error, "Finalizer cannot be released");
        }
    }
}

/// True when our finalizer is on the object.
pub(crate) fn holds_finalizer(object: &Value) -> bool {
    finalizers(object).any(|finalizer| finalizer == names::FINALIZER)
}

/// Takes our finalizer off an object, exactly in the version that was seen.
pub(crate) async fn release(
    context: &Context,
    kind: Kind,
    key: &ObjectKey,
    object: &Value,
) -> Result<(), ReconcileError> {
    let kept: Vec<&str> = finalizers(object)
        .filter(|finalizer| *finalizer != names::FINALIZER)
        .collect();
    match write(context, (kind, key), object, &kept).await {
        Err(error) if error.is_answer(404) => Ok(()),
        other => other,
    }
}

/// Puts our finalizer on an object, exactly in the version that was seen.
pub(crate) async fn take(
    context: &Context,
    kind: Kind,
    key: &ObjectKey,
    object: &Value,
) -> Result<(), ReconcileError> {
    let wanted: Vec<&str> = finalizers(object).chain([names::FINALIZER]).collect();
    write(context, (kind, key), object, &wanted).await
}

async fn write(
    context: &Context,
    (kind, key): (Kind, &ObjectKey),
    object: &Value,
    finalizers: &[&str],
) -> Result<(), ReconcileError> {
    let version = object
        .pointer("/metadata/resourceVersion")
        .cloned()
        .unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = context
        .api(kind, &key.namespace)
        .patch(&key.name, &params, &Patch::Merge(patch))
        .await;
    written
        .map(drop)
        .map_err(ReconcileError::request("write finalizers"))
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}
