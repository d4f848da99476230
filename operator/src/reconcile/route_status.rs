//! Our own entries in `status.parents` of a registered HTTPRoute (operator.md 2.5). The list is atomic: it is written
//! under a resourceVersion precondition, and entries of other controllers are carried over untouched.

use kube::api::{Patch, PatchParams};
use mcp_gateway_api::{
    acceptance::Accepted,
    conditions::{ConditionType, ForeignReason},
    names,
    object_key::ObjectKey,
    resolution::attached_by,
    route::ParentRef,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{context::Context, kinds::Kind, queue::Outcome, reconcile::ReconcileError, snapshot::Snapshot};

/// Most entries that Gateway API takes.
const MAX_PARENTS: usize = 32;

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let Some(route) = context.cache.get(Kind::HttpRoute, key) else {
        return Ok(Outcome::Done);
    };
    let snapshot = context.snapshot();
    let serving = serving(&snapshot, key);
    let in_use = |parent: &Value| {
        let parent = ParentRef::deserialize(parent).ok();
        let seen = snapshot.world.route(key).zip(parent);
        seen.is_some_and(|(route, parent)| {
            let mut serving = serving.iter();
            serving.any(|accepted| attached_by(&snapshot.world, route, &parent, accepted))
        })
    };
    let Some(parents) = wanted(&route, in_use) else {
        return Ok(Outcome::Done);
    };
    let version = route
        .pointer("/metadata/resourceVersion")
        .cloned()
        .unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": version}, "status": {"parents": parents}});
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match context
        .api(Kind::HttpRoute, &key.namespace)
        .patch_status(&key.name, &params, &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(Outcome::Done),
        // Somebody wrote meanwhile: the watch brings the new version and this item again.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(Outcome::After(std::time::Duration::from_secs(1)))
        }
        Err(kube::Error::Api(status)) if [403, 404, 422].contains(&status.code) => {
            tracing::warn!(route = %key, message = %status.message, "Route status cannot be written");
            Ok(Outcome::Done)
        }
        Err(source) => Err(ReconcileError::status(format!("HTTPRoute {key}"), source)),
    }
}

/// The extensions that serve some live registration of the route.
fn serving<'a>(snapshot: &'a Snapshot, key: &ObjectKey) -> Vec<&'a Accepted> {
    let registrations = snapshot.world.registrations_of(key);
    let resolutions =
        registrations.filter_map(|registration| snapshot.resolution(&ObjectKey::of(&registration.metadata)));
    resolutions
        .flat_map(|resolution| &resolution.served_by)
        .filter_map(|extension| snapshot.accepted(extension))
        .collect()
}

/// The list to write, or nothing when it is right already or full; `in_use` says by which parentRefs an extension serves
/// the route.
fn wanted(route: &Value, in_use: impl Fn(&Value) -> bool) -> Option<Vec<Value>> {
    let former = route
        .pointer("/status/parents")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let generation = route.pointer("/metadata/generation").cloned().unwrap_or_default();
    let is_ours =
        |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(names::CONTROLLER_NAME);
    let mut parents: Vec<Value> = former
        .iter()
        .filter(|entry| !is_ours(entry))
        .map(without_old_mark)
        .collect();
    let accepted: Vec<Value> = parents
        .iter()
        .filter(|entry| says_accepted(entry))
        .cloned()
        .collect();
    let mut matched: Vec<Value> = accepted
        .iter()
        .map(|foreign| foreign.get("parentRef").cloned().unwrap_or_default())
        .collect();
    matched.retain(in_use);
    for parent_ref in matched {
        let mut earlier = former.iter().chain(&parents).filter(|entry| is_ours(entry));
        let known = earlier.find(|entry| entry.get("parentRef") == Some(&parent_ref));
        let since = known
            .and_then(|entry| entry.pointer("/conditions/0/lastTransitionTime"))
            .cloned();
        let entry = entry(&parent_ref, &generation, since);
        if !parents.contains(&entry) {
            parents.push(entry);
        }
    }
    (parents != former && parents.len() <= MAX_PARENTS).then_some(parents)
}

/// A foreign entry without the condition that an older install left in it; one that has no other is left as it is, because
/// an entry without conditions is not valid (operator.md 2.5).
fn without_old_mark(entry: &Value) -> Value {
    let is_mark = |condition: &Value| {
        let is = |member: &str, wanted: &str| condition.get(member).and_then(Value::as_str) == Some(wanted);
        is("type", ConditionType::Programmed.as_str())
            && is("reason", ForeignReason::InUseByMCPServerRegistration.as_str())
    };
    let mut cleared = entry.clone();
    let left = cleared
        .get_mut("conditions")
        .and_then(Value::as_array_mut)
        .map_or(0, |conditions| {
            conditions.retain(|condition| !is_mark(condition));
            conditions.len()
        });
    if left == 0 { entry.clone() } else { cleared }
}

fn says_accepted(entry: &Value) -> bool {
    let conditions = entry.get("conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some("Accepted")
            && condition.get("status").and_then(Value::as_str) == Some("True")
    })
}

fn entry(parent_ref: &Value, generation: &Value, since: Option<Value>) -> Value {
    let now = || json!(k8s_openapi::jiff::Timestamp::now().strftime("%FT%TZ").to_string());
    json!({
        "parentRef": parent_ref,
        "controllerName": names::CONTROLLER_NAME,
        "conditions": [{
            "type": ConditionType::Programmed.as_str(),
            "status": "True",
            "reason": ForeignReason::InUseByMCPServerRegistration.as_str(),
            "message": "in use by an MCPServerRegistration",
            "observedGeneration": generation,
            "lastTransitionTime": since.unwrap_or_else(now),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(parents: &Value) -> Value {
        json!({"metadata": {"generation": 4}, "status": {"parents": parents}})
    }

    fn foreign() -> Value {
        json!({"controllerName": "istio.io/gateway-controller", "parentRef": {"name": "gw"},
               "conditions": [{"type": "Accepted", "status": "True"}]})
    }

    #[test]
    fn t50_entries_of_others_are_carried_over_untouched() {
        let parents = wanted(&route(&json!([foreign()])), |_| true).expect("ours is added");
        assert_eq!(parents[0], foreign());
        assert_eq!(parents[1]["controllerName"], names::CONTROLLER_NAME);
        assert_eq!(
            wanted(&route(&json!(parents)), |_| true),
            None,
            "a second look writes nothing"
        );
    }

    #[test]
    fn t51_our_entry_goes_with_the_last_registration_and_nothing_else() {
        let parents = wanted(&route(&json!([foreign()])), |_| true).expect("ours is added");
        assert_eq!(wanted(&route(&json!(parents)), |_| false), Some(vec![foreign()]));
    }

    #[test]
    fn t50_the_mark_of_an_older_install_goes_unless_it_is_the_only_condition() {
        let mark = json!({"type": "Programmed", "status": "True", "reason": "InUseByMCPServerRegistration"});
        let mut marked = foreign();
        marked["conditions"] = json!([{"type": "Accepted", "status": "True"}, mark]);
        assert_eq!(wanted(&route(&json!([marked])), |_| false), Some(vec![foreign()]));
        let theirs = json!({"controllerName": "other", "parentRef": {"name": "gw"},
            "conditions": [{"type": "Programmed", "status": "True", "reason": "Programmed"}]});
        let alone = json!({"controllerName": "other", "parentRef": {"name": "gw"}, "conditions": [mark]});
        assert_eq!(wanted(&route(&json!([theirs, alone])), |_| false), None);
    }

    #[test]
    fn a_full_list_is_left_alone() {
        let full: Vec<Value> = (0..32).map(|_| foreign()).collect();
        assert_eq!(wanted(&route(&json!(full)), |_| true), None);
    }

    #[test]
    fn a_gateway_without_an_extension_that_serves_the_route_gets_no_entry() {
        let mut elsewhere = foreign();
        elsewhere["parentRef"] = json!({"name": "elsewhere"});
        let serving = |parent: &Value| parent["name"] == "gw";
        let both = route(&json!([foreign(), elsewhere]));
        let parents = wanted(&both, serving).expect("ours is added");
        assert_eq!(parents.len(), 3);
        assert_eq!(parents[2]["parentRef"], json!({"name": "gw"}));
        let moved = wanted(&route(&json!(parents)), |_| false);
        assert_eq!(moved, Some(vec![foreign(), elsewhere]));
    }
}
