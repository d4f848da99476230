//! Config document → [`Snapshot`], item by item (data-plane.md 3.2, 3.3): an item that does not validate is left out
//! and reported, the rest is served. Keys are found without regard to case; unknown ones are reported and ignored.

use super::access;
use super::front;
use super::model::{ServerConfig, Snapshot, VirtualServer};
use super::places::Places;
use super::server::{FileMembers, validated};
use super::{ide, resources};
use crate::protocol::host;
use mcp_gateway_api::config::{self, ServerEntry, VirtualServerEntry};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Largest document, bytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
pub(super) const MAX_ITEMS: usize = 1000;

/// The whole document is refused. The text of the document is never repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DocumentError {
    /// Larger than [`MAX_BYTES`].
    #[error("config is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("config is not UTF-8")]
    Encoding,
    /// Not YAML, or in the JSON of an IDE not JSON.
    #[error("config is not valid YAML: look at the indentation, the quotes and the brackets before {}", place(*.0))]
    Yaml(Option<(u64, u64)>),
    /// The top level, or `servers`, has the wrong type.
    #[error(
        "config member {0} has the wrong type; servers and virtualServers are lists, mcpServers is an object"
    )]
    Shape(&'static str),
    /// `tls` does not name two files.
    #[error("config member tls: certFile and keyFile are needed, each the path of a PEM file")]
    Tls,
}

fn place(position: Option<(u64, u64)>) -> String {
    match position {
        Some((line, column)) => format!("line {line} column {column}"),
        None => "its end".to_owned(),
    }
}

const TOP: &[&str] = &[
    "hash",
    "mcpServers",
    "servers",
    "virtualServers",
    "gatewayCACertPEM",
    "publicHosts",
    "allowedOrigins",
    "authPolicies",
    "authRequired",
    "authn",
    "defaultAction",
    "tls",
    "legacySSE",
];
const SERVER: &[&str] = &[
    "name",
    "url",
    "hostname",
    "prefix",
    "toolPrefix",
    "state",
    "enabled",
    "credential",
    "auth",
    "caCert",
    "createdAt",
    "uid",
    "userSpecificList",
    "tokenURLElicitation",
    "forwardHeaders",
    "category",
    "hint",
    "tags",
    "protocol",
    "transport",
    "callTimeout",
    "resourceURIs",
    "exposeServerInfo",
    "serverUrl",
    "type",
    "disabled",
    "headers",
    "command",
    "args",
    "env",
    "cwd",
    "isolation",
];
const VIRTUAL: &[&str] = &["name", "tools", "prompts", "resources"];

/// What reading collects beside the items.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// What a document may say, by where the process runs.
#[derive(Clone, Copy, Default)]
pub struct Dialect {
    /// The front forwards calls itself: servers with `transport: sse` can be reached.
    pub forwards: bool,
    /// Standalone: servers may be commands, and values may name variables of the environment, which this looks up.
    pub local: Option<fn(&str) -> Option<String>>,
}

/// Reads a document as Envoy mode does.
///
/// # Errors
/// As [`read_as`].
pub fn read(bytes: &[u8]) -> Result<Snapshot, DocumentError> {
    read_as(bytes, Dialect::default())
}

/// Reads a document.
///
/// # Errors
/// [`DocumentError`] when nothing of it can be used.
pub fn read_as(bytes: &[u8], dialect: Dialect) -> Result<Snapshot, DocumentError> {
    if bytes.len() > MAX_BYTES {
        return Err(DocumentError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Encoding)?;
    let mut notes = Notes::default();
    let mut places = Places::default();
    let value = if dialect.local.is_some() && resources::are_there(text) {
        Value::Object(resources::document(text, &mut notes)?)
    } else {
        let text = ide::without_comments(text);
        let value = serde_saphyr::from_str(&text);
        let value = value.map_err(|error| DocumentError::Yaml(config::position_of(&error)))?;
        if dialect.local.is_some() {
            places = Places::of(&text);
        }
        value
    };
    let mut top = match value {
        Value::Object(map) => canonical(map, TOP, "config", &mut notes),
        Value::Null => Map::new(),
        _ => return Err(DocumentError::Shape("(top level)")),
    };
    let entries = ide::listed(&mut top, dialect.local.is_some(), list)?;
    let servers = servers(entries, (&places, dialect), &mut notes);
    let virtual_servers = virtual_servers(list(&mut top, "virtualServers")?, &mut notes);
    let access = access::read(&mut top, &mut notes)?;
    let front = front::read(&mut top, dialect, &mut notes)?;
    Ok(Snapshot {
        hash: text_of(&top, "hash")
            .filter(|hash| !hash.is_empty())
            .unwrap_or_else(|| config::hash_of(bytes)),
        servers,
        virtual_servers,
        gateway_ca_pem: text_of(&top, "gatewayCACertPEM").unwrap_or_default(),
        public_hosts: strings(&mut top, "publicHosts", &mut notes)?
            .iter()
            .map(|name| host::comparable(name))
            .collect(),
        allowed_origins: strings(&mut top, "allowedOrigins", &mut notes)?,
        policies: access.policies,
        providers: access.providers,
        front,
        errors: notes.errors,
        warnings: notes.warnings,
    })
}

/// Renames keys to their documented spelling; of two keys that differ in case only, the exact one wins.
fn canonical(map: Map<String, Value>, known: &[&str], place: &str, notes: &mut Notes) -> Map<String, Value> {
    let mut renamed = Map::new();
    for (key, value) in map {
        match known.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
            Some(name) if **name == key || !renamed.contains_key(*name) => {
                renamed.insert((*name).to_owned(), value);
            }
            Some(_) => {}
            None => {
                let shown: String = key.chars().take(64).collect();
                notes
                    .warnings
                    .push(format!("{place}: unknown key {shown:?} ignored"));
            }
        }
    }
    renamed
}

pub(super) fn list(top: &mut Map<String, Value>, key: &'static str) -> Result<Vec<Value>, DocumentError> {
    match top.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(DocumentError::Shape(key)),
    }
}

fn strings(
    top: &mut Map<String, Value>,
    key: &'static str,
    notes: &mut Notes,
) -> Result<Vec<String>, DocumentError> {
    let mut found = Vec::new();
    for item in list(top, key)? {
        match item {
            Value::String(text) => found.push(text),
            _ => notes.errors.push(format!("{key}: an element is not a string")),
        }
    }
    Ok(found)
}

fn text_of(top: &Map<String, Value>, key: &str) -> Option<String> {
    top.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn servers(
    items: Vec<Value>,
    (places, dialect): (&Places, Dialect),
    notes: &mut Notes,
) -> Vec<Arc<ServerConfig>> {
    let mut found: Vec<Arc<ServerConfig>> = Vec::new();
    let mut names = HashSet::new();
    for (position, item) in items.into_iter().enumerate() {
        if position >= MAX_ITEMS {
            notes
                .errors
                .push(format!("servers: more than {MAX_ITEMS}, the rest is left out"));
            break;
        }
        let line = places.prefix(position, &item);
        match server(item, (&line, position, dialect), notes) {
            Ok(server) if names.insert(server.name.clone()) => found.push(Arc::new(server)),
            Ok(server) => notes.errors.push(format!(
                "{line}server {:?}: duplicate name, the first is kept",
                server.name
            )),
            Err(reason) => notes.errors.push(reason),
        }
    }
    found
}

fn server(
    item: Value,
    (line, position, dialect): (&str, usize, Dialect),
    notes: &mut Notes,
) -> Result<ServerConfig, String> {
    let Value::Object(map) = item else {
        return Err(format!("{line}servers[{position}]: not a mapping"));
    };
    let place = map
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("name"))
        .and_then(|(_, name)| name.as_str())
        .map_or_else(
            || format!("{line}servers[{position}]"),
            |name| format!("{line}server {name:?}"),
        );
    let mut value = Value::Object(canonical(map, SERVER, &place, notes));
    // serde's message may repeat a value, and a value may be a credential: only the place is reported.
    let wrong_type = |_| format!("{place}: a member has the wrong type");
    let extra = FileMembers::deserialize(&value).map_err(wrong_type)?;
    // In files these may also be numbers; they have been read above.
    if let Value::Object(members) = &mut value {
        members.retain(|name, _| !matches!(name.as_str(), "callTimeout" | "transport"));
    }
    let entry = ServerEntry::deserialize(&value).map_err(wrong_type)?;
    validated(entry, extra, (position, dialect)).map_err(|reason| format!("{place}: {reason}"))
}

fn virtual_servers(items: Vec<Value>, notes: &mut Notes) -> HashMap<String, VirtualServer> {
    let mut found = HashMap::new();
    for (position, item) in items.into_iter().enumerate() {
        let place = format!("virtualServers[{position}]");
        if position >= MAX_ITEMS {
            notes.errors.push(format!(
                "virtualServers: more than {MAX_ITEMS}, the rest is left out"
            ));
            break;
        }
        let Value::Object(map) = item else {
            notes.errors.push(format!("{place}: not a mapping"));
            continue;
        };
        let value = Value::Object(canonical(map, VIRTUAL, &place, notes));
        let Ok(entry) = VirtualServerEntry::deserialize(&value) else {
            notes.errors.push(format!("{place}: a member has the wrong type"));
            continue;
        };
        if entry.name.is_empty() || found.contains_key(&entry.name) {
            notes
                .errors
                .push(format!("{place}: name is missing or a duplicate"));
            continue;
        }
        let set = |names: Vec<String>| names.into_iter().collect::<HashSet<_>>();
        let server = VirtualServer {
            tools: set(entry.tools),
            prompts: entry.prompts.map(set),
            resources: entry.resources.map(set),
        };
        found.insert(entry.name, server);
    }
    found
}
