//! OLM's OperatorCondition (olm.md 2.4): `Upgradeable` is False while this version evaluates, for the first time, what its
//! predecessor left (fields handed over, records of owned flags, images), and True from then on. So no upgrade lands in
//! the middle of one. Bounded in time, and written again at every start: a crash never leaves False behind.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::jiff::{Timestamp, Unit};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::names;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    apply::raw,
    context::Context,
    queue::{Outcome, Queue},
    reconcile::ReconcileError,
};

/// Longest time that an upgrade is held back: an object that cannot be evaluated must not block the version that mends it.
const LIMIT: Duration = Duration::from_secs(120);
/// Look again while objects wait for their first evaluation.
const WAITING: Duration = Duration::from_secs(1);
/// Longest time that one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
const TYPE: &str = "Upgradeable";

/// Whether this process has seen everything once.
#[derive(Default)]
pub(crate) struct Takeover {
    begun: OnceLock<Instant>,
    done: AtomicBool,
}

impl Takeover {
    /// True once the queue was empty, or the limit is over. It never becomes false again in this process.
    fn is_done(&self, queue: &Queue) -> bool {
        let begun = self.begun.get_or_init(Instant::now);
        if queue.is_settled() || begun.elapsed() > LIMIT {
            self.done.store(true, Ordering::Relaxed);
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// Writes the condition; without OLM, or when it took the object away, there is nothing to do.
pub(crate) async fn reconcile(context: &Context) -> Result<Outcome, ReconcileError> {
    let Some(name) = &context.settings.operator_condition else {
        return Ok(Outcome::Done);
    };
    let done = context.takeover.is_done(&context.queue);
    let request = write(context, name, done);
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(())) if done => Ok(Outcome::Done),
        Ok(Ok(())) => Ok(Outcome::After(WAITING)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Outcome::Done),
        Ok(Err(error)) => Err(ReconcileError::request("write OperatorCondition")(error)),
        Err(_) => Ok(Outcome::After(WAITING)),
    }
}

async fn write(context: &Context, name: &str, done: bool) -> Result<(), kube::Error> {
    let kind = GroupVersionKind::gvk("operators.coreos.com", "v2", "OperatorCondition");
    let resource = ApiResource::from_gvk(&kind);
    let namespace = &context.settings.namespace;
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let live = raw(api.get(name).await?);
    let Some(conditions) = conditions(&live, done, Timestamp::now()) else {
        return Ok(());
    };
    // With the version that was read: the list is one value, and somebody else may write to it.
    let version = live.pointer("/metadata/resourceVersion");
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"conditions": conditions}});
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, &Patch::Merge(patch)).await?;
    tracing::info!(name, upgradeable = done, "OperatorCondition written");
    Ok(())
}

/// The list with our condition in it; `None` when it is there already.
fn conditions(live: &Value, done: bool, now: Timestamp) -> Option<Vec<Value>> {
    let (status, reason, message) = if done {
        ("True", "TakenOver", "every object was evaluated by this version")
    } else {
        (
            "False",
            "TakingOver",
            "objects of the former version are being evaluated for the first time",
        )
    };
    let mut list: Vec<Value> = live
        .pointer("/spec/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let former = list.iter().find(|condition| condition["type"] == TYPE);
    if former.is_some_and(|former| former["status"] == status && former["reason"] == reason) {
        return None;
    }
    let second = now.round(Unit::Second).unwrap_or(now);
    list.retain(|condition| condition["type"] != TYPE);
    list.push(
        json!({"type": TYPE, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": second.to_string()}),
    );
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::WorkItem;

    #[test]
    fn o9_a_false_that_a_crash_left_behind_is_replaced_and_others_conditions_stay() {
        let other = json!({"type": "Other", "status": "True"});
        let mut live = json!({"spec": {"conditions": [other]}});
        let blocked = conditions(&live, false, Timestamp::UNIX_EPOCH).expect("a new one");
        assert_eq!(blocked[0], other);
        assert_eq!(
            (&blocked[1]["status"], &blocked[1]["lastTransitionTime"]),
            (&json!("False"), &json!("1970-01-01T00:00:00Z"))
        );
        live["spec"]["conditions"] = json!(blocked);
        assert_eq!(
            conditions(&live, false, Timestamp::now()),
            None,
            "nothing to write"
        );
        let released = conditions(&live, true, Timestamp::now()).expect("a change");
        assert_eq!((released.len(), &released[1]["status"]), (2, &json!("True")));
        assert!(conditions(&json!({}), true, Timestamp::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn o9_upgrades_wait_for_the_first_pass_and_no_longer_than_its_limit() {
        let (queue, takeover) = (Queue::default(), Takeover::default());
        queue.add([WorkItem::Claims, WorkItem::Upgradeable]);
        let mut items = [queue.take().await.0, queue.take().await.0];
        items.sort();
        assert!(!takeover.is_done(&queue), "another item runs");
        queue.finish(&items[0], Outcome::Failed);
        assert!(!takeover.is_done(&queue), "it is tried again");
        queue.take().await;
        queue.finish(&items[0], Outcome::After(Duration::from_secs(600)));
        assert!(takeover.is_done(&queue));
        queue.add([WorkItem::Claims]);
        assert!(takeover.is_done(&queue), "later work is not a takeover");
        let patient = Takeover::default();
        assert!(!patient.is_done(&queue));
        tokio::time::advance(LIMIT + WAITING).await;
        assert!(patient.is_done(&queue), "but not for ever");
    }
}
