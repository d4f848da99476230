//! Writing conditions of our own kinds: server-side apply on the status subresource, only when something other than a
//! timestamp differs, and an Event when `Ready` or another verdict turns (operator.md 2, 11.4).

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::api::Patch;
use mcp_gateway_api::{
    conditions::{ConditionType, MAX_MESSAGE, Wanted, cut, upsert},
    object_key::ObjectKey,
};
use serde_json::{Value, json};

use crate::{apply::apply_params, context::Context, kinds::Kind, reconcile::ReconcileError};

/// What a status shall say.
pub(crate) struct StatusWish {
    pub(crate) conditions: Vec<Wanted>,
    /// Members beside `conditions`.
    pub(crate) members: BTreeMap<&'static str, Value>,
}

/// The conditions that an object has now.
pub(crate) fn conditions_of(object: &Value) -> Vec<Condition> {
    let list = object.pointer("/status/conditions").cloned().unwrap_or_default();
    serde_json::from_value(list).unwrap_or_default()
}

/// The condition `kind` in a list.
pub(crate) fn condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

/// Writes `wish` to the object, unless it says so already. True when something was written.
pub(crate) async fn write(
    context: &Context,
    kind: Kind,
    key: &ObjectKey,
    wish: StatusWish,
) -> Result<bool, ReconcileError> {
    let Some(object) = context.cache.get(kind, key) else {
        return Ok(false);
    };
    let former = conditions_of(&object);
    // A member that the wish is silent about keeps its value: what leaves an apply body leaves the object.
    let mut members = object
        .get("status")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    members.remove("conditions");
    for (name, value) in wish.members {
        members.insert(name.to_owned(), value);
    }
    let says = |wanted: &Wanted| condition(&former, wanted.kind).is_some_and(|now| equal(now, wanted));
    let settled = wish.conditions.iter().all(says)
        && members
            .iter()
            .all(|(name, value)| object.pointer(&format!("/status/{name}")) == Some(value));
    if settled {
        return Ok(false);
    }
    let now = Timestamp::now();
    let conditions = wish
        .conditions
        .iter()
        .fold(former.clone(), |all, wanted| upsert(&all, wanted, now));
    members.insert("conditions".to_owned(), json!(conditions));
    let body = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": members,
    });
    let api = context.api(kind, &key.namespace);
    match api
        .patch_status(&key.name, &apply_params(), &Patch::Apply(&body))
        .await
    {
        Ok(_) => {}
        // Gone meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(source) => return Err(ReconcileError::status(format!("{} {key}", kind.name()), source)),
    }
    for wanted in &wish.conditions {
        let before = condition(&former, wanted.kind);
        context.events.transition((kind, &object), wanted, before).await;
    }
    Ok(true)
}

fn equal(now: &Condition, wanted: &Wanted) -> bool {
    let status = if wanted.status { "True" } else { "False" };
    now.status == status
        && now.reason == wanted.reason
        && now.message == cut(&wanted.message, MAX_MESSAGE)
        && now.observed_generation == Some(wanted.observed_generation)
}
