//! A document that is too large without any server (operator.md 7): the last good one stays, the youngest virtual server
//! or policy gets the message, and nothing else changes. Who has changed meanwhile is told what it waits for.

use std::collections::BTreeMap;

use mcp_gateway_api::{
    config::{CONFIG_MAX_BYTES, ConfigError, GatewayConfig, render},
    object_key::{Age, ObjectKey},
};

use super::{Contents, Document, Servers, Sources, generation_of, generations, live_virtual_servers};
use crate::queue::WorkItem;

/// The generation of an entry that is not the one that the object asks for now.
const FORMER: i64 = -1;

/// The former document once more; `wanted` is the one that does not fit, of `bytes` bytes without servers.
pub(super) fn document(
    sources: &Sources<'_>,
    wanted: &GatewayConfig,
    servers: Servers,
    bytes: usize,
) -> Result<Document, ConfigError> {
    // Without a last good document nothing is served, and nothing is open.
    let former = sources.former.cloned().unwrap_or_else(|| GatewayConfig {
        auth_required: true,
        ..GatewayConfig::default()
    });
    let youngest = youngest(sources, wanted);
    let size = format!("config too large: {bytes} of {CONFIG_MAX_BYTES} bytes without any server");
    let waiting = match &youngest {
        Some(item) => format!(
            "{size}, and the former config stays; shorten or delete MCP{} {}",
            item.kind(),
            item.name()
        ),
        None => size.clone(),
    };
    let mut problems = servers.problems;
    let mut served = BTreeMap::new();
    for (key, entry) in &servers.entries {
        if former.servers.contains(entry) {
            served.insert(key.clone(), generation_of(sources.snapshot, key));
        } else {
            let item = WorkItem::Registration(key.clone());
            problems.entry(item).or_insert_with(|| waiting.clone());
        }
    }
    let mut virtual_servers = BTreeMap::new();
    for server in live_virtual_servers(sources.snapshot) {
        let key = ObjectKey::of(&server.metadata);
        let name = key.to_string();
        let mut entries = wanted.virtual_servers.iter().filter(|entry| entry.name == name);
        let generation = if entries.all(|entry| former.virtual_servers.contains(entry)) {
            server.metadata.generation.unwrap_or_default()
        } else {
            problems.insert(WorkItem::VirtualServer(key.clone()), waiting.clone());
            FORMER
        };
        virtual_servers.insert(key, generation);
    }
    let policies = generations(&former.auth_policies);
    for (key, generation) in generations(&wanted.auth_policies) {
        if policies.get(&key) != Some(&generation) {
            problems.insert(WorkItem::AuthPolicy(key), waiting.clone());
        }
    }
    if let Some(youngest) = youngest {
        let message = format!("{size}; shorten it, or shorten or delete another virtual server or policy");
        problems.insert(youngest, message);
    }
    Ok(Document {
        rendered: render(&former)?,
        contents: Contents {
            served,
            virtual_servers,
            policies,
            problems,
        },
        oversize: Some(waiting),
        inconclusive: servers.inconclusive,
    })
}

/// The youngest virtual server or policy in the document that does not fit.
fn youngest(sources: &Sources<'_>, wanted: &GatewayConfig) -> Option<WorkItem> {
    let world = &sources.snapshot.world;
    let virtual_servers = live_virtual_servers(sources.snapshot).map(|server| {
        let item = WorkItem::VirtualServer(ObjectKey::of(&server.metadata));
        (Age::of(&server.metadata), item)
    });
    let policies = wanted.auth_policies.iter().filter_map(|entry| {
        let policy = world.policy(&ObjectKey::parse(&entry.name)?)?;
        let item = WorkItem::AuthPolicy(ObjectKey::of(&policy.metadata));
        Some((Age::of(&policy.metadata), item))
    });
    let all = virtual_servers.chain(policies);
    all.max().map(|(_, item)| item)
}
