//! The catalog: exact maps from published names and URIs to (server, original name), built from the config and the
//! servers' snapshots. Pure; names are never stripped or matched by prefix. The owner of a name is the oldest enabled
//! registration that lists it, whether it is up or not (5.2).

use super::lists::KeptPages;
use super::meta::{MetaSettings, MetaTool};
use super::offer::Offer;
use super::table::{Entry, GATEWAY, Table};
use crate::auth::origin::Origins;
use crate::config::model::{ServerConfig, Snapshot};
use crate::config::watch::Source;
use crate::protocol::version::Era;
use crate::protocol::{header, host};
use crate::upstreams::items::{Hints, ItemKind};
use crate::upstreams::snapshot::{ServerSnapshot, State};
use mcp_gateway_api::broker_status::ItemConflict;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Warnings kept per server.
const MAX_WARNINGS: usize = 50;

/// One server in the catalog.
pub struct Server {
    /// Its config.
    pub config: Arc<ServerConfig>,
    /// What its connection knows.
    pub snapshot: Arc<ServerSnapshot>,
    /// Items that another server owns.
    pub conflicts: Vec<ItemConflict>,
    /// What should be looked at.
    pub warnings: Vec<String>,
    /// Number of items published, by [`ItemKind`].
    pub published: [u64; 4],
    /// What it would publish if nobody else wanted the same names.
    pub(super) offer: Arc<Offer>,
}

/// What is known of the config itself.
#[derive(Clone, Default)]
pub struct ConfigFacts {
    /// The config in use.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Where it came from.
    pub source: Option<Source>,
    /// When it was applied, RFC 3339.
    pub loaded_at: String,
    /// Why the newest one cannot be used.
    pub error: Option<String>,
}

/// Hosts that are this process' own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnHosts {
    /// Public host, comparable.
    pub public: String,
    /// Private host, comparable.
    pub private: String,
}

/// The snapshot that everything reads.
#[derive(Default)]
pub struct Catalog {
    /// Config.
    pub config: ConfigFacts,
    /// Servers in the order of the config.
    pub servers: Vec<Server>,
    /// Origin and Host rules.
    pub origins: Origins,
    /// Own hosts.
    pub hosts: OwnHosts,
    /// Settings of the gateway's own tools.
    pub meta: MetaSettings,
    /// True when answers of some server may reach clients with a session in another form: the server has no sessions, or
    /// its URIs are published in another form.
    pub rewrites_replies: bool,
    /// Pages that were asked for since it was built.
    pub kept_pages: KeptPages,
    tables: [Table; 4],
    by_name: HashMap<String, usize>,
    server_hosts: HashSet<String>,
    wildcard_hosts: Vec<String>,
}

/// What a catalog is built from.
pub struct Sources<'a> {
    /// Config.
    pub config: &'a ConfigFacts,
    /// Servers in the order of the config, each with its newest snapshot.
    pub servers: Vec<(Arc<ServerConfig>, Arc<ServerSnapshot>)>,
    /// Own hosts.
    pub hosts: &'a OwnHosts,
    /// Settings of the gateway's own tools.
    pub meta: MetaSettings,
    /// Origins of the command line.
    pub allowed_origins: &'a [String],
    /// The former catalog, of which is used again what is the same.
    pub before: Option<&'a Catalog>,
}

impl Catalog {
    /// True when the config gives the front a certificate of its own.
    pub fn speaks_tls(&self) -> bool {
        let config = self.config.snapshot.as_deref();
        config.is_some_and(|config| config.front.tls.is_some())
    }

    /// Builds a catalog.
    pub fn build(sources: Sources<'_>) -> Self {
        let mut servers: Vec<Server> = sources
            .servers
            .into_iter()
            .enumerate()
            .map(|(at, (config, snapshot))| Server {
                offer: Offer::of((&config, at), &snapshot.items, sources.before),
                config,
                snapshot,
                conflicts: Vec::new(),
                warnings: Vec::new(),
                published: [0; 4],
            })
            .collect();
        let own_tools: Vec<MetaTool> = MetaTool::of(sources.meta, &servers).collect();
        let mut order: Vec<usize> = (0..servers.len()).collect();
        order.sort_by(|a, b| precedence(&servers, *a).cmp(&precedence(&servers, *b)));
        let tables = ItemKind::ALL.map(|kind| table(kind, &mut servers, &order, &own_tools));
        let by_name = servers
            .iter()
            .enumerate()
            .map(|(at, server)| (server.config.name.clone(), at))
            .collect();
        let (wildcard_hosts, server_hosts) = servers
            .iter()
            .map(|server| server.config.hostname.clone())
            .partition::<Vec<_>, _>(|hostname| hostname.starts_with("*."));
        let rewrites_replies = servers.iter().any(|server| {
            server.snapshot.era_for(Era::Legacy) == Era::Modern || server.config.uris.is_some()
        });
        let config = sources.config.clone();
        let further = config.snapshot.as_deref();
        let hosts = further
            .map(|config| config.public_hosts.as_slice())
            .unwrap_or_default();
        let origins = further
            .map(|config| config.allowed_origins.as_slice())
            .unwrap_or_default();
        let own = [sources.hosts.public.as_str(), sources.hosts.private.as_str()];
        Self {
            origins: Origins::new(
                own.into_iter()
                    .filter(|name| !name.is_empty())
                    .chain(hosts.iter().map(String::as_str)),
                sources.allowed_origins.iter().chain(origins).map(String::as_str),
            ),
            hosts: sources.hosts.clone(),
            meta: sources.meta,
            config,
            servers,
            rewrites_replies,
            kept_pages: KeptPages::default(),
            tables,
            by_name,
            server_hosts: server_hosts.into_iter().collect(),
            wildcard_hosts,
        }
    }

    /// The table of one kind.
    pub fn table(&self, kind: ItemKind) -> &Table {
        let [tools, prompts, resources, templates] = &self.tables;
        match kind {
            ItemKind::Tool => tools,
            ItemKind::Prompt => prompts,
            ItemKind::Resource => resources,
            ItemKind::Template => templates,
        }
    }

    /// A server by its name.
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.by_name.get(name).and_then(|at| self.servers.get(*at))
    }

    /// The resource behind a link that the server of this name gave, under the URI that the client knows; nothing of it is listed.
    pub fn linked(&self, server: &str, published: &str) -> Option<Entry> {
        let at = *self.by_name.get(server)?;
        let config = &self
            .servers
            .get(at)
            .filter(|server| server.config.enabled)?
            .config;
        let uris = config.uris.as_ref();
        let original = uris.map_or(Some(published.into()), |uris| uris.original(published))?;
        Some(Entry::unlisted(published, original.into_owned(), at))
    }

    /// The server of an entry of this catalog.
    pub fn server_of(&self, entry: &Entry) -> Option<&Server> {
        self.servers.get(entry.server)
    }

    /// True when a server has this host (comparable form).
    pub fn is_server_host(&self, name: &str) -> bool {
        self.server_hosts.contains(name)
            || self
                .wildcard_hosts
                .iter()
                .any(|pattern| host::covers(pattern, name))
    }

    /// True for the public host and the hosts of custom routes.
    pub fn is_public_host(&self, name: &str) -> bool {
        let further = self
            .config
            .snapshot
            .as_deref()
            .map(|config| config.public_hosts.as_slice())
            .unwrap_or_default();
        (!name.is_empty() && name == self.hosts.public) || further.iter().any(|host| host == name)
    }
}

/// Names of one kind in precedence order: the first claim wins, also while its server is down.
fn table(kind: ItemKind, servers: &mut [Server], order: &[usize], own_tools: &[MetaTool]) -> Table {
    let offers: Vec<Arc<Offer>> = servers.iter().map(|server| Arc::clone(&server.offer)).collect();
    let mut entries = own_entries(kind, own_tools);
    let own: Vec<Arc<str>> = entries.iter().map(|entry| Arc::clone(&entry.published)).collect();
    let mut owners: HashMap<&str, usize> = own.iter().map(|name| (&**name, GATEWAY)).collect();
    let items = offers.iter().map(|offer| offer.items(kind).len()).sum();
    owners.reserve(items);
    entries.reserve(items);
    for at in order.iter().copied() {
        let (Some(server), Some(offer)) = (servers.get(at), offers.get(at)) else {
            continue;
        };
        if !server.config.enabled || server.snapshot.state == State::Disabled {
            continue;
        }
        let served = server.snapshot.served;
        let (mut conflicts, mut warnings, mut count) = (Vec::new(), offer.refused(kind).to_vec(), 0);
        for item in offer.items(kind) {
            let owner = *owners.entry(&item.published).or_insert(at);
            if owner != at {
                let owner = servers
                    .get(owner)
                    .map_or(header::BROKER, |owner| owner.config.name.as_str())
                    .to_owned();
                conflicts.push(ItemConflict {
                    kind: kind.word().to_owned(),
                    name: item.published.to_string(),
                    owner,
                });
            } else if served && let Some(entry) = &item.entry {
                count += 1;
                warnings.extend(item.warnings.iter().cloned());
                entries.push(Arc::clone(entry));
            }
        }
        if let Some(server) = servers.get_mut(at) {
            server.conflicts.extend(conflicts);
            server.warnings.extend(warnings.into_iter().take(MAX_WARNINGS));
            if let Some(slot) = server.published.get_mut(kind as usize) {
                *slot = count;
            }
        }
    }
    Table::of(entries)
}

/// The gateway's own tools, which no server can take over (S21).
fn own_entries(kind: ItemKind, own_tools: &[MetaTool]) -> Vec<Arc<Entry>> {
    let entry = |tool: &MetaTool| Entry {
        published: tool.name().into(),
        original: tool.name().to_owned(),
        server: GATEWAY,
        definition: tool.definition().into(),
        hints: Hints::default(),
        mirrors: Ok(Arc::default()),
        annotations: None,
    };
    let own_tools = if kind == ItemKind::Tool { own_tools } else { &[] };
    own_tools.iter().map(|tool| Arc::new(entry(tool))).collect()
}

/// Oldest first; entries without a creation time come last, in their order in the file.
fn precedence(servers: &[Server], at: usize) -> (bool, &str, &str, usize, &str) {
    match servers.get(at) {
        Some(server) => {
            let (created, uid, position) = &server.config.age;
            // With a creation time the position in the document says nothing.
            let position = if created.is_empty() { *position } else { 0 };
            (created.is_empty(), created, uid, position, &server.config.name)
        }
        None => (true, "", "", at, ""),
    }
}
