//! Our condition in a Gateway's listeners (operator.md 2.5): one server-side apply holds all of ours on that Gateway,
//! so that one which is no longer wanted goes by leaving the body. Entries that do not exist are not made.

use kube::api::Patch;
use mcp_gateway_api::{
    conditions::{ConditionType, ForeignReason},
    names,
    object_key::ObjectKey,
};
use serde_json::{Value, json};

use crate::{
    apply::apply_params, context::Context, kinds::Kind, queue::Outcome, reconcile::ReconcileError,
    snapshot::Snapshot, standing::is_filter_of,
};

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let Some(gateway) = context.cache.get(Kind::Gateway, key) else {
        return Ok(Outcome::Done);
    };
    let snapshot = context.snapshot();
    let wanted = wanted(context, &snapshot, key, &gateway);
    if present(&gateway) == wanted.iter().map(|wish| wish.comparable()).collect::<Vec<_>>() {
        return Ok(Outcome::Done);
    }
    let listeners: Vec<Value> = wanted.iter().map(|wish| wish.entry(&gateway)).collect();
    let body = json!({
        "apiVersion": Kind::Gateway.api_version(),
        "kind": Kind::Gateway.name(),
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": {"listeners": listeners},
    });
    let api = context.api(Kind::Gateway, &key.namespace);
    match api
        .patch_status(&key.name, &apply_params(), &Patch::Apply(&body))
        .await
    {
        Ok(_) => Ok(Outcome::Done),
        // The Gateway or the entry went away meanwhile, or its owner forbids it: never an obstacle.
        Err(kube::Error::Api(status)) if [403, 404, 422].contains(&status.code) => {
            tracing::warn!(gateway = %key, message = %status.message, "Listener condition cannot be written");
            Ok(Outcome::Done)
        }
        Err(source) => Err(ReconcileError::status(format!("Gateway {key}"), source)),
    }
}

/// One condition of ours.
struct Wish {
    listener: String,
    message: String,
    generation: i64,
}

impl Wish {
    fn comparable(&self) -> (String, String, i64) {
        (self.listener.clone(), self.message.clone(), self.generation)
    }

    fn entry(&self, gateway: &Value) -> Value {
        let former = ours(gateway).find(|(listener, _)| *listener == self.listener);
        let since = former
            .and_then(|(_, condition)| condition.get("lastTransitionTime"))
            .cloned();
        let since = since
            .unwrap_or_else(|| json!(k8s_openapi::jiff::Timestamp::now().strftime("%FT%TZ").to_string()));
        json!({"name": self.listener, "conditions": [{
            "type": ConditionType::MCPGatewayExtension.as_str(),
            "status": "True",
            "reason": ForeignReason::Programmed.as_str(),
            "message": self.message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since,
        }]})
    }
}

/// What shall be there: each accepted extension of the Gateway that is programmed, on a listener that has an entry.
fn wanted(context: &Context, snapshot: &Snapshot, key: &ObjectKey, gateway: &Value) -> Vec<Wish> {
    let generation = gateway
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let entries = listener_names(gateway);
    let accepted = snapshot
        .plan
        .accepted()
        .filter(|accepted| accepted.gateway().key == *key);
    let mut wishes: Vec<Wish> = accepted
        .filter_map(|accepted| {
            let extension = accepted.extension();
            let name = names::envoy_filter_name(&extension.namespace);
            let filter = ObjectKey::new(key.namespace.as_str(), name);
            let programmed = context
                .cache
                .get(Kind::EnvoyFilter, &filter)
                .is_some_and(|found| is_filter_of(&found, extension));
            let listener = accepted.listener().name.clone();
            (programmed && entries.contains(&listener.as_str())).then(|| Wish {
                message: format!("listener in use by MCP Gateway: {extension} EnvoyFilter: {filter}"),
                listener,
                generation,
            })
        })
        .collect();
    wishes.sort_by_key(Wish::comparable);
    wishes
}

fn listener_names(gateway: &Value) -> Vec<&str> {
    let entries = gateway.pointer("/status/listeners").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("name").and_then(Value::as_str))
        .collect()
}

/// Our conditions as they are, with the listener that has each.
fn ours(gateway: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = gateway.pointer("/status/listeners").and_then(Value::as_array);
    entries.into_iter().flatten().flat_map(|entry| {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let conditions = entry.get("conditions").and_then(Value::as_array);
        let ours = conditions.into_iter().flatten().filter(|condition| {
            condition.get("type").and_then(Value::as_str) == Some(ConditionType::MCPGatewayExtension.as_str())
        });
        ours.map(move |condition| (name, condition))
    })
}

fn present(gateway: &Value) -> Vec<(String, String, i64)> {
    let mut present: Vec<_> = ours(gateway)
        .map(|(listener, condition)| {
            let message = condition
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let generation = condition
                .get("observedGeneration")
                .and_then(Value::as_i64)
                .unwrap_or_default();
            (listener.to_owned(), message.to_owned(), generation)
        })
        .collect();
    present.sort();
    present
}
