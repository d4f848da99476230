//! Status of a policy. Rules and providers are not resolved yet: the document holds every policy as not valid, which
//! denies what it concerns, and the status says exactly that (operator.md 10.4.3, 10.5).

use std::collections::BTreeMap;

use mcp_gateway_api::{
    conditions::{ConditionType, PolicyReason, Wanted},
    object_key::ObjectKey,
};
use serde_json::Value;

use crate::{
    context::Context,
    kinds::Kind,
    queue::Outcome,
    reconcile::{
        ReconcileError,
        status::{StatusWish, write},
    },
    uninstall::{holds_finalizer, release},
};

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let Some(object) = context.cache.get(Kind::AuthPolicy, key) else {
        return Ok(Outcome::Done);
    };
    if holds_finalizer(&object) {
        release(context, Kind::AuthPolicy, key, &object).await?;
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(Outcome::Done);
    }
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let wanted = |kind, reason: PolicyReason, message: &str| Wanted {
        kind,
        status: false,
        reason: reason.as_str(),
        message: message.to_owned(),
        observed_generation: generation,
    };
    let conditions = vec![
        wanted(
            ConditionType::Accepted,
            PolicyReason::Invalid,
            "this version does not resolve policies yet: everything that the policy concerns is denied; delete it to open",
        ),
        wanted(
            ConditionType::Enforced,
            PolicyReason::NotAccepted,
            "the policy is not accepted",
        ),
    ];
    write(
        context,
        Kind::AuthPolicy,
        key,
        StatusWish {
            conditions,
            members: BTreeMap::new(),
        },
    )
    .await?;
    Ok(Outcome::Done)
}
