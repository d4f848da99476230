//! Published items of one kind, ordered by their names.

use crate::protocol::mirror::Mirror;
use crate::upstreams::items::Hints;
use serde_json::{Map, Value};
use std::sync::Arc;

/// [`Entry::server`] of the gateway's own tools: no server has this position.
pub const GATEWAY: usize = usize::MAX;

/// One published item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Published name or URI.
    pub published: Arc<str>,
    /// The server's own name or URI.
    pub original: String,
    /// Position of the server in [`super::catalog::Catalog::servers`]; [`GATEWAY`] for the gateway's own tools.
    pub server: usize,
    /// Definition as it is listed.
    pub definition: Arc<str>,
    /// Hints of a tool.
    pub hints: Hints,
    /// Arguments that clients of the stateless revision repeat in headers, or why they cannot use the tool.
    pub mirrors: Result<Arc<[Mirror]>, String>,
    /// What the definition says of the item's behaviour, for conditions of policies.
    pub annotations: Option<Arc<Map<String, Value>>>,
}

impl Entry {
    /// An item of a server (its position) that no list shows: nothing but its names is known.
    pub(super) fn unlisted(published: &str, original: String, server: usize) -> Self {
        Self {
            published: published.into(),
            original,
            server,
            definition: "".into(),
            hints: Hints::default(),
            mirrors: Ok(Arc::default()),
            annotations: None,
        }
    }
}

/// One kind of items, ordered by published name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    entries: Vec<Named>,
}

/// An entry with its name beside it, where a search finds it.
type Named = (Arc<str>, Arc<Entry>);

impl Table {
    /// A table of these entries, each of another name.
    pub(super) fn of(entries: impl IntoIterator<Item = Arc<Entry>>) -> Self {
        let named = |entry: Arc<Entry>| (Arc::clone(&entry.published), entry);
        let mut entries: Vec<Named> = entries.into_iter().map(named).collect();
        // Stable, because it finds what is in order already: what one server lists.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Self { entries }
    }

    /// The entry of a published name.
    pub fn get(&self, published: &str) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|(name, _)| (**name).cmp(published));
        self.entries.get(found.ok()?).map(|(_, entry)| &**entry)
    }

    /// All entries in byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.after(None)
    }

    /// Entries whose name comes after `last`.
    pub fn after<'a>(&'a self, last: Option<&str>) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let start = last.map_or(0, |last| {
            self.entries.partition_point(|(name, _)| **name <= *last)
        });
        self.entries.iter().skip(start).map(|(_, entry)| &**entry)
    }
}
