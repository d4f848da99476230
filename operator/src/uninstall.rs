//! Leaving (operator.md 4.8): when the operator is told to stop and its own Deployment is gone or going, it releases
//! the finalizers, so that every object can be deleted afterwards. Data planes keep running.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Value, json};

use crate::{
    apply::{ATTEMPTS, raw},
    context::Context,
    kinds::Kind,
    reconcile::ReconcileError,
};

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
        if let Err(error) = let_go(context, &key, object).await {
            tracing::warn!(name = %key, %error, "Finalizer cannot be released");
        }
    }
}

/// Releases an extension with a fresh read when it is not as the cache has it: nobody would try again later.
async fn let_go(context: &Context, key: &ObjectKey, mut object: Value) -> Result<(), ReconcileError> {
    let kind = Kind::Extension;
    let api = context.api(kind, &key.namespace);
    for _ in 1..ATTEMPTS {
        match release(context, kind, key, &object).await {
            Err(error) if error.is_answer(409) => {}
            other => return other,
        }
        let live = api
            .get_opt(&key.name)
            .await
            .map_err(ReconcileError::request("read extension"))?;
        match live.map(raw).filter(holds_finalizer) {
            Some(live) => object = live,
            None => return Ok(()),
        }
    }
    release(context, kind, key, &object).await
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        body::Bytes,
        http::{Method, StatusCode, Uri},
    };

    use super::*;
    use crate::fixtures::{Objects, context};

    fn held(version: &str) -> Value {
        json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
            "metadata": {"name": "ext", "namespace": "team", "resourceVersion": version, "finalizers": ["theirs", names::FINALIZER]},
            "spec": {"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}})
    }

    /// An API server without the operator's Deployment, whose extension is at `version` and changes once more when it was
    /// read; it keeps what is written in the right version.
    fn server(written: &Arc<Mutex<Vec<Value>>>) -> kube::Client {
        let written = Arc::clone(written);
        let version = Arc::new(Mutex::new(7));
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                "reason": reason, "message": reason});
            (StatusCode::from_u16(code).expect("a code"), Json(status))
        };
        let answer = move |method: Method, uri: Uri, body: Bytes| {
            let mut version = version.lock().expect("free");
            let answer = if uri.path().ends_with(names::OPERATOR) {
                failure(404, "NotFound")
            } else if method == Method::GET {
                let seen = held(&version.to_string());
                // Somebody's write right after the first read.
                *version = 8;
                (StatusCode::OK, Json(seen))
            } else {
                let patch: Value = serde_json::from_slice(&body).expect("JSON");
                if patch["metadata"]["resourceVersion"] == version.to_string() {
                    written.lock().expect("free").push(patch);
                    (StatusCode::OK, Json(held("9")))
                } else {
                    failure(409, "Conflict")
                }
            };
            std::future::ready(answer)
        };
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    #[tokio::test]
    async fn t55_an_extension_that_changed_since_it_was_cached_is_released_all_the_same() {
        let written = Arc::default();
        let objects = Objects::default().put(Kind::Extension, "team/ext", &held("1"));
        let context = context(server(&written), objects);
        leave(&context).await;
        let written = written.lock().expect("free");
        let finalizers: Vec<_> = written
            .iter()
            .map(|patch| &patch["metadata"]["finalizers"])
            .collect();
        assert_eq!(finalizers, [&json!(["theirs"])]);
    }
}
