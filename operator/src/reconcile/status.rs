//! Writing conditions of our own kinds: server-side apply on the status subresource, only when something other than a
//! timestamp differs, and an Event when `Ready` or another verdict turns (operator.md 2, 11.4).

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::api::Patch;
use mcp_gateway_api::{
    conditions::{ConditionType, MAX_MESSAGE, Wanted, cut, upsert},
    object_key::ObjectKey,
};
use serde_json::{Map, Value, json};

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
    if !apply(context, kind, key, members).await? {
        return Ok(false);
    }
    for wanted in &wish.conditions {
        let before = condition(&former, wanted.kind);
        context.events.transition((kind, &object), wanted, before).await;
    }
    Ok(true)
}

/// Applies the members; false when the object is gone. Members that the CRD of an older release does not have are left
/// out: the conditions matter more.
async fn apply(
    context: &Context,
    kind: Kind,
    key: &ObjectKey,
    mut members: Map<String, Value>,
) -> Result<bool, ReconcileError> {
    let api = context.api(kind, &key.namespace);
    loop {
        let body = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": members,
        });
        let (params, patch) = (apply_params(), Patch::Apply(&body));
        match api.patch_status(&key.name, &params, &patch).await {
            Ok(_) => return Ok(true),
            // Gone meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(source) => {
                let unknown = undeclared(&source.to_string()).and_then(|name| members.remove(name));
                if unknown.is_none() {
                    return Err(ReconcileError::status(format!("{} {key}", kind.name()), source));
                }
            }
        }
    }
}

/// The member of the status that the API server's schema does not know.
fn undeclared(error: &str) -> Option<&str> {
    let (before, _) = error.split_once(": field not declared in schema")?;
    let (_, member) = before.rsplit_once(".status.")?;
    (!member.contains(['.', '['])).then_some(member)
}

fn equal(now: &Condition, wanted: &Wanted) -> bool {
    let status = if wanted.status { "True" } else { "False" };
    now.status == status
        && now.reason == wanted.reason
        && now.message == cut(&wanted.message, MAX_MESSAGE)
        && now.observed_generation == Some(wanted.observed_generation)
}

#[cfg(test)]
mod tests {
    use super::undeclared;

    #[test]
    fn a_member_that_an_older_crd_does_not_have_is_found_in_the_api_servers_words() {
        let said = "ApiError: failed to create typed patch object (ns/weather; mcp.kuadrant.io/v1alpha1, \
            Kind=MCPServerRegistration): .status.era: field not declared in schema:  (Status)";
        assert_eq!(undeclared(said), Some("era"));
        assert_eq!(
            undeclared(".status.conditions[0].x: field not declared in schema"),
            None
        );
        assert_eq!(undeclared("Internal Server Error"), None);
    }
}
