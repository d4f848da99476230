//! The admission webhook's certificate and configurations in `--webhook-certs=managed` mode (operator.md 11.1, 12):
//! the Secret first, the configurations once a webhook replica is ready, so that a policy of `Fail` never precedes it.
//! Configurations that somebody else installed (kustomize) block already: they get their CA at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{ListParams, Patch},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{
    names,
    object_key::ObjectKey,
    webhooks::{self, WebhookClient, supplementary::ConfigurationKind},
};
use serde_json::{Value, json};

use crate::{
    apply::{apply_params, raw},
    certificates::{issue, not_after, runs_out},
    context::Context,
    fields::is_settled,
    kinds::Kind,
    queue::Outcome,
    reconcile::ReconcileError,
};

/// Secret with the serving pair, keys `tls.crt`, `tls.key`, `ca.crt`.
pub(crate) const SECRET: &str = "mcp-gateway-webhook-cert";
/// Look again while no replica is ready.
const WAITING: Duration = Duration::from_secs(2);
/// Look again when all is well: expiry, and configurations that somebody edited.
const SETTLED: Duration = Duration::from_secs(60);

pub(crate) async fn reconcile(context: &Context) -> Result<Outcome, ReconcileError> {
    let ca = certificate(context).await?;
    let ready = replica_ready(context).await?;
    let owner = owner(context).await?;
    let client = WebhookClient::service(&context.settings.namespace, Some(ca));
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
    Ok(Outcome::After(if ready { SETTLED } else { WAITING }))
}

/// The ownerReference with which the configurations go when the release goes, also when no hook ran: a policy of `Fail`
/// without its webhook would block every extension. Nothing for installs that ship the configurations themselves.
async fn owner(context: &Context) -> Result<Option<Value>, ReconcileError> {
    let Some(name) = &context.settings.webhook_configuration_owner else {
        return Ok(None);
    };
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let role = api.get_metadata_opt(name).await.map_err(ReconcileError::request(
        "read owner of the webhook configurations",
    ))?;
    let uid = role.and_then(|role| role.metadata.uid);
    Ok(uid.map(|uid| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": name, "uid": uid})
    }))
}

/// The CA of the pair in the Secret; issues a pair when there is none or it runs out.
async fn certificate(context: &Context) -> Result<Vec<u8>, ReconcileError> {
    let key = ObjectKey::new(context.settings.namespace.as_str(), SECRET);
    let api = context.api(Kind::Secret, &key.namespace);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let live = api
        .get_opt(SECRET)
        .await
        .map_err(ReconcileError::request("read webhook certificate"))?
        .map(raw);
    if let Some(ca) = live.as_ref().and_then(|live| usable_ca(live, now)) {
        return Ok(ca);
    }
    let pair = issue(&dns_names(context), now).map_err(|error| ReconcileError::Key(error.to_string()))?;
    let mut metadata = json!({
        "name": SECRET,
        "namespace": key.namespace,
        "labels": {"app.kubernetes.io/name": webhooks::NAME},
    });
    if let (Some(version), Value::Object(metadata)) = (
        live.as_ref()
            .and_then(|live| live.pointer("/metadata/resourceVersion")),
        &mut metadata,
    ) {
        metadata.insert("resourceVersion".to_owned(), version.clone());
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": {
            "ca.crt": STANDARD.encode(&pair.ca),
            "tls.crt": STANDARD.encode(&pair.certificate),
            "tls.key": STANDARD.encode(&pair.key),
        },
    });
    let patch = Patch::Apply(&body);
    api.patch(SECRET, &apply_params(), &patch)
        .await
        .map_err(ReconcileError::request("write webhook certificate"))?;
    tracing::info!(secret = %key, "Webhook certificate issued");
    Ok(pair.ca.into_bytes())
}

fn usable_ca(secret: &Value, now: Duration) -> Option<Vec<u8>> {
    let value = |name: &str| {
        let text = secret.get("data")?.get(name)?.as_str()?;
        STANDARD.decode(text).ok().filter(|value| !value.is_empty())
    };
    let (ca, certificate) = (value("ca.crt")?, value("tls.crt")?);
    value("tls.key")?;
    (!runs_out(not_after(&certificate)?, now) && !runs_out(not_after(&ca)?, now)).then_some(ca)
}

fn dns_names(context: &Context) -> Vec<String> {
    let (name, namespace) = (webhooks::NAME, context.settings.namespace.as_str());
    let short = format!("{name}.{namespace}.svc");
    let long = format!("{short}.{}", context.settings.cluster_domain);
    vec![short, long]
}

async fn replica_ready(context: &Context) -> Result<bool, ReconcileError> {
    let labels = format!("kubernetes.io/service-name={}", webhooks::NAME);
    let api = context.api(Kind::EndpointSlice, &context.settings.namespace);
    let params = ListParams::default().labels(&labels);
    let slices = api
        .list(&params)
        .await
        .map_err(ReconcileError::request("list webhook endpoints"))?;
    Ok(slices.items.into_iter().map(raw).any(|slice| {
        let endpoints = slice.get("endpoints").and_then(Value::as_array);
        endpoints.into_iter().flatten().any(|endpoint| {
            endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                .unwrap_or(true)
        })
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
