//! What one server would publish if nobody else wanted the same names (data-plane.md 5.3): its items under the names that
//! clients see. An offer is made once for what it depends on and used by all catalogs until that changes.

use super::catalog::Catalog;
use super::table::Entry;
use crate::config::model::ServerConfig;
use crate::protocol::json::quoted;
use crate::protocol::server_message::replace;
use crate::protocol::uri_prefix::UriPrefix;
use crate::upstreams::items::{Item, ItemKind, Items};
use std::sync::Arc;

/// Longest published name, characters.
const MAX_NAME: usize = 128;
/// Longest published URI, bytes.
const MAX_URI: usize = 8 * 1024;

/// What a server offers.
pub(super) struct Offer {
    kinds: [Kind; 4],
    made_of: Source,
}

/// All that an offer depends on.
struct Source {
    items: Arc<Items>,
    prefix: String,
    uris: Option<UriPrefix>,
    at: usize,
}

#[derive(Default)]
struct Kind {
    offered: Vec<Offered>,
    refused: Vec<String>,
}

/// One item.
pub(super) struct Offered {
    /// Its name or URI, which is reserved also while the server is down.
    pub(super) published: Arc<str>,
    /// None when its definition cannot be published under that name.
    pub(super) entry: Option<Arc<Entry>>,
    /// What should be looked at.
    pub(super) warnings: Vec<String>,
}

impl Source {
    fn is_of(&self, (config, at): (&ServerConfig, usize), items: &Arc<Items>) -> bool {
        self.at == at
            && Arc::ptr_eq(&self.items, items)
            && self.prefix == config.prefix
            && self.uris == config.uris
    }
}

impl Offer {
    /// The offer of the server at this position, which is that of the former catalog where nothing has changed.
    pub(super) fn of(
        server: (&ServerConfig, usize),
        items: &Arc<Items>,
        before: Option<&Catalog>,
    ) -> Arc<Self> {
        let former = before.and_then(|before| before.servers.get(server.1));
        let same = former.filter(|former| former.offer.made_of.is_of(server, items));
        same.map_or_else(
            || Arc::new(Self::made(server, items)),
            |same| Arc::clone(&same.offer),
        )
    }

    fn made(server: (&ServerConfig, usize), items: &Arc<Items>) -> Self {
        let (config, at) = server;
        Self {
            kinds: ItemKind::ALL.map(|kind| Kind::of(kind, items, server)),
            made_of: Source {
                items: Arc::clone(items),
                prefix: config.prefix.clone(),
                uris: config.uris.clone(),
                at,
            },
        }
    }

    /// The items of a kind, in the server's order.
    pub(super) fn items(&self, kind: ItemKind) -> &[Offered] {
        self.kinds
            .get(kind as usize)
            .map_or(&[], |kind| kind.offered.as_slice())
    }

    /// Why items of a kind cannot be published.
    pub(super) fn refused(&self, kind: ItemKind) -> &[String] {
        self.kinds
            .get(kind as usize)
            .map_or(&[], |kind| kind.refused.as_slice())
    }
}

impl Kind {
    fn of(kind: ItemKind, items: &Items, server: (&ServerConfig, usize)) -> Self {
        let mut all = Self::default();
        for item in &items.of(kind).items {
            let published = published_name(kind, &item.key, server.0);
            match too_long(kind, &published) {
                None => all.offered.push(offered(kind, item, &published.into(), server)),
                Some(problem) => all.refused.push(format!(
                    "{} {:?} not published: {problem}",
                    kind.word(),
                    shortened(&item.key)
                )),
            }
        }
        all
    }
}

fn offered(kind: ItemKind, item: &Item, published: &Arc<str>, server: (&ServerConfig, usize)) -> Offered {
    let entry = entry(item, published, server).map(Arc::new);
    let unusable = entry.as_ref().and_then(|entry| entry.mirrors.as_ref().err());
    let unusable = unusable.map(|error| {
        format!(
            "tool {:?} not for stateless clients: {error}",
            shortened(published)
        )
    });
    Offered {
        published: Arc::clone(published),
        warnings: unusual(kind, published).into_iter().chain(unusable).collect(),
        entry,
    }
}

/// The name or URI under which a server's own `key` is published.
pub(super) fn published_name(kind: ItemKind, key: &str, config: &ServerConfig) -> String {
    match &config.uris {
        _ if kind.is_named() => format!("{}{key}", config.prefix),
        Some(uris) => uris.published(key),
        None => key.to_owned(),
    }
}

/// The entry of an item of the server at this position; `None` when its name is too long.
pub(super) fn entry_of(kind: ItemKind, item: &Item, server: (&ServerConfig, usize)) -> Option<Entry> {
    let published = published_name(kind, &item.key, server.0);
    too_long(kind, &published)
        .is_none()
        .then(|| entry(item, &published.into(), server))?
}

fn too_long(kind: ItemKind, published: &str) -> Option<String> {
    match kind {
        ItemKind::Tool | ItemKind::Prompt if published.chars().count() > MAX_NAME => {
            Some(format!("longer than {MAX_NAME} characters"))
        }
        ItemKind::Resource | ItemKind::Template if published.len() > MAX_URI => {
            Some(format!("longer than {MAX_URI} bytes"))
        }
        _ => None,
    }
}

fn unusual(kind: ItemKind, published: &str) -> Option<String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (kind.is_named() && !published.chars().all(usual)).then(|| {
        format!(
            "{} {:?} has characters outside A-Z a-z 0-9 _ - .",
            kind.word(),
            shortened(published)
        )
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

fn entry(item: &Item, published: &Arc<str>, (config, server): (&ServerConfig, usize)) -> Option<Entry> {
    let uris = config.uris.as_ref();
    let mut edits = uris.map_or_else(Vec::new, |uris| uris.in_definition(&item.definition));
    if **published != item.key {
        edits.push((item.key_range.clone(), quoted(published)));
    }
    let definition = if edits.is_empty() {
        Arc::clone(&item.definition)
    } else {
        replace(&item.definition, edits)?.into()
    };
    Some(Entry {
        published: Arc::clone(published),
        original: item.key.clone(),
        server,
        definition,
        hints: item.hints,
        mirrors: item.mirrors.clone(),
        annotations: item.annotations.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::catalog::{ConfigFacts, OwnHosts, Server, Sources};
    use crate::aggregation::meta::MetaSettings;
    use crate::config::document;
    use crate::upstreams::snapshot::{ServerSnapshot, State};
    use proptest::prelude::*;

    fn items(names: &[u8]) -> Arc<Items> {
        let (mut items, mut known) = (Items::default(), std::collections::HashSet::new());
        for name in names {
            let definition = format!(r#"{{"name":"t{name}","inputSchema":{{"type":"object"}}}}"#);
            items
                .of_mut(ItemKind::Tool)
                .add(ItemKind::Tool, &definition, &mut known);
        }
        Arc::new(items)
    }

    /// A server: its name, prefix, items, and whether they are served.
    type Drawn = (u8, u8, Arc<Items>, bool);

    fn catalog(drawn: &[Drawn], before: Option<&Catalog>) -> Catalog {
        let entry = |(name, prefix, ..): &Drawn| {
            let prefix = ["", "p_", "q_"].get(usize::from(*prefix)).unwrap();
            format!("- {{name: s{name}, url: 'http://s{name}.test/mcp', prefix: '{prefix}'}}\n")
        };
        let text = format!("servers:\n{}", drawn.iter().map(entry).collect::<String>());
        let config = document::read(text.as_bytes()).unwrap();
        let snapshot = |(.., items, served): &Drawn| ServerSnapshot {
            state: State::Ready,
            items: Arc::clone(items),
            served: *served,
            ..ServerSnapshot::default()
        };
        let snapshots = drawn.iter().map(|drawn| Arc::new(snapshot(drawn)));
        let servers = config.servers.iter().cloned().zip(snapshots).collect();
        Catalog::build(Sources {
            config: &ConfigFacts {
                snapshot: Some(Arc::new(config)),
                ..ConfigFacts::default()
            },
            servers,
            hosts: &OwnHosts::default(),
            meta: MetaSettings::default(),
            allowed_origins: &[],
            before,
        })
    }

    /// What others read of a catalog.
    fn read(catalog: &Catalog) -> String {
        let of_server = |server: &Server| {
            format!(
                "{:?} {:?} {:?}",
                server.conflicts, server.warnings, server.published
            )
        };
        let servers: Vec<String> = catalog.servers.iter().map(of_server).collect();
        format!("{servers:?} {:?}", ItemKind::ALL.map(|kind| catalog.table(kind)))
    }

    proptest! {
        #[test]
        fn a_catalog_does_not_depend_on_the_one_before(
            lists in prop::collection::vec(prop::collection::vec(0u8..6, 0..4), 3),
            steps in prop::collection::vec(
                prop::collection::btree_map(0u8..4, (0u8..3, 0usize..3, any::<bool>()), 0..4), 1..6),
        ) {
            let lists: Vec<Arc<Items>> = lists.iter().map(|names| items(names)).collect();
            let mut before: Option<Catalog> = None;
            for step in steps {
                let drawn: Vec<Drawn> = step
                    .into_iter()
                    .map(|(name, (prefix, list, served))| (name, prefix, Arc::clone(&lists[list]), served))
                    .collect();
                let next = catalog(&drawn, before.as_ref());
                prop_assert_eq!(read(&next), read(&catalog(&drawn, None)));
                before = Some(next);
            }
        }
    }

    #[test]
    fn an_offer_is_used_again_until_it_changes() {
        let (one, other) = (items(&[1, 2]), items(&[3]));
        let first = catalog(
            &[(0, 1, Arc::clone(&one), true), (1, 2, Arc::clone(&other), true)],
            None,
        );
        let second = catalog(
            &[(0, 1, Arc::clone(&one), false), (1, 2, items(&[3]), true)],
            Some(&first),
        );
        let same = |at: usize| Arc::ptr_eq(&first.servers[at].offer, &second.servers[at].offer);
        assert_eq!((same(0), same(1)), (true, false));
    }
}
