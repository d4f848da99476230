use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
};

use super::*;
use crate::{
    children::{config_secret, network_policy, tests::blueprint},
    fixtures::{Objects, context},
};

/// An API server with at most one object; it refuses the next writes of it with the given codes, and counts Events.
#[derive(Clone, Default)]
struct Store {
    object: Arc<Mutex<Option<Value>>>,
    refusals: Arc<Mutex<Vec<u16>>>,
    events: Arc<Mutex<usize>>,
    reads: Arc<Mutex<usize>>,
}

impl Store {
    fn client(&self) -> kube::Client {
        let store = self.clone();
        let answer = move |method: Method, uri: Uri, body: Bytes| {
            std::future::ready(store.answer(&method, uri.path(), &body))
        };
        kube::Client::new(Router::new().fallback(answer), "default")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Json<Value>) {
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        if path.ends_with("/events") {
            *self.events.lock().expect("free") += 1;
            return (StatusCode::CREATED, Json(sent));
        }
        let mut stored = self.object.lock().expect("free");
        if *method == Method::GET {
            *self.reads.lock().expect("free") += 1;
            return stored
                .clone()
                .map_or_else(|| failure(404), |live| (StatusCode::OK, Json(live)));
        }
        if let Some(code) = self.refusals.lock().expect("free").pop() {
            return failure(code);
        }
        let mut object = sent;
        object["metadata"]["managedFields"] = json!([{"manager": names::FIELD_MANAGER, "operation": "Apply",
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": everything(&object)}]);
        *stored = Some(object.clone());
        (StatusCode::OK, Json(object))
    }

    /// Another manager takes the selector.
    fn edit(&self) {
        let mut stored = self.object.lock().expect("free");
        let live = stored.as_mut().expect("an object");
        live["spec"]["podSelector"] = json!({"matchLabels": {"theirs": "yes"}});
        let entry = json!({"manager": "kubectl-edit", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:podSelector": {}}}});
        live["metadata"]["managedFields"]
            .as_array_mut()
            .expect("entries")
            .push(entry);
    }

    fn refuse(&self, codes: &[u16]) {
        *self.refusals.lock().expect("free") = codes.to_vec();
    }

    fn events(&self) -> usize {
        *self.events.lock().expect("free")
    }

    /// Reads since the last question.
    fn reads(&self) -> usize {
        std::mem::take(&mut *self.reads.lock().expect("free"))
    }

    fn object(&self) -> Option<Arc<Value>> {
        self.object.lock().expect("free").clone().map(Arc::new)
    }
}

/// The fields of a body as managedFields name them; lists are one field.
fn everything(body: &Value) -> Value {
    let Some(members) = body.as_object() else {
        return json!({});
    };
    let fields = members
        .iter()
        .map(|(name, value)| (format!("f:{name}"), everything(value)));
    Value::Object(fields.collect())
}

fn failure(code: u16) -> (StatusCode, Json<Value>) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": if code == 404 { "NotFound" } else { "Refused" }, "message": "not now"});
    (StatusCode::from_u16(code).expect("a code"), Json(status))
}

/// A policy that lets this namespace in.
fn wanted(namespace: &str) -> (Blueprint, Resource) {
    let mut blueprint = blueprint(&json!({}));
    blueprint.gateway.namespace = namespace.to_owned();
    let child = network_policy::build(&blueprint);
    (blueprint, Resource::fixed(child))
}

#[tokio::test]
async fn t27_a_change_of_ours_is_nobodys_edit_however_often_its_write_is_refused() {
    let store = Store::default();
    let extension =
        json!({"spec": {"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
    let objects = Objects::default().put(Kind::Extension, "team-a/ext", &extension);
    let context = context(store.client(), objects);
    let (blueprint, first) = wanted("first");
    settle(&context, &blueprint, &first).await.expect("created");

    // While ours changes, somebody else holds the field: that is no edit of what we want now.
    let (blueprint, second) = wanted("second");
    store.edit();
    store.refuse(&[409, 409]);
    settle(&context, &blueprint, &second)
        .await
        .expect("applied at last");
    assert_eq!(store.events(), 0, "a conflict");

    let (blueprint, third) = wanted("third");
    store.edit();
    store.refuse(&[500]);
    let refused = settle(&context, &blueprint, &third).await;
    assert!(refused.is_err(), "{refused:?}");
    settle(&context, &blueprint, &third).await.expect("applied");
    assert_eq!(store.events(), 0, "a write that failed");

    store.edit();
    settle(&context, &blueprint, &third).await.expect("set back");
    assert_eq!(store.events(), 1, "this is an edit");
}

#[tokio::test]
async fn a_secret_that_was_just_read_is_not_read_again_unless_somebody_was_faster() {
    let store = Store::default();
    let context = context(store.client(), Objects::default());
    let mut blueprint = blueprint(&json!({}));
    let document = |blueprint: &Blueprint| Resource::fixed(config_secret::build(blueprint));
    settle(&context, &blueprint, &document(&blueprint))
        .await
        .expect("created");
    assert_eq!(store.reads(), 1, "there might have been one");

    let read = store.object();
    let made = settle(&context, &blueprint, &document(&blueprint).read_as(read.clone())).await;
    assert!(made.expect("settled").is_none());
    assert_eq!(store.reads(), 0, "it is as it should be");

    blueprint.config_yaml = "servers: []\nhash: next\n".into();
    let made = settle(&context, &blueprint, &document(&blueprint).read_as(read.clone())).await;
    assert!(made.expect("applied").is_some());
    assert_eq!(store.reads(), 0, "written over what was read");

    blueprint.config_yaml = "servers: []\nhash: last\n".into();
    store.refuse(&[409]);
    let made = settle(&context, &blueprint, &document(&blueprint).read_as(read)).await;
    assert!(made.expect("applied at last").is_some());
    assert_eq!(store.reads(), 1, "somebody was faster");
}
