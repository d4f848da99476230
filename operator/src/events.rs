//! Events on users' objects (operator.md 11.4): one for each transition, at most one per object, reason and minute,
//! never with content of a Secret.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use mcp_gateway_api::{
    conditions::{ConditionType, Wanted, cut},
    names,
};
use serde_json::Value;
use tokio::time::Instant;

/// No second Event of one reason on one object within this time.
const QUIET: Duration = Duration::from_secs(60);
/// Longest note that the API takes, in characters.
const MAX_NOTE: usize = 1000;
/// Most remembered Events; older ones are forgotten first.
const REMEMBERED: usize = 4096;

/// The recorder.
pub(crate) struct Events {
    recorder: Recorder,
    recent: Mutex<BTreeMap<(String, String), Instant>>,
}

impl Events {
    pub(crate) fn new(client: Client, pod: Option<String>) -> Self {
        let reporter = Reporter {
            controller: names::FIELD_MANAGER.to_owned(),
            instance: pod,
        };
        Self {
            recorder: Recorder::new(client, reporter),
            recent: Mutex::default(),
        }
    }

    /// Tells that a condition of `object` turned, if it did.
    pub(crate) async fn transition(&self, object: &Value, wanted: &Wanted, before: Option<&Condition>) {
        let status = if wanted.status { "True" } else { "False" };
        if before.is_some_and(|before| before.status == status && before.reason == wanted.reason) {
            return;
        }
        let (kind, reason) = match (wanted.kind, wanted.status) {
            (ConditionType::Ready | ConditionType::Accepted, true) => {
                let recovered = before.is_some_and(|before| before.status == "False");
                (EventType::Normal, if recovered { "Recovered" } else { "Ready" })
            }
            (ConditionType::Ready | ConditionType::Accepted, false) => (EventType::Warning, warning(wanted)),
            (ConditionType::Conflicted, true) => (EventType::Warning, "Conflict"),
            (ConditionType::Progressing, true) => (EventType::Normal, "RolloutStarted"),
            (ConditionType::Progressing, false) if before.is_some() => match wanted.reason {
                "RolloutFailed" => (EventType::Warning, "RolloutFailed"),
                _ => (EventType::Normal, "RolloutComplete"),
            },
            _ => return,
        };
        self.publish(object, kind, reason, &wanted.message).await;
    }

    /// Publishes one Event about `object`; failures are logged, never fatal.
    pub(crate) async fn publish(&self, object: &Value, kind: EventType, reason: &str, note: &str) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let uid = text("/metadata/uid");
        if !self.is_new(uid.as_deref().unwrap_or_default(), reason) {
            return;
        }
        let reference = ObjectReference {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            uid,
            ..ObjectReference::default()
        };
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(cut(note, MAX_NOTE)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, reason, "Event cannot be written");
        }
    }

    fn is_new(&self, uid: &str, reason: &str) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        recent.retain(|_, time| now.duration_since(*time) < QUIET);
        if recent.len() >= REMEMBERED {
            recent.clear();
        }
        let key = (uid.to_owned(), reason.to_owned());
        if recent.contains_key(&key) {
            return false;
        }
        recent.insert(key, now);
        true
    }
}

/// Reason of the Event for a condition that is not True.
fn warning(wanted: &Wanted) -> &'static str {
    match wanted.reason {
        "ReferenceGrantRequired" => "ReferenceGrantRequired",
        "SecretNotFound" => "SecretNotFound",
        "SecretInvalid" => "SecretInvalid",
        "PrefixConflict" => "Conflict",
        _ if wanted.message.contains("is not controlled by") => "ForeignObject",
        _ if wanted.message.starts_with("conflict") => "Conflict",
        _ if wanted.message.starts_with("config too large") => "ConfigTooLarge",
        _ if wanted.message.starts_with("invalid") => "Invalid",
        _ => "NotReady",
    }
}
