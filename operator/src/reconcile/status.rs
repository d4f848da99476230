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

mod undeclared;

pub(crate) use undeclared::Undeclared;
use undeclared::undeclared;

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
    let mut members = context.undeclared.without(kind, members);
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
                let said = source.to_string();
                let Some(name) = undeclared(&said).filter(|&name| members.remove(name).is_some()) else {
                    return Err(ReconcileError::status(format!("{} {key}", kind.name()), source));
                };
                context.undeclared.note(kind, name);
            }
        }
    }
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
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{
        Json, Router,
        body::Bytes,
        http::{Method, StatusCode},
    };

    use super::*;
    use crate::fixtures::{Objects, context};

    /// An API server whose CRD has no `status.era`; it counts the patches that it gets.
    fn older(requests: &Arc<AtomicUsize>) -> kube::Client {
        let requests = Arc::clone(requests);
        let answer = move |method: Method, body: Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if method == Method::POST {
                return std::future::ready((StatusCode::CREATED, Json(body)));
            }
            requests.fetch_add(1, Ordering::Relaxed);
            let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
                "message": "failed to create typed patch object: .status.era: field not declared in schema"});
            let answer = if body.pointer("/status/era").is_some() {
                (StatusCode::INTERNAL_SERVER_ERROR, Json(refusal))
            } else {
                (StatusCode::OK, Json(body))
            };
            std::future::ready(answer)
        };
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    fn wish() -> StatusWish {
        StatusWish {
            conditions: vec![Wanted {
                kind: ConditionType::Ready,
                status: false,
                reason: "NotReady",
                message: "waiting".to_owned(),
                observed_generation: 1,
            }],
            members: [("era", json!("modern")), ("discoveredTools", json!(3))].into(),
        }
    }

    #[tokio::test]
    async fn t26_a_status_under_the_crd_of_an_older_release_is_written_once() {
        let requests = Arc::new(AtomicUsize::new(0));
        let registration = json!({"spec": {"targetRef": {"name": "r"}}});
        let objects = Objects::default().put(Kind::Registration, "ns/weather", &registration);
        let context = context(older(&requests), objects);
        let key = ObjectKey::new("ns", "weather");
        let wrote = write(&context, Kind::Registration, &key, wish()).await;
        assert!(wrote.expect("written without the member"));
        assert_eq!(
            requests.load(Ordering::Relaxed),
            2,
            "with the member, and without"
        );

        // What the API server stored.
        let conditions = upsert(&[], &wish().conditions[0], Timestamp::UNIX_EPOCH);
        let mut stored = context.cache.get(Kind::Registration, &key).expect("cached");
        stored["status"] = json!({"conditions": conditions, "discoveredTools": 3});
        context.cache.apply(Kind::Registration, &key, stored);
        let wrote = write(&context, Kind::Registration, &key, wish()).await;
        assert!(!wrote.expect("nothing to do"));
        assert_eq!(requests.load(Ordering::Relaxed), 2, "settled");
    }
}
