//! Fifth call: `Ready` and `Progressing` of an extension (operator.md 2.1). The verdict is a pure function of facts
//! that only the calls before could produce.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use mcp_gateway_api::{
    conditions::{ConditionType, ExtensionReason, ProgressingReason, Wanted},
    gateway::ForeignCondition,
    names,
    object_key::ObjectKey,
};

use super::{
    carry_out::Applied,
    fetch::beside,
    readiness::Rollout,
    teardown::TornDown,
    validate::{Paused, Refused, Validated},
};
use crate::{
    apply::ApplyError,
    brokers::Namespace,
    context::Context,
    kinds::Kind,
    queue::WorkItem,
    reconcile::{
        ReconcileError,
        status::{StatusWish, condition, conditions_of, write},
    },
};

mod pods;
mod warnings;

use pods::first_pod_problem;

/// Row and message of what is wrong.
type Failure = (ExtensionReason, String);

/// How long brokers that run may take to serve a new document before that counts as a rollout: it takes them a fraction
/// of it, and each turn of the condition is two writes and two Events.
const TAKE_UP: Duration = Duration::from_secs(5);

/// Writes the verdict on an accepted extension; says when to look again, should nothing change before.
pub(crate) async fn write_accepted(
    context: &Context,
    validated: &Validated,
    applied: &Applied,
) -> Result<Option<Duration>, ReconcileError> {
    let key = &validated.blueprint.key;
    let generation = validated
        .blueprint
        .extension
        .metadata
        .generation
        .unwrap_or_default();
    let observed = context.brokers().get(&key.namespace).cloned().unwrap_or_default();
    let failure = failure(context, validated, applied);
    if failure.is_none() && applied.rollout.ready > 0 && !observed.asked {
        // Nobody asked the brokers yet, as after a start: their answers queue this extension again.
        return Ok(None);
    }
    let pod_problem = if applied.rollout.ready == 0 {
        first_pod_problem(context, key).await
    } else {
        None
    };
    let facts = Facts {
        generation,
        rollout: &applied.rollout,
        hash: &validated.config.hash,
        current: observed.current(),
        asked: observed.replicas.len(),
        failure,
        pod_problem,
        warnings: warnings::of(validated, applied),
        former_document: validated.oversize.is_some(),
    };
    let former = context
        .cache
        .get(Kind::Extension, key)
        .map(|object| conditions_of(&object))
        .unwrap_or_default();
    let verdict = ready(&facts, &former);
    let repetition = warnings::new_repetition(&verdict, &former).map(str::to_owned);
    let wait = takes_up(&facts, &observed, &former);
    let progressing = wait.is_none().then(|| progressing(&facts));
    write_conditions(context, key, [verdict].into_iter().chain(progressing).collect()).await?;
    if let (Some(note), Some(object)) = (repetition, context.cache.get(Kind::Extension, key)) {
        let (subject, events) = ((Kind::Extension, &object), &context.events);
        events
            .publish(subject, EventType::Warning, "OwnedFlagInArgs", &note)
            .await;
    }
    Ok(wait)
}

/// How long `Progressing` still says what it said, because brokers that all run are about to take up a new document.
fn takes_up(facts: &Facts<'_>, observed: &Namespace, former: &[Condition]) -> Option<Duration> {
    let was_complete = condition(former, ConditionType::Progressing)
        .is_some_and(|former| former.reason == ProgressingReason::RolloutComplete.as_str());
    if facts.complete() || !facts.rollout.complete || !was_complete {
        return None;
    }
    let since = observed.written.as_ref()?.since;
    TAKE_UP
        .checked_sub(since.elapsed())
        .filter(|left| !left.is_zero())
}

/// Writes row 10 or 11.
pub(crate) async fn write_paused(context: &Context, paused: &Paused) -> Result<(), ReconcileError> {
    let failure = (paused.reason, paused.message.clone());
    write_failure(context, &paused.extension, failure).await
}

/// Writes one of rows 1–9, after what was programmed is gone.
pub(crate) async fn write_refused(
    context: &Context,
    refused: &Refused,
    _torn_down: &TornDown,
) -> Result<(), ReconcileError> {
    let Some(first) = refused.findings.first() else {
        return Ok(());
    };
    let same_rule = refused
        .findings
        .iter()
        .filter(|finding| finding.rule == first.rule);
    let message = same_rule
        .map(|finding| finding.message.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    write_failure(context, &refused.extension, (first.reason(), message)).await
}

/// Writes row 1 for an object that cannot be decoded.
pub(crate) async fn write_undecodable(
    context: &Context,
    key: &ObjectKey,
    error: &str,
) -> Result<(), ReconcileError> {
    let Some(object) = context.cache.get(Kind::Extension, key) else {
        return Ok(());
    };
    let generation = object
        .pointer("/metadata/generation")
        .and_then(serde_json::Value::as_i64);
    let message = format!("invalid: {error}; correct the object");
    let failure = (ExtensionReason::InvalidMCPGatewayExtension, message);
    let conditions = vec![not_ready(failure, generation.unwrap_or_default())];
    write_conditions(context, key, conditions).await
}

async fn write_failure(
    context: &Context,
    extension: &mcp_gateway_api::extension::MCPGatewayExtension,
    failure: Failure,
) -> Result<(), ReconcileError> {
    let generation = extension.metadata.generation.unwrap_or_default();
    let conditions = vec![not_ready(failure, generation)];
    let key = ObjectKey::of(&extension.metadata);
    write_conditions(context, &key, conditions).await
}

/// Writes the conditions; registrations and virtual servers that wait for the extension show them too.
async fn write_conditions(
    context: &Context,
    key: &ObjectKey,
    conditions: Vec<Wanted>,
) -> Result<(), ReconcileError> {
    let wish = StatusWish {
        conditions,
        members: BTreeMap::new(),
    };
    if write(context, Kind::Extension, key, wish).await? {
        let snapshot = context.snapshot();
        let served = snapshot
            .plan
            .served_by(key)
            .map(|(registration, _)| registration.clone());
        context.queue.add(served.map(WorkItem::Registration));
        let virtual_servers = snapshot.world.virtual_servers();
        let virtual_servers = virtual_servers.map(|server| ObjectKey::of(&server.metadata));
        context.queue.add(virtual_servers.map(WorkItem::VirtualServer));
    }
    Ok(())
}

/// What the verdict on an accepted extension is made from.
struct Facts<'a> {
    generation: i64,
    rollout: &'a Rollout,
    hash: &'a str,
    /// Ready replicas that report the current document.
    current: usize,
    /// Ready replicas.
    asked: usize,
    failure: Option<Failure>,
    pod_problem: Option<String>,
    warnings: Vec<String>,
    /// The document is one that stays because the one that this generation asks for would be too large.
    former_document: bool,
}

impl Facts<'_> {
    /// Every replica runs the current template and serves the current document.
    fn complete(&self) -> bool {
        self.rollout.complete && self.asked > 0 && self.current == self.asked
    }
}

/// `Ready`. While a running instance rolls it stays True with the generation of the last complete rollout (T46, T47).
fn ready(facts: &Facts<'_>, former: &[Condition]) -> Wanted {
    if let Some((reason, message)) = &facts.failure {
        return not_ready((*reason, message.clone()), facts.generation);
    }
    let was_ready = condition(former, ConditionType::Ready).filter(|former| former.status == "True");
    let Rollout { wanted, ready, .. } = facts.rollout;
    let generation = match was_ready {
        _ if *ready == 0 => {
            let problem = facts
                .pod_problem
                .as_deref()
                .unwrap_or("the first pod is starting");
            let message = format!("{ready}/{wanted} replicas ready: {problem}");
            return not_ready((ExtensionReason::DeploymentNotReady, message), facts.generation);
        }
        Some(former) if facts.former_document => former.observed_generation.unwrap_or(facts.generation),
        _ if facts.complete() => facts.generation,
        Some(former) => former.observed_generation.unwrap_or(facts.generation),
        None => {
            let message = format!(
                "{ready}/{wanted} replicas ready: {}/{} serve config {}",
                facts.current, facts.asked, facts.hash
            );
            return not_ready((ExtensionReason::DeploymentNotReady, message), facts.generation);
        }
    };
    let mut message = "successfully verified and configured".to_owned();
    for warning in &facts.warnings {
        message.push_str("; warning: ");
        message.push_str(warning);
    }
    Wanted {
        kind: ConditionType::Ready,
        status: true,
        reason: ExtensionReason::ValidMCPGatewayExtension.as_str(),
        message,
        observed_generation: generation,
    }
}

fn progressing(facts: &Facts<'_>) -> Wanted {
    let Rollout {
        wanted,
        updated,
        failed,
        ..
    } = facts.rollout;
    let (status, reason, message) = if facts.complete() {
        let message = format!(
            "{}/{} replicas serve config {}",
            facts.current, facts.asked, facts.hash
        );
        (false, ProgressingReason::RolloutComplete, message)
    } else if *failed {
        let message =
            format!("{updated}/{wanted} replicas updated; the Deployment's progress deadline has passed");
        (false, ProgressingReason::RolloutFailed, message)
    } else {
        let message = if facts.rollout.complete {
            format!(
                "{}/{} replicas serve config {}",
                facts.current, facts.asked, facts.hash
            )
        } else {
            format!("{updated}/{wanted} replicas updated")
        };
        (true, ProgressingReason::RolloutInProgress, message)
    };
    Wanted {
        kind: ConditionType::Progressing,
        status,
        reason: reason.as_str(),
        message,
        observed_generation: facts.generation,
    }
}

fn not_ready((reason, message): Failure, observed_generation: i64) -> Wanted {
    Wanted {
        kind: ConditionType::Ready,
        status: false,
        reason: reason.as_str(),
        message,
        observed_generation,
    }
}

/// The first of rows 12 to 16 that holds, but for a missing replica.
fn failure(context: &Context, validated: &Validated, applied: &Applied) -> Option<Failure> {
    if let Some(blocked) = &applied.blocked {
        let reason = match blocked {
            ApplyError::Predecessor { .. } => ExtensionReason::DeploymentNotReady,
            _ => ExtensionReason::InvalidMCPGatewayExtension,
        };
        return Some((reason, blocked.to_string()));
    }
    // Row 13 comes before the rows of others; `ready` gives its message.
    if applied.rollout.ready == 0 {
        return None;
    }
    if !applied.filter_served {
        let message = "EnvoyFilter (networking.istio.io) is not installed; install Istio's CRDs";
        return Some((ExtensionReason::EnvoyFilterUnavailable, message.to_owned()));
    }
    gateway_failure(validated).or_else(|| route_failure(context, validated))
}

/// Row 15: only an explicit False of another controller blocks, or that it has not looked yet.
fn gateway_failure(validated: &Validated) -> Option<Failure> {
    let (gateway, listener) = (validated.accepted.gateway(), validated.accepted.listener());
    let message = match gateway.listener_status.get(&listener.name) {
        None => "has no status yet; is the Gateway's controller running?".to_owned(),
        Some(conditions) => explicit_false(conditions, &["Accepted", "Programmed"])?,
    };
    Some((
        ExtensionReason::GatewayNotReady,
        format!("listener {}: {message}", listener.name),
    ))
}

/// Row 16.
fn route_failure(context: &Context, validated: &Validated) -> Option<Failure> {
    if !validated.blueprint.manages_routes() {
        return None;
    }
    let world = context.cache.world();
    let route = world.route(&beside(&validated.blueprint.key, names::ROUTE))?;
    let mut parents = route
        .parents
        .iter()
        .filter(|parent| parent.controller_name != names::CONTROLLER_NAME);
    let message =
        parents.find_map(|parent| explicit_false(&parent.conditions, &["Accepted", "ResolvedRefs"]))?;
    Some((
        ExtensionReason::RouteNotAccepted,
        format!("HTTPRoute {}: {message}", names::ROUTE),
    ))
}

fn explicit_false(conditions: &[ForeignCondition], kinds: &[&str]) -> Option<String> {
    let found = conditions
        .iter()
        .find(|condition| kinds.contains(&condition.kind.as_str()) && condition.status == "False")?;
    Some(if found.message.is_empty() {
        found.reason.clone()
    } else {
        found.message.clone()
    })
}

#[cfg(test)]
mod tests;
