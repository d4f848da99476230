//! Status of a virtual server (operator.md 2.3): held by every broker concerned, and which of its names are published.

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway_api::{
    broker_status::ItemName,
    conditions::{ConditionType, VirtualServerReason, Wanted, name_list},
    object_key::{ObjectKey, is_live},
    virtual_server::MCPVirtualServer,
};
use serde_json::json;

use crate::{
    brokers::{Answer, Namespace},
    context::Context,
    kinds::Kind,
    queue::Outcome,
    reconcile::{
        ReconcileError,
        status::{StatusWish, write},
    },
    uninstall::{holds_finalizer, release},
};

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let snapshot = context.snapshot();
    if let Some(object) = context
        .cache
        .get(Kind::VirtualServer, key)
        .filter(|object| holds_finalizer(object))
    {
        // Left by an older install; a virtual server needs none (operator.md 4.8).
        release(context, Kind::VirtualServer, key, &object).await?;
    }
    if let Some(error) = context.cache.decode_error(Kind::VirtualServer, key) {
        write_undecodable(context, key, &error).await?;
        return Ok(Outcome::Done);
    }
    let Some(server) = snapshot
        .world
        .virtual_server(key)
        .filter(|server| is_live(&server.metadata))
    else {
        return Ok(Outcome::Done);
    };
    let accepted: Vec<ObjectKey> = snapshot
        .plan
        .accepted()
        .map(|accepted| accepted.extension().clone())
        .collect();
    let wish = judge(server, &accepted, &context.brokers());
    if let Some(wish) = wish {
        write(context, Kind::VirtualServer, key, wish).await?;
    }
    Ok(Outcome::Done)
}

/// Says which field keeps the object from being read; it is left out of every document.
async fn write_undecodable(context: &Context, key: &ObjectKey, error: &str) -> Result<(), ReconcileError> {
    let generation = context
        .cache
        .get(Kind::VirtualServer, key)
        .and_then(|object| object.pointer("/metadata/generation")?.as_i64());
    let message = format!("invalid: {error}; correct the object");
    let wish = StatusWish {
        conditions: vec![ready(generation.unwrap_or_default(), Some(message), 0)],
        members: BTreeMap::new(),
    };
    write(context, Kind::VirtualServer, key, wish).await.map(drop)
}

/// The status; nothing while the brokers of an accepted extension are not known.
fn judge(
    server: &MCPVirtualServer,
    accepted: &[ObjectKey],
    brokers: &BTreeMap<String, Namespace>,
) -> Option<StatusWish> {
    let generation = server.metadata.generation.unwrap_or_default();
    if accepted.is_empty() {
        let message = "no valid mcpgatewayextensions; create one".to_owned();
        let conditions = vec![ready(generation, Some(message), 0)];
        return Some(StatusWish {
            conditions,
            members: BTreeMap::new(),
        });
    }
    let find = |key: &'_ ObjectKey| {
        brokers
            .get(&key.namespace)
            .filter(|observed| observed.asked && observed.written.is_some())
    };
    let observed: Vec<(&ObjectKey, &Namespace)> = accepted
        .iter()
        .map(|key| find(key).map(|found| (key, found)))
        .collect::<Option<_>>()?;
    let (tools, prompts) = published(&observed);
    let unknown: BTreeSet<&str> = missing(&server.spec.tools, &tools)
        .chain(missing(
            server.spec.prompts.as_deref().unwrap_or_default(),
            &prompts,
        ))
        .collect();
    let listed: BTreeSet<&String> = server.spec.tools.iter().collect();
    let resolved = listed.iter().filter(|name| tools.contains(name.as_str())).count();
    let conditions = vec![
        ready(generation, not_served(&observed), observed.len()),
        resolution(generation, unknown),
    ];
    let resolved = json!(i32::try_from(resolved).unwrap_or(i32::MAX));
    Some(StatusWish {
        conditions,
        members: [("resolvedTools", resolved)].into(),
    })
}

fn ready(generation: i64, problem: Option<String>, gateways: usize) -> Wanted {
    let (status, reason, message) = match problem {
        Some(problem) => (false, VirtualServerReason::NotReady, problem),
        None => (
            true,
            VirtualServerReason::Ready,
            format!("served by {gateways} gateways"),
        ),
    };
    Wanted {
        kind: ConditionType::Ready,
        status,
        reason: reason.as_str(),
        message,
        observed_generation: generation,
    }
}

fn resolution(generation: i64, unknown: BTreeSet<&str>) -> Wanted {
    let (status, reason, message) = if unknown.is_empty() {
        (
            true,
            VirtualServerReason::AllResolved,
            "every listed name is published".to_owned(),
        )
    } else {
        let names = name_list(unknown);
        let message = format!("nobody publishes: {names}; correct the names or register their server");
        (false, VirtualServerReason::UnknownTool, message)
    };
    Wanted {
        kind: ConditionType::ToolsResolved,
        status,
        reason: reason.as_str(),
        message,
        observed_generation: generation,
    }
}

/// The first extension whose brokers do not all report the current document.
fn not_served(observed: &[(&ObjectKey, &Namespace)]) -> Option<String> {
    observed.iter().find_map(|(extension, observed)| {
        let answers = observed.documents();
        let behind = answers
            .iter()
            .filter(|answer| matches!(answer, Answer::Silent(_) | Answer::Pending | Answer::Stale(_)))
            .count();
        let total = answers.len();
        if total == 0 {
            return Some(format!("0 replicas ready of {extension}"));
        }
        (behind > 0).then(|| format!("not served yet by {behind}/{total} replicas of {extension}"))
    })
}

/// Published tool and prompt names of all extensions.
fn published<'a>(observed: &[(&'a ObjectKey, &'a Namespace)]) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let items = observed
        .iter()
        .flat_map(|(_, observed)| observed.replicas.values())
        .flat_map(|r| r.items.values());
    let (mut tools, mut prompts) = (BTreeSet::new(), BTreeSet::new());
    for item in items {
        tools.extend(names(&item.tools));
        prompts.extend(names(&item.prompts));
    }
    (tools, prompts)
}

fn names(items: &[ItemName]) -> impl Iterator<Item = &str> {
    items
        .iter()
        .map(|item| item.published.as_str())
        .filter(|name| !name.is_empty())
}

fn missing<'a>(listed: &'a [String], published: &'a BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
    listed
        .iter()
        .map(String::as_str)
        .filter(|name| !published.contains(name))
}
