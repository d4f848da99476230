//! The finalizer of extensions (operator.md 4.8): taken before the EnvoyFilter, which lies in a foreign namespace and
//! fails closed, and released once that is gone. Namespaced children follow by ownerReference.

use std::sync::atomic::Ordering;

use mcp_gateway_api::{extension::MCPGatewayExtension, object_key::ObjectKey, world::gateway_of};

use super::{carry_out::remove_filters, teardown::forget_brokers, validate::Validated};
use crate::{
    context::Context,
    kinds::Kind,
    queue::{Outcome, WorkItem},
    reconcile::ReconcileError,
    uninstall::{holds_finalizer, release, take},
};

/// Takes the finalizer, unless it is there or the operator is being uninstalled.
pub(crate) async fn hold(context: &Context, validated: &Validated) -> Result<(), ReconcileError> {
    let key = &validated.blueprint.key;
    let object = context
        .cache
        .get(Kind::Extension, key)
        .filter(|object| !holds_finalizer(object));
    let leaving = context.uninstalling.load(Ordering::Relaxed);
    match object {
        Some(object) if !leaving => take(context, Kind::Extension, key, &object).await,
        _ => Ok(()),
    }
}

/// Ends an extension that is being deleted: EnvoyFilter, listener condition, claims, then the finalizer.
pub(crate) async fn finalize(
    context: &Context,
    extension: &MCPGatewayExtension,
) -> Result<Outcome, ReconcileError> {
    let key = ObjectKey::of(&extension.metadata);
    let object = context
        .cache
        .get(Kind::Extension, &key)
        .filter(|object| holds_finalizer(object));
    let Some(object) = object else {
        return Ok(Outcome::Done);
    };
    sweep(context, &key).await?;
    context
        .queue
        .add([WorkItem::ListenerStatus(gateway_of(extension)), WorkItem::Claims]);
    release(context, Kind::Extension, &key, &object).await?;
    tracing::info!(name = %key, "Extension released");
    Ok(Outcome::Done)
}

/// Removes what an extension left outside its namespace.
pub(crate) async fn sweep(context: &Context, key: &ObjectKey) -> Result<(), ReconcileError> {
    remove_filters(context, key, None).await?;
    forget_brokers(context, key);
    Ok(())
}
