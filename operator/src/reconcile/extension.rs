//! One extension: the five calls, what happens when it lost or is paused, and its deletion.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    object_key::{ObjectKey, is_live},
    world::gateway_of,
};

use crate::{context::Context, kinds::Kind, queue::Outcome, reconcile::ReconcileError};

pub(crate) mod build;
pub(crate) mod carry_out;
pub(crate) mod fetch;
pub(crate) mod finalize;
mod news;
pub(crate) mod readiness;
pub(crate) mod status;
pub(crate) mod teardown;
pub(crate) mod validate;
mod way_back;

use validate::Verdict;

/// When a Secret that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// When a broker that waits for its turn to roll is looked at, should nobody call it.
const TURN: Duration = Duration::from_secs(60);

/// Brings the extension `key`, and everything that belongs to it, to the wanted state.
pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let snapshot = context.snapshot();
    let Some(extension) = snapshot.world.extension(key).map(Arc::clone) else {
        if let Some(error) = context.cache.decode_error(Kind::Extension, key) {
            return undecodable(context, key, &error).await;
        }
        finalize::sweep_gone(context, key).await?;
        return Ok(Outcome::Done);
    };
    if !is_live(&extension.metadata) {
        return finalize::finalize(context, key, Some(gateway_of(&extension))).await;
    }
    let fetched = fetch::fetch(context, snapshot, extension).await;
    match validate::validate(fetched, &context.settings)? {
        Verdict::Accepted(validated) => accepted(context, *validated).await,
        Verdict::Paused(paused) => {
            let again = if paused.inconclusive {
                Outcome::After(RETRY)
            } else {
                Outcome::Done
            };
            teardown::leave_old_targets(context, &paused).await?;
            status::write_paused(context, &paused).await?;
            Ok(again)
        }
        Verdict::Refused(refused) => {
            let removed = teardown::teardown(context, &refused).await?;
            status::write_refused(context, &refused, &removed).await?;
            Ok(Outcome::Done)
        }
    }
}

/// An extension that cannot be read: the status says why, unless it is being deleted, which needs nothing of its spec.
async fn undecodable(context: &Context, key: &ObjectKey, error: &str) -> Result<Outcome, ReconcileError> {
    let object = context.cache.get(Kind::Extension, key);
    if object.is_some_and(|object| object.pointer("/metadata/deletionTimestamp").is_some()) {
        return finalize::finalize(context, key, None).await;
    }
    status::write_undecodable(context, key, error).await?;
    Ok(Outcome::Done)
}

async fn accepted(context: &Context, validated: validate::Validated) -> Result<Outcome, ReconcileError> {
    finalize::hold(context, &validated).await?;
    let resources = build::build(&validated, context);
    let applied = carry_out::carry_out(context, &validated, resources).await?;
    let again = if validated.inconclusive() {
        Outcome::After(RETRY)
    } else if let (Some(wait), None) = (applied.wait, &applied.blocked) {
        Outcome::After(wait)
    } else if validated.awaits_turn() && applied.blocked.is_none() {
        Outcome::After(TURN)
    } else {
        applied.retry()
    };
    let held = status::write_accepted(context, &validated, &applied).await?;
    Ok(match held {
        Some(wait) if again == Outcome::Done => Outcome::After(wait),
        _ => again,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        http::{Method, StatusCode, Uri},
    };
    use mcp_gateway_api::names;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{Objects, context};

    #[tokio::test]
    async fn t42_a_config_that_cannot_be_read_is_not_an_absent_one_and_nothing_is_written() {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&writes);
        let answer = move |method: Method, uri: Uri| {
            if method != Method::GET {
                noted.lock().expect("free").push(format!("{method} {uri}"));
            }
            let config = uri.path().ends_with(names::CONFIG_SECRET);
            let (code, reason) = if config {
                (500, "InternalError")
            } else {
                (404, "NotFound")
            };
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": code, "reason": reason, "message": "not now"});
            let code = StatusCode::from_u16(code).expect("a code");
            std::future::ready((code, Json(status)))
        };
        let client = kube::Client::new(Router::new().fallback(answer), "default");
        let held = json!({"metadata": {"finalizers": [names::FINALIZER]},
            "spec": {"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
        let objects = Objects::default()
            .gateway_and_extension()
            .put(Kind::Extension, "team/ext", &held);
        let context = context(client, objects);
        let outcome = reconcile(&context, &ObjectKey::new("team", "ext")).await;
        assert!(
            matches!(outcome, Err(ReconcileError::SecretUnknown(_))),
            "{outcome:?}"
        );
        assert_eq!(*writes.lock().expect("free"), Vec::<String>::new());
    }
}
