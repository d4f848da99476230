//! Keeps the supplementary webhook configurations of OLM installs (olm.md 6.3): what they hold is decided by
//! `mcp_gateway_api::webhooks::supplementary` from the objects that OLM made. Without OLM there are none of either.

use std::sync::atomic::Ordering;

use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch},
    core::DynamicObject,
};
use mcp_gateway_api::{
    names,
    webhooks::supplementary::{ConfigurationKind, NAME, OWNER_NAMESPACE_LABEL, supplementary},
};
use serde_json::Value;

use crate::{
    apply::{apply_params, raw},
    context::Context,
    fields::is_settled,
    queue::Outcome,
    reconcile::{ReconcileError, webhook::configurations},
};

pub(crate) async fn reconcile(context: &Context) -> Result<Outcome, ReconcileError> {
    if context.uninstalling.load(Ordering::Relaxed) {
        return Ok(Outcome::Done);
    }
    for kind in ConfigurationKind::ALL {
        keep(context, kind).await?;
    }
    Ok(Outcome::Done)
}

async fn keep(context: &Context, kind: ConfigurationKind) -> Result<(), ReconcileError> {
    let api = configurations(context, kind);
    let namespace = &context.settings.namespace;
    let labels = format!("{OWNER_NAMESPACE_LABEL}={namespace}");
    let made = api
        .list(&ListParams::default().labels(&labels))
        .await
        .map_err(ReconcileError::request("list OLM's webhook configurations"))?;
    let made: Vec<Value> = made.items.into_iter().map(raw).collect();
    let live = api.get_opt(NAME).await.map_err(ReconcileError::request(
        "read supplementary webhook configuration",
    ))?;
    match (supplementary(kind, namespace, &made), live) {
        (None, None) => Ok(()),
        (None, Some(live)) => remove(&api, &live, kind).await,
        (Some(wanted), live) => {
            let live = live.map(raw);
            if live
                .as_ref()
                .is_some_and(|live| is_settled(&wanted, live, names::FIELD_MANAGER, None))
            {
                return Ok(());
            }
            api.patch(NAME, &apply_params(), &Patch::Apply(&wanted))
                .await
                .map_err(ReconcileError::request(
                    "write supplementary webhook configuration",
                ))?;
            tracing::info!(
                kind = kind.as_str(),
                "Supplementary webhook configuration applied"
            );
            Ok(())
        }
    }
}

/// Deletes the object that was read, not one that was made since.
async fn remove(
    api: &Api<DynamicObject>,
    live: &DynamicObject,
    kind: ConfigurationKind,
) -> Result<(), ReconcileError> {
    let params = DeleteParams::default().preconditions(kube::api::Preconditions {
        uid: live.meta().uid.clone(),
        resource_version: live.meta().resource_version.clone(),
    });
    match api.delete(NAME, &params).await {
        Ok(_) => {
            tracing::info!(
                kind = kind.as_str(),
                "Supplementary webhook configuration removed"
            );
            Ok(())
        }
        // Gone with its owners, or changed; the next look decides again.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(source) => Err(ReconcileError::request(
            "delete supplementary webhook configuration",
        )(source)),
    }
}
