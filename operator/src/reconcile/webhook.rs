//! The admission webhook's certificate and configurations in `--webhook-certs=managed` mode (operator.md 11.1, 12):
//! the Secret first, the configurations once a webhook replica is ready, so that a policy of `Fail` never precedes it.
//! Configurations that somebody else installed (kustomize) block already: they get their CA at once.

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::Patch,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{
    names,
    webhooks::{self, WebhookClient, supplementary::ConfigurationKind},
};
use serde_json::{Value, json};

use crate::{
    apply::{apply_params, raw},
    context::Context,
    fields::is_settled,
    queue::Outcome,
    reconcile::ReconcileError,
};

mod certificate;
mod replicas;

use certificate::Trust;

/// Look again while no replica is ready, or some may still serve a former pair.
const WAITING: Duration = Duration::from_secs(2);
/// Until every API server has seen a changed configuration. A replica serves a pair seconds after it was written, and
/// must be trusted then.
const SEEN: Duration = Duration::from_secs(2);

pub(crate) async fn reconcile(context: &Context) -> Result<Outcome, ReconcileError> {
    if !context.settings.manages_webhook {
        return Ok(Outcome::Done);
    }
    let secret = certificate::read(context).await?;
    let replicas = replicas::replicas(context).await?;
    let ready = replicas.iter().any(|replica| replica.ready);
    let stored = secret
        .as_ref()
        .and_then(|secret| Some((secret, certificate::usable(secret, certificate::now())?)));
    let Some((secret, mut trust)) = stored else {
        rotate(context, secret.as_ref(), ready).await?;
        return Ok(Outcome::After(WAITING));
    };
    context.unwritten_pair.forget();
    if !trust.former.is_empty() && replicas::all_serve(context, &replicas, &trust.ca).await {
        certificate::forget_former(context, secret).await?;
        trust.former.clear();
    }
    let configured = configure_all(context, &trust, ready).await?;
    let settled = ready && configured && trust.former.is_empty();
    // Edits of Secret and configurations are watched; whether the pair runs out is seen at each resync.
    Ok(if settled {
        Outcome::Done
    } else {
        Outcome::After(WAITING)
    })
}

/// Another pair, without a moment in which a replica serves what the API server does not trust: both authorities are
/// trusted first, then the Secret is written, and the former one goes when every replica serves the new pair.
async fn rotate(context: &Context, secret: Option<&Value>, ready: bool) -> Result<(), ReconcileError> {
    let now = certificate::now();
    let pair = context
        .unwritten_pair
        .get_or_issue(|| certificate::new_pair(context, now))?;
    // What replicas serve came out of the Secret, so its authorities come first: only some are kept.
    let in_use = secret.map(certificate::authorities).unwrap_or_default();
    let trust = Trust::moving(&pair, &[in_use, trusted(context).await?].concat(), now);
    configure_all(context, &trust, ready).await?;
    if !trust.former.is_empty() {
        tokio::time::sleep(SEEN).await;
    }
    certificate::replace(context, secret, &pair, &trust.former).await
}

/// The authorities that the API server trusts now, in PEM; empty when there is no configuration.
async fn trusted(context: &Context) -> Result<String, ReconcileError> {
    let live = configurations(context, ConfigurationKind::Validating)
        .get_opt(webhooks::NAME)
        .await
        .map_err(ReconcileError::request("read webhook configuration"))?
        .map(raw);
    let bundle = live.as_ref().and_then(|live| {
        let text = live.pointer("/webhooks/0/clientConfig/caBundle")?.as_str()?;
        String::from_utf8(STANDARD.decode(text).ok()?).ok()
    });
    Ok(bundle.unwrap_or_default())
}

/// Brings the configurations to their wanted state; those that are ours to make are made once a replica is `ready`.
/// False when none is wanted now because the release is going: what is made then would outlive it, and refuse every extension.
async fn configure_all(context: &Context, trust: &Trust, ready: bool) -> Result<bool, ReconcileError> {
    if context.uninstalling.load(Ordering::Relaxed) {
        return Ok(false);
    }
    let owner = match owner(context).await? {
        Owner::Nobody => None,
        Owner::Object(owner) => Some(owner),
        Owner::Gone => return Ok(false),
    };
    let client = WebhookClient::service(&context.settings.namespace, Some(trust.bundle()));
    let (validating, mutating) = (ConfigurationKind::Validating, ConfigurationKind::Mutating);
    let wanted = [
        (validating, json!(webhooks::validating(&client)), ready),
        (mutating, json!(webhooks::mutating(&client)), ready),
        // Optional, so never made here: who installed it wants it.
        (validating, json!(webhooks::advisory(&client)), false),
    ];
    for (kind, mut body, may_create) in wanted {
        // What others installed goes with whatever they installed it with.
        let is_made_here = body.pointer("/metadata/name").and_then(Value::as_str) == Some(webhooks::NAME);
        if let (true, Some(owner), Some(metadata)) = (
            is_made_here,
            &owner,
            body.get_mut("metadata").and_then(Value::as_object_mut),
        ) {
            metadata.insert("ownerReferences".to_owned(), json!([owner]));
        }
        configure(context, kind, &body, may_create).await?;
    }
    Ok(true)
}

/// With whom the configurations that are made here go.
enum Owner {
    /// The install ships the configurations itself.
    Nobody,
    /// The ownerReference with which they go when the release goes, also when no hook ran: a policy of `Fail` without
    /// its webhook would block every extension.
    Object(Value),
    /// There is to be one and it is not there.
    Gone,
}

async fn owner(context: &Context) -> Result<Owner, ReconcileError> {
    let Some(name) = &context.settings.webhook_configuration_owner else {
        return Ok(Owner::Nobody);
    };
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let role = api.get_metadata_opt(name).await.map_err(ReconcileError::request(
        "read owner of the webhook configurations",
    ))?;
    let uid = role.and_then(|role| role.metadata.uid);
    Ok(uid.map_or(Owner::Gone, |uid| {
        Owner::Object(
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": name, "uid": uid}),
        )
    }))
}

/// Applies one configuration object, unless it is settled, or is absent and must not be created yet.
async fn configure(
    context: &Context,
    kind: ConfigurationKind,
    body: &Value,
    may_create: bool,
) -> Result<(), ReconcileError> {
    let api = configurations(context, kind);
    let name = body
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or(webhooks::NAME);
    let live = api
        .get_opt(name)
        .await
        .map_err(ReconcileError::request("read webhook configuration"))?
        .map(raw);
    let settled = live
        .as_ref()
        .is_some_and(|live| is_settled(body, live, names::FIELD_MANAGER, None));
    if settled || (live.is_none() && !may_create) {
        return Ok(());
    }
    let patch = Patch::Apply(body);
    api.patch(name, &apply_params(), &patch)
        .await
        .map_err(ReconcileError::request("write webhook configuration"))?;
    tracing::info!(kind = kind.as_str(), name, "Webhook configuration applied");
    Ok(())
}

/// A client for the configurations of `kind`.
pub(crate) fn configurations(context: &Context, kind: ConfigurationKind) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind.as_str());
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
    Api::all_with(context.client.clone(), &resource)
}

#[cfg(test)]
mod tests;
