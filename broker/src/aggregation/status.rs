//! `/status` from the catalog (data-plane.md 2.5). Pure: it reads the snapshot, never a connection.

use super::catalog::{Catalog, Server};
use super::offer::published_name;
use crate::protocol::version::{self, Era};
use crate::upstreams::items::ItemKind;
use crate::upstreams::snapshot::State;
use mcp_gateway_api::broker_status::{
    BrokerStatus, ConfigStatus, ItemConflict, ItemName, ProtocolValidation, ServerItems, ServerStatus,
};

/// The whole status; `scoped_sessions` of this process have chosen tools.
pub fn status(catalog: &Catalog, replica: &str, scoped_sessions: u64, now: String) -> BrokerStatus {
    let servers: Vec<ServerStatus> = catalog.servers.iter().map(of_server).collect();
    let config = of_config(catalog);
    let healthy = servers.iter().filter(|server| server.ready).count() as u64;
    let conflicts = servers.iter().flat_map(|server| &server.conflicts);
    let tool_conflicts = conflicts
        .clone()
        .filter(|conflict| conflict.kind == ItemKind::Tool.word())
        .count() as u64;
    let clean = servers
        .iter()
        .all(|server| server.invalid_tools == 0 && server.invalid_prompts == 0);
    let total = servers.len() as u64;
    BrokerStatus {
        overall_valid: healthy == total && clean && conflicts.count() == 0 && config.error.is_none(),
        total_servers: total,
        healthy_servers: healthy,
        un_healthy_servers: total - healthy,
        tool_conflicts,
        timestamp: now,
        scoped_sessions,
        config,
        replica: replica.to_owned(),
        key_problems: Vec::new(),
        servers,
    }
}

/// One server with the names of its items.
pub fn of_one(catalog: &Catalog, name: &str) -> Option<ServerStatus> {
    let server = catalog.server(name)?;
    let names = |kinds: &[ItemKind]| {
        let of_kind = |kind: &ItemKind| {
            let kind = *kind;
            let position = catalog
                .servers
                .iter()
                .position(|other| std::ptr::eq(other, server));
            server.snapshot.items.of(kind).items.iter().map(move |item| {
                let published = published_name(kind, &item.key, &server.config);
                let owned = catalog
                    .table(kind)
                    .get(&published)
                    .is_some_and(|entry| Some(entry.server) == position);
                ItemName {
                    name: item.key.clone(),
                    published: if owned { published } else { String::new() },
                }
            })
        };
        kinds.iter().flat_map(of_kind).collect()
    };
    let items = ServerItems {
        tools: names(&[ItemKind::Tool]),
        prompts: names(&[ItemKind::Prompt]),
        resources: names(&[ItemKind::Resource, ItemKind::Template]),
    };
    Some(ServerStatus {
        items: Some(items),
        ..of_server(server)
    })
}

fn of_server(server: &Server) -> ServerStatus {
    let (config, snapshot) = (&server.config, &server.snapshot);
    let published = |kind: ItemKind| server.published.get(kind as usize).copied().unwrap_or(0);
    let items = &snapshot.items;
    let connected = !snapshot.version.is_empty();
    let unsupported = snapshot.message.starts_with("unsupported protocol version");
    ServerStatus {
        id: config.id.clone(),
        name: config.name.clone(),
        last_validated: snapshot.last_validated.clone(),
        message: message(server),
        ready: snapshot.ready,
        total_tools: published(ItemKind::Tool),
        total_prompts: published(ItemKind::Prompt),
        total_resources: published(ItemKind::Resource),
        total_resource_templates: published(ItemKind::Template),
        invalid_tools: items.tools.invalid_count,
        invalid_tool_list: items.tools.invalid.clone(),
        invalid_prompts: items.prompts.invalid_count,
        invalid_prompt_list: items.prompts.invalid.clone(),
        conflicts: server.conflicts.clone(),
        warnings: snapshot
            .warnings
            .iter()
            .chain(&server.warnings)
            .cloned()
            .collect(),
        era: if connected {
            snapshot.era().as_str().to_owned()
        } else {
            String::new()
        },
        protocol_validation: ProtocolValidation {
            is_valid: connected && !unsupported,
            supported_version: snapshot.version.clone(),
            expected_version: match snapshot.era() {
                Era::Modern => version::MODERN,
                Era::Legacy => version::LATEST_LEGACY,
            }
            .to_owned(),
        },
        consecutive_failures: snapshot.failures,
        stale: snapshot.stale,
        truncated: ItemKind::ALL.iter().any(|kind| items.of(*kind).truncated),
        items: None,
    }
}

fn message(server: &Server) -> String {
    if server.snapshot.state != State::Ready || server.conflicts.is_empty() || !server.snapshot.ready {
        return server.snapshot.message.clone();
    }
    format!(
        "{} items not published: names taken by {}",
        server.conflicts.len(),
        ItemConflict::owners(&server.conflicts).join(", ")
    )
}

fn of_config(catalog: &Catalog) -> ConfigStatus {
    let facts = &catalog.config;
    let snapshot = facts.snapshot.as_deref();
    let left_out = snapshot
        .filter(|snapshot| !snapshot.errors.is_empty())
        .map(|snapshot| snapshot.errors.join("; "));
    ConfigStatus {
        hash: snapshot.map(|snapshot| snapshot.hash.clone()).unwrap_or_default(),
        source: facts
            .source
            .map(|source| source.as_str().to_owned())
            .unwrap_or_default(),
        loaded_at: facts.loaded_at.clone(),
        error: facts.error.clone().or(left_out),
        warnings: snapshot
            .map(|snapshot| snapshot.warnings.clone())
            .unwrap_or_default(),
    }
}
