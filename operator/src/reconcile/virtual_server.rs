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
    queue::{Outcome, WorkItem},
    reconcile::{
        ReconcileError,
        status::{StatusWish, condition, conditions_of, write},
    },
    uninstall::{holds_finalizer, release},
};

pub(crate) async fn reconcile(context: &Context, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
    let snapshot = context.snapshot();
    if let Some(object) = context
        .cache
        .get(Kind::VirtualServer, key)
        .filter(holds_finalizer)
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
    let accepted: Vec<Candidate> = snapshot
        .plan
        .accepted()
        .map(|accepted| Candidate {
            key: accepted.extension().clone(),
            is_ready: is_ready(context, Kind::Extension, accepted.extension(), None),
        })
        .collect();
    let facts = Facts {
        server,
        accepted: &accepted,
        was_ready: is_ready(context, Kind::VirtualServer, key, server.metadata.generation),
    };
    let wish = facts.judge(&context.brokers());
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

/// True when `Ready` of the object says True, about this generation if one is given.
fn is_ready(context: &Context, kind: Kind, key: &ObjectKey, generation: Option<i64>) -> bool {
    let Some(object) = context.cache.get(kind, key) else {
        return false;
    };
    condition(&conditions_of(&object), ConditionType::Ready).is_some_and(|ready| {
        let observed = generation.is_none() || ready.observed_generation == generation;
        ready.status == "True" && observed
    })
}

/// An accepted extension.
struct Candidate {
    key: ObjectKey,
    /// Its `Ready` is True: what its brokers serve counts, and is waited for while it is not known.
    is_ready: bool,
}

/// An extension whose brokers were asked.
type Observed<'a> = (&'a ObjectKey, &'a Namespace);

/// What a verdict is made from, beside the brokers.
struct Facts<'a> {
    server: &'a MCPVirtualServer,
    accepted: &'a [Candidate],
    /// `Ready` is True for the current generation.
    was_ready: bool,
}

impl Facts<'_> {
    /// The status; nothing while the brokers of a ready extension are not known, or its document with this generation is
    /// still to come, which queues this again. An extension that is not ready itself is nobody's obstacle.
    fn judge(&self, brokers: &BTreeMap<String, Namespace>) -> Option<StatusWish> {
        let Some(first) = self.accepted.first() else {
            return Some(self.refused("no valid mcpgatewayextensions; create one".to_owned()));
        };
        let mut observed = Vec::new();
        for Candidate { key, is_ready } in self.accepted {
            let found = brokers.get(&key.namespace);
            match found.filter(|found| found.asked && found.belongs_to(key)) {
                Some(found) if !self.has_former(found) => observed.push((key, found)),
                _ if *is_ready => return None,
                _ => {}
            }
        }
        if observed.is_empty() {
            let extension = &first.key;
            return Some(self.refused(format!(
                "not served yet: MCPGatewayExtension {extension} is not ready"
            )));
        }
        let (tools, prompts) = published(&observed);
        let spec = &self.server.spec;
        let unknown = missing(&spec.tools, &tools)
            .chain(missing(spec.prompts.as_deref().unwrap_or_default(), &prompts))
            .collect();
        let listed: BTreeSet<&String> = spec.tools.iter().collect();
        let resolved = listed.iter().filter(|name| tools.contains(name.as_str())).count();
        let resolved = json!(i32::try_from(resolved).unwrap_or(i32::MAX));
        let generation = self.generation();
        Some(StatusWish {
            conditions: vec![self.ready(&observed), resolution(generation, unknown)],
            members: [("resolvedTools", resolved)].into(),
        })
    }

    /// True while the extension's document holds a former generation of this virtual server.
    fn has_former(&self, observed: &Namespace) -> bool {
        let own = ObjectKey::of(&self.server.metadata);
        let contents = observed.written.as_ref().map(|written| &written.contents);
        contents.is_some_and(|contents| {
            let held = contents.virtual_servers.get(&own);
            held.is_some_and(|held| *held != self.generation())
                && !contents
                    .problems
                    .contains_key(&WorkItem::VirtualServer(own.clone()))
        })
    }

    fn generation(&self) -> i64 {
        self.server.metadata.generation.unwrap_or_default()
    }

    fn refused(&self, message: String) -> StatusWish {
        StatusWish {
            conditions: vec![ready(self.generation(), Some(message), 0)],
            members: BTreeMap::new(),
        }
    }

    /// `Ready`: every extension that publishes a listed tool holds it; when none does, one extension is enough.
    fn ready(&self, observed: &[Observed<'_>]) -> Wanted {
        let publishing: Vec<Observed<'_>> = observed
            .iter()
            .copied()
            .filter(|one| {
                let (tools, _) = published(&[*one]);
                let mut listed = self.server.spec.tools.iter();
                listed.any(|tool| tools.contains(tool.as_str()))
            })
            .collect();
        let (problem, gateways) = if publishing.is_empty() {
            let problems: Option<Vec<String>> = observed.iter().map(|one| self.not_served(*one)).collect();
            (problems.and_then(|all| all.into_iter().next()), 1)
        } else {
            let problem = publishing.iter().find_map(|one| self.not_served(*one));
            (problem, publishing.len())
        };
        ready(self.generation(), problem, gateways)
    }

    /// What is missing until every ready replica of an extension holds this generation. One that has the former document
    /// for a moment, or joins, does not take away a Ready that was there.
    fn not_served(&self, (extension, observed): Observed<'_>) -> Option<String> {
        let own = ObjectKey::of(&self.server.metadata);
        let contents = observed.written.as_ref().map(|written| &written.contents)?;
        if let Some(problem) = contents.problems.get(&WorkItem::VirtualServer(own.clone())) {
            return Some(problem.clone());
        }
        let answers = observed.documents();
        let total = answers.len();
        if total == 0 {
            return Some(format!("0 replicas ready of {extension}"));
        }
        let holds = contents.virtual_servers.get(&own) == Some(&self.generation());
        let behind = answers.iter().filter(|answer| match answer {
            Answer::Current(_) => !holds,
            Answer::Stale(_) | Answer::Pending => !self.was_ready,
            Answer::Silent(_) => true,
        });
        let behind = behind.count();
        (behind > 0).then(|| format!("not served yet by {behind}/{total} replicas of {extension}"))
    }
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

/// Published tool and prompt names of these extensions.
fn published<'a>(observed: &[Observed<'a>]) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
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

#[cfg(test)]
mod tests;
