//! The finalizer of extensions (operator.md 4.8): taken before the EnvoyFilter, which lies in a foreign namespace and
//! fails closed, and released once that is gone. Namespaced children follow by ownerReference.

use std::sync::atomic::Ordering;

use kube::runtime::events::EventType;
use mcp_gateway_api::object_key::ObjectKey;

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

/// Answers by which an object of others says that it stays: they end the deletion of an extension all the same.
const REFUSALS: [u16; 3] = [403, 404, 422];

/// True when its owner, or a policy, keeps an object of others; trying again would not help.
pub(super) fn is_refusal(error: &ReconcileError) -> bool {
    REFUSALS.iter().any(|code| error.is_answer(*code))
}

/// Removes what an extension that is gone left outside its namespace; what may not be deleted stays.
pub(crate) async fn sweep_gone(context: &Context, key: &ObjectKey) -> Result<(), ReconcileError> {
    match sweep(context, key).await {
        Err(error) if is_refusal(&error) => {
            tracing::warn!(name = %key, %error, "EnvoyFilter is left behind");
            Ok(())
        }
        other => other,
    }
}

/// Ends an extension that is being deleted: EnvoyFilter, listener condition, claims, then the finalizer. `gateway` is
/// absent when the extension cannot be read; the conditions in listeners then follow the filters.
pub(crate) async fn finalize(
    context: &Context,
    key: &ObjectKey,
    gateway: Option<ObjectKey>,
) -> Result<Outcome, ReconcileError> {
    let object = context.cache.get(Kind::Extension, key).filter(holds_finalizer);
    let Some(object) = object else {
        return Ok(Outcome::Done);
    };
    match sweep(context, key).await {
        Err(error) if is_refusal(&error) => {
            tracing::warn!(name = %key, %error, "EnvoyFilter is left behind");
            let note = format!("left behind, delete it by hand: {error}");
            let subject = (Kind::Extension, &object);
            context
                .events
                .publish(subject, EventType::Warning, "CleanupIncomplete", &note)
                .await;
        }
        other => other?,
    }
    context.queue.add(gateway.map(WorkItem::ListenerStatus));
    context.queue.add([WorkItem::Claims]);
    release(context, Kind::Extension, key, &object).await?;
    tracing::info!(name = %key, "Extension released");
    Ok(Outcome::Done)
}

/// Removes what an extension left outside its namespace.
async fn sweep(context: &Context, key: &ObjectKey) -> Result<(), ReconcileError> {
    forget_brokers(context, key);
    context.expectations.forget(key);
    remove_filters(context, key, None).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        http::{Method, StatusCode, Uri},
    };
    use mcp_gateway_api::names;
    use serde_json::{Value, json};

    use crate::{
        fixtures::{Objects, context},
        kinds::Kind,
        queue::Outcome,
        reconcile::extension::reconcile,
    };

    type Writes = Arc<Mutex<Vec<String>>>;

    /// An API server on which `filter` may not be deleted; it notes every write.
    fn refusing(filter: Value, writes: &Writes) -> kube::Client {
        let writes = Arc::clone(writes);
        let answer = move |method: Method, uri: Uri| {
            let path = uri.path().to_owned();
            if method != Method::GET {
                let mut writes = writes.lock().expect("not poisoned");
                writes.push(format!("{method} {path}"));
            }
            let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": "Forbidden", "code": 403, "message": "it is not yours"});
            let other = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}});
            let answer = match (method.as_str(), path.contains("/envoyfilters/")) {
                ("GET", true) => (StatusCode::OK, filter.clone()),
                ("DELETE", true) => (StatusCode::FORBIDDEN, refusal),
                _ => (StatusCode::OK, other),
            };
            async move { (answer.0, Json(answer.1)) }
        };
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    #[tokio::test]
    async fn t54_an_unreadable_extension_whose_filter_stays_can_be_deleted_and_says_so() {
        let labels = json!({
            names::MANAGED_BY_LABEL.0: names::MANAGED_BY_LABEL.1,
            names::EXTENSION_NAME_LABEL: "ext",
            names::EXTENSION_NAMESPACE_LABEL: "team",
        });
        let filter = json!({"metadata": {"labels": labels}});
        let leaving = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:01:00Z", "finalizers": [names::FINALIZER]},
            "spec": {"targetRef": {"name": "gw"}},
        });
        let objects = Objects::default()
            .put(Kind::EnvoyFilter, "infra/filter", &filter)
            .put(Kind::Extension, "team/ext", &leaving);
        let key = super::ObjectKey::new("team", "ext");
        assert!(objects.0.decode_error(Kind::Extension, &key).is_some());
        let stored = objects.0.list(Kind::EnvoyFilter, |_| true);
        let live = stored.first().map(|(_, filter)| filter.clone());
        let writes = Writes::default();
        let context = context(refusing(live.expect("stored"), &writes), objects);
        let outcome = reconcile(&context, &key).await.expect("a refusal ends it");
        assert_eq!(outcome, Outcome::Done);
        let writes = writes.lock().expect("not poisoned");
        let is = |method: &str, part: &str| {
            let mut all = writes.iter();
            all.any(|write| write.starts_with(method) && write.contains(part))
        };
        assert!(is("DELETE", "/envoyfilters/filter"), "{writes:?}");
        assert!(is("POST", "/events"), "{writes:?}");
        assert!(is("PATCH", "/mcpgatewayextensions/ext"), "{writes:?}");
    }
}
