//! What one caller sees (data-plane.md 5.6): every stage only removes, and the same stages decide lists and calls (S9).
//! Only a view hands out a [`Permit`], and only with a permit is anything forwarded.

use super::catalog::{Catalog, Entry, Server};
use crate::config::model::VirtualServer;
use crate::protocol::uri_template;
use crate::upstreams::items::ItemKind;

/// The inputs of the stages, as they came with the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Values of `x-mcp-virtualserver`.
    pub virtual_server: Vec<String>,
    /// `x-mcp-authorized` is present, or its use is enforced. This build cannot verify it, so nothing is visible then.
    pub capabilities: bool,
}

enum Scope<'a> {
    All,
    Nothing,
    Only(&'a VirtualServer),
}

/// The catalog through the caller's filters.
pub struct View<'a> {
    catalog: &'a Catalog,
    scope: Scope<'a>,
}

/// Proof that the pipeline lets this caller use this item.
pub struct Permit<'a> {
    entry: &'a Entry,
    server: &'a Server,
    target: String,
}

impl<'a> Permit<'a> {
    /// The item.
    pub fn entry(&self) -> &'a Entry {
        self.entry
    }

    /// The server's own name or URI of what is used.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its server.
    pub fn server(&self) -> &'a Server {
        self.server
    }
}

impl<'a> View<'a> {
    /// The view of a caller with these inputs.
    pub fn new(catalog: &'a Catalog, selection: &Selection) -> Self {
        let Some(config) = catalog.config.snapshot.as_deref() else {
            return Self {
                catalog,
                scope: Scope::Nothing,
            };
        };
        let scope = match selection.virtual_server.as_slice() {
            _ if config.closed.everything || selection.capabilities => Scope::Nothing,
            [] => Scope::All,
            [name] if config.closed.virtual_servers.contains(name) => Scope::Nothing,
            [name] => config
                .virtual_servers
                .get(name)
                .map_or(Scope::Nothing, Scope::Only),
            _ => Scope::Nothing,
        };
        Self { catalog, scope }
    }

    /// The catalog behind it.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    fn allows(&self, kind: ItemKind, entry: &Entry) -> bool {
        let listed = match (&self.scope, kind) {
            (Scope::All, _) => true,
            (Scope::Nothing, _) => false,
            (Scope::Only(server), ItemKind::Tool) => server.tools.contains(&entry.published),
            (Scope::Only(server), ItemKind::Prompt) => server
                .prompts
                .as_ref()
                .is_none_or(|names| names.contains(&entry.published)),
            (Scope::Only(server), ItemKind::Resource | ItemKind::Template) => server
                .resources
                .as_ref()
                .is_none_or(|names| names.contains(&entry.published)),
        };
        listed && !self.is_closed(entry)
    }

    fn is_closed(&self, entry: &Entry) -> bool {
        let closed = self
            .catalog
            .config
            .snapshot
            .as_deref()
            .map(|config| &config.closed.servers);
        let server = self.catalog.server_of(entry);
        closed
            .zip(server)
            .is_none_or(|(closed, server)| closed.contains(&server.config.name))
    }

    /// Visible entries in list order, after `last`.
    pub fn list(&self, kind: ItemKind, last: Option<&str>) -> impl Iterator<Item = &'a Entry> {
        self.catalog
            .table(kind)
            .after(last)
            .filter(move |entry| self.allows(kind, entry))
    }

    /// Permission to use a published name; a hidden one is answered as an unknown one.
    pub fn permit(&self, kind: ItemKind, published: &str) -> Option<Permit<'a>> {
        let entry = self
            .catalog
            .table(kind)
            .get(published)
            .filter(|entry| self.allows(kind, entry))?;
        Some(Permit {
            entry,
            server: self.catalog.server_of(entry)?,
            target: entry.original.clone(),
        })
    }

    /// Permission to use a URI (data-plane.md 5.5): the resource itself, else the template with the most literal
    /// characters. Two servers whose templates are equally good give none.
    pub fn permit_uri(&self, uri: &str) -> Option<Permit<'a>> {
        if let Some(permit) = self.permit(ItemKind::Resource, uri) {
            return Some(permit);
        }
        // An exact URI that is hidden from this caller stays hidden, whatever template would cover it.
        if self.catalog.table(ItemKind::Resource).get(uri).is_some() {
            return None;
        }
        let matching = self
            .list(ItemKind::Template, None)
            .filter_map(|entry| uri_template::covers(&entry.original, uri).map(|literals| (literals, entry)));
        let matching: Vec<(usize, &'a Entry)> = matching.collect();
        let (best, entry) = matching.iter().max_by_key(|(literals, _)| *literals)?;
        let rivals = matching
            .iter()
            .any(|(literals, rival)| literals == best && rival.server != entry.server);
        let server = self.catalog.server_of(entry).filter(|_| !rivals)?;
        Some(Permit {
            entry,
            server,
            target: uri.to_owned(),
        })
    }
}
