//! Status of a registration (operator.md 2.2): proven by the brokers, not assumed. The verdict is pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_gateway_api::{
    conditions::{ConditionType, ConflictedReason, RegistrationReason, Wanted},
    extension::DataPath,
    object_key::{ObjectKey, is_live},
    registration::MCPServerRegistration,
    resolution::Resolution,
};
use serde_json::json;

use crate::{
    brokers::Namespace,
    context::Context,
    document::may_forward,
    kinds::Kind,
    queue::{Outcome, WorkItem},
    reconcile::{
        ReconcileError,
        status::{StatusWish, condition, conditions_of, write},
    },
    uninstall::{holds_finalizer, release},
};

mod tally;

use tally::{Counts, Protocol, tally};

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let snapshot = context.snapshot();
    let Some(object) = context.cache.get(Kind::Registration, key) else {
        return Ok(Outcome::Done);
    };
    if holds_finalizer(&object) {
        // Left by an older install; a registration needs none (operator.md 4.8).
        release(context, Kind::Registration, key, &object).await?;
    }
    let former = conditions_of(&object);
    let generation = object
        .pointer("/metadata/generation")
        .and_then(serde_json::Value::as_i64)
        .unwrap_or_default();
    let verdict = match snapshot.world.registration(key) {
        None => Some(unreadable(context, key)),
        Some(registration) if !is_live(&registration.metadata) => return Ok(Outcome::Done),
        Some(registration) => {
            let brokers = context.brokers();
            let through_envoy = |extension: &ObjectKey| {
                let found = snapshot.world.extension(extension);
                found.is_some_and(|found| found.spec.data_path == DataPath::ExtProc)
            };
            let forwards = |extension: &ObjectKey| {
                let found = snapshot.world.extension(extension);
                found.is_some_and(|found| may_forward(found, registration))
            };
            snapshot.resolution(key).and_then(|resolution| {
                judge(&Facts {
                    registration,
                    resolution,
                    brokers: &brokers,
                    through_envoy: &through_envoy,
                    forwards: &forwards,
                    former: Former::of(&former, generation),
                })
            })
        }
    };
    // Nothing is known yet about the extension's document: its own reconcile comes first and queues this again.
    let Some(verdict) = verdict.or_else(|| waiting(context, snapshot.resolution(key)?)) else {
        return Ok(Outcome::Done);
    };
    write(
        context,
        Kind::Registration,
        key,
        verdict.wish(generation, &former),
    )
    .await?;
    Ok(Outcome::Done)
}

/// The verdict on an object that cannot be decoded.
fn unreadable(context: &Context, key: &ObjectKey) -> Verdict {
    let error = context.cache.decode_error(Kind::Registration, key);
    let error = error.unwrap_or_default();
    Verdict::failed(
        RegistrationReason::NotReady,
        format!("invalid: {error}; correct the object"),
    )
}

/// The verdict while an extension that would serve the registration is itself not ready.
fn waiting(context: &Context, resolution: &Resolution) -> Option<Verdict> {
    resolution.served_by.iter().find_map(|extension| {
        let object = context.cache.get(Kind::Extension, extension)?;
        let conditions = conditions_of(&object);
        let ready = condition(&conditions, ConditionType::Ready).filter(|ready| ready.status == "False")?;
        let message = format!("MCPGatewayExtension {extension} is not ready: {}", ready.message);
        Some(Verdict::failed(RegistrationReason::NotReady, message))
    })
}

/// Envoy speaks to a server as its cluster says; the broker's own https does not reach it.
const ORIGINATION: &str = "; warning: calls through Envoy need a DestinationRule with TLS origination";

/// What a verdict is made from.
struct Facts<'a> {
    registration: &'a MCPServerRegistration,
    resolution: &'a Resolution,
    brokers: &'a BTreeMap<String, Namespace>,
    /// Extensions whose Envoy carries the calls.
    through_envoy: &'a dyn Fn(&ObjectKey) -> bool,
    /// Extensions that pass on what `forwardHeaders` names.
    forwards: &'a dyn Fn(&ObjectKey) -> bool,
    former: Former,
}

/// What `Ready` says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Former {
    /// True for the current generation.
    Ready,
    /// True for an earlier one.
    ReadyBefore,
    NotReady,
}

impl Former {
    fn of(conditions: &[Condition], generation: i64) -> Self {
        match condition(conditions, ConditionType::Ready).filter(|ready| ready.status == "True") {
            Some(ready) if ready.observed_generation == Some(generation) => Self::Ready,
            Some(_) => Self::ReadyBefore,
            None => Self::NotReady,
        }
    }
}

/// What the status shall say; `counts`, `protocol` and `conflict` keep their former value when they are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    ready: bool,
    reason: RegistrationReason,
    message: String,
    counts: Option<Counts>,
    protocol: Option<Protocol>,
    conflict: Option<String>,
}

impl Verdict {
    fn failed(reason: RegistrationReason, message: String) -> Self {
        Self {
            ready: false,
            reason,
            message,
            counts: None,
            protocol: None,
            conflict: None,
        }
    }

    fn wish(self, generation: i64, former: &[Condition]) -> StatusWish {
        let mut conditions = vec![Wanted {
            kind: ConditionType::Ready,
            status: self.ready,
            reason: self.reason.as_str(),
            message: self.message,
            observed_generation: generation,
        }];
        let known =
            self.ready || self.conflict.is_some() || condition(former, ConditionType::Conflicted).is_none();
        if known {
            let (reason, message) = match &self.conflict {
                Some(conflict) => (ConflictedReason::NameConflict, conflict.clone()),
                None => (
                    ConflictedReason::NoConflict,
                    "no published name is taken".to_owned(),
                ),
            };
            conditions.push(Wanted {
                kind: ConditionType::Conflicted,
                status: self.conflict.is_some(),
                reason: reason.as_str(),
                message,
                observed_generation: generation,
            });
        }
        let mut members = BTreeMap::new();
        members.extend(self.counts.into_iter().flat_map(Counts::members));
        if let Some(protocol) = self.protocol {
            members.insert("era", json!(protocol.era));
            members.insert("protocolVersion", json!(protocol.version));
        }
        StatusWish { conditions, members }
    }
}

/// The verdict; nothing when the brokers of some extension are not known yet.
fn judge(facts: &Facts<'_>) -> Option<Verdict> {
    let Facts {
        registration,
        resolution,
        ..
    } = facts;
    if !registration.spec.state.is_enabled() {
        let mut verdict = Verdict::failed(RegistrationReason::Disabled, "server is disabled".to_owned());
        verdict.counts = Some(Counts::default());
        return Some(verdict);
    }
    if let Some(problem) = &resolution.problem {
        let mut verdict = Verdict::failed(problem.reason, problem.message.clone());
        if resolution.served_by.is_empty() {
            verdict.counts = Some(Counts::default());
        }
        return Some(verdict);
    }
    let mut good: Option<Verdict> = None;
    for extension in &resolution.served_by {
        let verdict = at_extension(facts, extension)?;
        if !verdict.ready {
            return Some(verdict);
        }
        good = Some(match good {
            Some(former) => Verdict {
                message: format!("{}; {}", former.message, verdict.message),
                ..former
            },
            None => verdict,
        });
    }
    if let Some(good) = &mut good
        && resolution.served_by.iter().any(facts.through_envoy)
        && resolution
            .backend
            .as_ref()
            .is_some_and(|backend| backend.url.starts_with("https://"))
    {
        good.message.push_str(ORIGINATION);
    }
    good.or_else(|| {
        let message = "no matching mcpgatewayextensions for attached listener".to_owned();
        Some(Verdict::failed(RegistrationReason::NotReady, message))
    })
}

/// What one extension's brokers say.
fn at_extension(facts: &Facts<'_>, extension: &ObjectKey) -> Option<Verdict> {
    let key = ObjectKey::of(&facts.registration.metadata);
    let not_ready = |message: String| Some(Verdict::failed(RegistrationReason::NotReady, message));
    let observed = facts.brokers.get(&extension.namespace)?;
    let written = observed
        .written
        .as_ref()
        .filter(|written| written.extension == *extension)?;
    if let Some(problem) = written
        .contents
        .problems
        .get(&WorkItem::Registration(key.clone()))
    {
        return not_ready(problem.clone());
    }
    // The document with this generation is still to come; it queues this again.
    let holds = written.contents.served.get(&key).copied() == facts.registration.metadata.generation;
    if !observed.asked || !holds {
        return None;
    }
    if observed.replicas.is_empty() {
        return not_ready(format!("0 replicas ready of {extension}"));
    }
    let tally = tally(facts, observed, &key.to_string())?;
    let total = observed.replicas.len();
    if let Some(message) = tally.failure {
        return Some(Verdict {
            counts: Some(tally.counts),
            protocol: tally.protocol,
            ..not_ready(message)?
        });
    }
    if let Some(pod) = tally.missing_at {
        let missing = total - tally.serving;
        return not_ready(format!(
            "not served yet by {missing}/{total} replicas of {extension} (pod {pod})"
        ));
    }
    let mut message = format!(
        "{} tools, served by {}/{total} replicas of {extension}",
        tally.counts.tools, tally.serving
    );
    if let Some(conflict) = &tally.conflict {
        message = format!("{message}; {conflict}");
    }
    if !facts.registration.spec.forward_headers.is_empty() && !(facts.forwards)(extension) {
        let namespace = &key.namespace;
        message = format!(
            "{message}; warning: forwardHeaders has no effect: {extension} does not list namespace {namespace} in \
             spec.forwardHeadersFrom"
        );
    }
    Some(Verdict {
        ready: true,
        reason: RegistrationReason::Ready,
        message,
        counts: Some(tally.counts),
        protocol: tally.protocol,
        conflict: tally.conflict,
    })
}

#[cfg(test)]
mod tests;
