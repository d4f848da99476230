//! The finalizer of extensions (operator.md 4.8): taken before the EnvoyFilter, which lies in a foreign namespace and
//! fails closed, and released once that is gone. Namespaced children follow by ownerReference.

use kube::api::{Patch, PatchParams};
use mcp_gateway_api::{extension::MCPGatewayExtension, names, object_key::ObjectKey, world::gateway_of};
use serde_json::json;

use super::{carry_out::remove_filters, teardown::forget_brokers, validate::Validated};
use crate::{
    context::Context,
    kinds::Kind,
    queue::{Outcome, WorkItem},
    reconcile::ReconcileError,
};

/// Takes the finalizer, unless it is there.
pub(crate) async fn hold(context: &Context, validated: &Validated) -> Result<(), ReconcileError> {
    if context.uninstalling.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(());
    }
    let extension = &validated.blueprint.extension;
    let mut finalizers = extension.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        return Ok(());
    }
    finalizers.push(names::FINALIZER.to_owned());
    write(context, extension, &finalizers).await
}

/// Ends an extension that is being deleted: EnvoyFilter, listener condition, claims, then the finalizer.
pub(crate) async fn finalize(
    context: &Context,
    extension: &MCPGatewayExtension,
) -> Result<Outcome, ReconcileError> {
    let key = ObjectKey::of(&extension.metadata);
    let mut finalizers = extension.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        return Ok(Outcome::Done);
    }
    sweep(context, &key).await?;
    context
        .queue
        .add([WorkItem::ListenerStatus(gateway_of(extension)), WorkItem::Claims]);
    finalizers.retain(|finalizer| finalizer != names::FINALIZER);
    match write(context, extension, &finalizers).await {
        Err(error) if error.is_answer(404) => {}
        other => other?,
    }
    tracing::info!(name = %key, "Extension released");
    Ok(Outcome::Done)
}

/// Removes what an extension left outside its namespace.
pub(crate) async fn sweep(context: &Context, key: &ObjectKey) -> Result<(), ReconcileError> {
    remove_filters(context, key, None).await?;
    forget_brokers(context, key);
    Ok(())
}

async fn write(
    context: &Context,
    extension: &MCPGatewayExtension,
    finalizers: &[String],
) -> Result<(), ReconcileError> {
    let key = ObjectKey::of(&extension.metadata);
    let version = extension.metadata.resource_version.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    context
        .api(Kind::Extension, &key.namespace)
        .patch(&key.name, &params, &Patch::Merge(patch))
        .await
        .map(drop)
        .map_err(ReconcileError::request("write finalizers"))
}
