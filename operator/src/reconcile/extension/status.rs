//! Fifth call: `Ready` and `Progressing` of an extension (operator.md 2.1). The verdict is a pure function of facts
//! that only the calls before could produce.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_gateway_api::{
    conditions::{ConditionType, ExtensionReason, ProgressingReason, Wanted},
    extension::DataPath,
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
    children::{command, deployment::live_tokens, env::repeated_variables},
    context::Context,
    kinds::Kind,
    preserve::repeated_in_args,
    queue::WorkItem,
    reconcile::{
        ReconcileError,
        status::{StatusWish, condition, conditions_of, write},
    },
};

/// Row and message of what is wrong.
type Failure = (ExtensionReason, String);

/// Writes the verdict on an accepted extension.
pub(crate) async fn write_accepted(
    context: &Context,
    validated: &Validated,
    applied: &Applied,
) -> Result<(), ReconcileError> {
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
        return Ok(());
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
        warnings: warnings(validated, applied),
        former_document: validated.oversize.is_some(),
    };
    let former = context
        .cache
        .get(Kind::Extension, key)
        .map(|object| conditions_of(&object))
        .unwrap_or_default();
    let conditions = vec![ready(&facts, &former), progressing(&facts)];
    write_conditions(context, key, conditions).await
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
        (
            true,
            ProgressingReason::RolloutInProgress,
            format!("{updated}/{wanted} replicas updated"),
        )
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

/// What does not block but is said.
fn warnings(validated: &Validated, applied: &Applied) -> Vec<String> {
    let mut warnings: Vec<String> = validated.oversize.iter().cloned().collect();
    if let Some(scope) = validated.accepted.gateway().unknown_scope() {
        warnings.push(format!(
            "annotation {} has the unknown value {scope:?} and counts as Gateway",
            names::SCOPE_ANNOTATION
        ));
    }
    let args = applied
        .deployment
        .as_deref()
        .and_then(|live| live_tokens(live, "args"))
        .unwrap_or_default();
    let repeated = repeated_in_args(&command::flags(&validated.blueprint), &args);
    if !repeated.is_empty() {
        warnings.push(format!(
            "args of the Deployment repeat flags that the operator owns: {}",
            repeated.join(", ")
        ));
    }
    let twice = applied
        .deployment
        .as_deref()
        .map(|live| repeated_variables(live, &validated.blueprint));
    let twice = twice.unwrap_or_default();
    if !twice.is_empty() {
        let names = twice.join(", ");
        warnings.push(format!(
            "env of the Deployment repeats variables that the operator sets: {names}"
        ));
    }
    if validated.blueprint.extension.spec.data_path == DataPath::Direct {
        warnings.push("dataPath Direct: policies on the servers' own routes do not apply".to_owned());
    }
    warnings
}

/// Why the first broker pod is not ready, for people.
async fn first_pod_problem(context: &Context, key: &ObjectKey) -> Option<String> {
    use k8s_openapi::api::core::v1::Pod;
    let (label, value) = names::NAME_LABEL;
    let (managed, by) = names::MANAGED_BY_LABEL;
    let api: kube::Api<Pod> = kube::Api::namespaced(context.client.clone(), &key.namespace);
    let params = kube::api::ListParams::default()
        .labels(&format!("{label}={value},{managed}={by}"))
        .limit(10);
    let pods = api.list(&params).await.ok()?;
    pods.items.into_iter().find_map(|pod| {
        let name = pod.metadata.name.unwrap_or_default();
        let status = pod.status?;
        let waiting = status
            .container_statuses
            .into_iter()
            .flatten()
            .find_map(|container| {
                let state = container.state?;
                let waiting = state.waiting.map(|waiting| (waiting.reason, waiting.message));
                let ended = state.terminated.map(|ended| (ended.reason, ended.message));
                waiting.or(ended)
            });
        let unscheduled = || {
            let mut conditions = status.conditions.into_iter().flatten();
            let found = conditions
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
            Some((found.reason, found.message))
        };
        let (reason, message) = waiting.or_else(unscheduled)?;
        let parts = [reason, message]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ");
        Some(format!("pod {name}: {parts}"))
    })
}

#[cfg(test)]
mod tests;
