//! PodDisruptionBudget `mcp-gateway`, while there is more than one broker: a drain of nodes takes one at a time. Its numbers
//! are the user's once they differ from ours; a pod that has a user's own budget gets none from us, because the API server
//! evicts no pod that has two.

use mcp_gateway_api::{
    names,
    selector::{LabelSelector, Labels},
};
use serde_json::{Value, json};

use super::{Child, common_labels};
use crate::{blueprint::Blueprint, kinds::Kind};

/// Brokers that may be away at once.
const AWAY: i32 = 1;

/// The budget for `blueprint`; `live` is the object as it is now, whose numbers are kept.
pub(crate) fn build(blueprint: &Blueprint, live: Option<&Value>) -> Child {
    let selector = json!({"matchLabels": common_labels()});
    let spec = if live.is_some_and(has_users_numbers) {
        json!({"selector": selector})
    } else {
        json!({"maxUnavailable": AWAY, "selector": selector})
    };
    Child::owned(
        blueprint,
        Kind::PodDisruptionBudget,
        names::BROKER,
        json!({"spec": spec}),
    )
}

fn has_users_numbers(live: &Value) -> bool {
    let number = |name: &str| live.pointer("/spec").and_then(|spec| spec.get(name));
    number("minAvailable").is_some() || number("maxUnavailable").is_some_and(|away| *away != AWAY)
}

/// True when `budget` counts the pods of this Deployment.
pub(crate) fn counts_pods_of(budget: &Value, deployment: &Value) -> bool {
    let selector = budget.pointer("/spec/selector").cloned().unwrap_or_default();
    let labels = deployment.pointer("/spec/template/metadata/labels").cloned();
    let labels = serde_json::from_value::<Labels>(labels.unwrap_or_default());
    let selector = serde_json::from_value::<LabelSelector>(selector);
    matches!((selector, labels), (Ok(selector), Ok(labels)) if selector.matches(&labels))
}
