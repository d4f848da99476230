//! Published items of one kind, ordered by their names.

use crate::protocol::mirror::Mirror;
use crate::upstreams::items::Hints;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// [`Entry::server`] of the gateway's own tools: no server has this position.
pub const GATEWAY: usize = usize::MAX;

/// One published item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Published name or URI.
    pub published: String,
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
            published: published.to_owned(),
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
    entries: BTreeMap<String, Entry>,
}

impl Table {
    /// A table of these entries by published name.
    pub(super) fn of(entries: BTreeMap<String, Entry>) -> Self {
        Self { entries }
    }

    /// The entry of a published name.
    pub fn get(&self, published: &str) -> Option<&Entry> {
        self.entries.get(published)
    }

    /// All entries in byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Entries whose name comes after `last`.
    pub fn after<'a>(&'a self, last: Option<&str>) -> impl Iterator<Item = &'a Entry> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = last.map_or(Unbounded, |last| Excluded(last.to_owned()));
        self.entries
            .range::<String, _>((start, Unbounded))
            .map(|(_, entry)| entry)
    }
}
