//! What an extension that fails one of rows 1–9 loses, in the order of operator.md 4.4. Deployment, Service,
//! ServiceAccount and signing key stay: they are inert, and recovery takes seconds.

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::api::Patch;
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Value, json};

use super::{
    carry_out::remove_filters,
    fetch::beside,
    validate::{Paused, Refused},
};
use crate::{
    apply::{raw, remove},
    context::Context,
    document::empty,
    kinds::Kind,
    queue::WorkItem,
    reconcile::ReconcileError,
    standing::is_controlled_by,
};

/// Proof that nothing of the extension is programmed any more. Only [`teardown`] makes it.
pub(crate) struct TornDown(());

pub(crate) async fn teardown(context: &Context, refused: &Refused) -> Result<TornDown, ReconcileError> {
    let key = ObjectKey::of(&refused.extension.metadata);
    let uid = refused.extension.metadata.uid.as_deref().unwrap_or_default();
    remove_filters(context, &key, None).await?;
    for name in [names::ROUTE, names::TOKENS_ROUTE] {
        let route = beside(&key, name);
        let cached = context.cache.get(Kind::HttpRoute, &route);
        if cached.is_some_and(|route| is_controlled_by(&route, uid)) {
            remove(context, Kind::HttpRoute, &route, |live| {
                is_controlled_by(live, uid)
            })
            .await?;
        }
    }
    empty_config(context, &key, uid).await?;
    let gateway = mcp_gateway_api::world::gateway_of(&refused.extension);
    context
        .queue
        .add([WorkItem::ListenerStatus(gateway), WorkItem::Claims]);
    forget_brokers(context, &key);
    Ok(TornDown(()))
}

/// Removes what a paused extension left at a Gateway that it no longer names; what runs at the present one stays.
pub(crate) async fn leave_old_targets(context: &Context, paused: &Paused) -> Result<(), ReconcileError> {
    let key = ObjectKey::of(&paused.extension.metadata);
    let gateway = mcp_gateway_api::world::gateway_of(&paused.extension);
    let name = names::envoy_filter_name(&key.namespace);
    let here = ObjectKey::new(gateway.namespace, name);
    remove_filters(context, &key, Some(&here)).await
}

/// The brokers of the namespace answer for this extension no more.
pub(super) fn forget_brokers(context: &Context, key: &ObjectKey) {
    let mut brokers = context.brokers();
    if brokers
        .get(&key.namespace)
        .is_some_and(|observed| observed.belongs_to(key))
    {
        brokers.remove(&key.namespace);
    }
}

/// Writes the empty document into a config Secret that is ours, unless it is empty already.
async fn empty_config(context: &Context, key: &ObjectKey, uid: &str) -> Result<(), ReconcileError> {
    let secret = beside(key, names::CONFIG_SECRET);
    if context
        .cache
        .get(Kind::Secret, &secret)
        .is_none_or(|cached| !is_controlled_by(&cached, uid))
    {
        return Ok(());
    }
    let request = ReconcileError::request("empty config Secret");
    let api = context.api(Kind::Secret, &secret.namespace);
    let Some(live) = api.get_opt(&secret.name).await.map_err(&request)?.map(raw) else {
        return Ok(());
    };
    let document = STANDARD.encode(empty()?.yaml);
    let current = live
        .pointer("/data")
        .and_then(|data| data.get(names::CONFIG_KEY))
        .and_then(Value::as_str);
    if !is_controlled_by(&live, uid) || current == Some(document.as_str()) {
        return Ok(());
    }
    let version = live
        .pointer("/metadata/resourceVersion")
        .cloned()
        .unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {names::CONFIG_KEY: document}});
    let params = kube::api::PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    api.patch(&secret.name, &params, &Patch::Merge(patch))
        .await
        .map_err(&request)?;
    Ok(())
}
