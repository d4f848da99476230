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

use crate::kinds::Kind;

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
    pub(crate) async fn transition(
        &self,
        (kind, object): (Kind, &Value),
        wanted: &Wanted,
        before: Option<&Condition>,
    ) {
        if let Some((severity, reason)) = event_for(wanted, before) {
            self.publish((kind, object), severity, reason, &wanted.message)
                .await;
        }
    }

    /// Publishes one Event about `object`; failures are logged, never fatal.
    pub(crate) async fn publish(
        &self,
        (kind, object): (Kind, &Value),
        severity: EventType,
        reason: &str,
        note: &str,
    ) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let uid = text("/metadata/uid");
        if !self.is_new(uid.as_deref().unwrap_or_default(), reason) {
            return;
        }
        let reference = ObjectReference {
            api_version: Some(kind.api_version()),
            kind: Some(kind.name().to_owned()),
            name: text("/metadata/name"),
            namespace: text("/metadata/namespace"),
            uid,
            ..ObjectReference::default()
        };
        let event = Event {
            type_: severity,
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

/// The Event for a condition that turned from `before` to `wanted`; none for an object that is only starting.
fn event_for(wanted: &Wanted, before: Option<&Condition>) -> Option<(EventType, &'static str)> {
    let status = if wanted.status { "True" } else { "False" };
    if before.is_some_and(|before| before.status == status && before.reason == wanted.reason) {
        return None;
    }
    let starting = |reason: &str| matches!(reason, "DeploymentNotReady" | "NotReady");
    match (wanted.kind, wanted.status) {
        (ConditionType::Ready | ConditionType::Accepted, true) => {
            let recovered =
                before.is_some_and(|before| before.status == "False" && !starting(&before.reason));
            Some((EventType::Normal, if recovered { "Recovered" } else { "Ready" }))
        }
        (ConditionType::Ready | ConditionType::Accepted, false) => {
            let lost = before.is_some_and(|before| before.status == "True");
            warning(wanted, lost).map(|reason| (EventType::Warning, reason))
        }
        (ConditionType::Conflicted, true) => Some((EventType::Warning, "Conflict")),
        (ConditionType::Progressing, true) => Some((EventType::Normal, "RolloutStarted")),
        (ConditionType::Progressing, false) => before.map(|_| match wanted.reason {
            "RolloutFailed" => (EventType::Warning, "RolloutFailed"),
            _ => (EventType::Normal, "RolloutComplete"),
        }),
        _ => None,
    }
}

/// Reason of the Event for a condition that is not True.
fn warning(wanted: &Wanted, lost: bool) -> Option<&'static str> {
    match wanted.reason {
        "ReferenceGrantRequired" => Some("ReferenceGrantRequired"),
        "SecretNotFound" => Some("SecretNotFound"),
        "SecretInvalid" => Some("SecretInvalid"),
        "PrefixConflict" => Some("Conflict"),
        _ if wanted.message.contains("is not controlled by") => Some("ForeignObject"),
        _ if wanted.message.contains(" was refused: ") => Some("ApplyRejected"),
        _ if wanted.message.starts_with("conflict") => Some("Conflict"),
        _ if wanted.message.starts_with("config too large") => Some("ConfigTooLarge"),
        _ if wanted.message.starts_with("invalid") => Some("Invalid"),
        _ => lost.then_some("NotReady"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use mcp_gateway_api::conditions::upsert;

    use super::*;

    fn ready(status: bool, reason: &'static str, message: &str) -> Wanted {
        Wanted {
            kind: ConditionType::Ready,
            status,
            reason,
            message: message.to_owned(),
            observed_generation: 1,
        }
    }

    fn event(before: Option<&Wanted>, now: &Wanted) -> Option<&'static str> {
        let before = before.map(|before| upsert(&[], before, Timestamp::UNIX_EPOCH));
        event_for(now, before.as_ref().and_then(|list| list.first())).map(|(_, reason)| reason)
    }

    #[test]
    fn t53_each_transition_gives_one_event_and_none_repeats() {
        let starting = ready(false, "DeploymentNotReady", "0/1 replicas ready");
        let up = ready(true, "ValidMCPGatewayExtension", "fine");
        let lost = ready(false, "InvalidMCPGatewayExtension", "conflict: gateway a/b");
        assert_eq!(event(None, &starting), None);
        assert_eq!(event(Some(&starting), &up), Some("Ready"));
        assert_eq!(event(Some(&up), &up), None);
        assert_eq!(event(Some(&up), &lost), Some("Conflict"));
        assert_eq!(event(Some(&lost), &up), Some("Recovered"));
        assert_eq!(event(Some(&up), &starting), Some("NotReady"));
        let refused = "Service team/mcp-gateway was refused: spec.ports: Required value";
        let refused = ready(false, "InvalidMCPGatewayExtension", refused);
        assert_eq!(event(Some(&up), &refused), Some("ApplyRejected"));
    }
}
