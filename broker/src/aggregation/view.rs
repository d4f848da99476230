//! What one caller sees (data-plane.md 5.6): every stage only removes, and the same stages decide lists and calls (S9).
//! Only a view hands out a [`Permit`], and only with a permit is anything forwarded.

use super::catalog::{Catalog, Server};
use super::meta::MetaTool;
use super::table::{Entry, GATEWAY};
use super::user_lists::PerCaller;
use crate::auth::capabilities::Capabilities;
use crate::auth::jwt::Verified;
use crate::config::model::VirtualServer;
use crate::protocol::uri_template;
use crate::upstreams::items::ItemKind;
use mcp_gateway_api::authorization::{self, Outcome, Purpose};
use std::borrow::Cow;
use std::sync::Arc;

/// The inputs of the stages, as they came with the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Values of `x-mcp-virtualserver`.
    pub virtual_server: Vec<String>,
    /// The caller, when the token of this request was verified.
    pub caller: Option<Arc<Verified>>,
    /// What `x-mcp-authorized` says.
    pub capabilities: Capabilities,
    /// What `select_tools` chose. It shapes the list, it does not decide what may be called.
    pub scope: Option<Arc<Vec<String>>>,
    /// The caller has no session, so nothing can be chosen for one.
    pub stateless: bool,
}

impl Selection {
    /// True when what the caller sees may differ from what others see.
    pub fn is_personal(&self) -> bool {
        !self.virtual_server.is_empty()
            || self.caller.is_some()
            || self.scope.is_some()
            || self.capabilities != Capabilities::Unfiltered
    }
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
    selection: &'a Selection,
    /// Lists of the caller's own.
    own: Option<&'a PerCaller>,
    /// A resource that the caller was given a link to.
    link: Option<&'a Entry>,
    /// What the caller wants with what is asked for by name.
    purpose: Purpose<'a>,
}

/// What of the visible tools the list shows.
enum Shape<'a> {
    All,
    OwnTools,
    Selected(&'a [String]),
}

/// Proof that the pipeline lets this caller use this item.
pub struct Permit<'a> {
    entry: &'a Entry,
    server: &'a Server,
    target: String,
    outcome: Outcome,
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

    /// What let it pass: a rule of a policy, or that no policy concerns it.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Its server.
    pub fn server(&self) -> &'a Server {
        self.server
    }
}

impl<'a> View<'a> {
    /// The view of a caller with these inputs.
    pub fn new(catalog: &'a Catalog, selection: &'a Selection) -> Self {
        let servers = catalog
            .config
            .snapshot
            .as_deref()
            .map(|config| &config.virtual_servers);
        let scope = match (servers, selection.virtual_server.as_slice()) {
            (None, _) => Scope::Nothing,
            _ if selection.capabilities == Capabilities::Nothing => Scope::Nothing,
            (Some(_), []) => Scope::All,
            (Some(servers), [name]) => servers.get(name).map_or(Scope::Nothing, Scope::Only),
            _ => Scope::Nothing,
        };
        Self {
            catalog,
            scope,
            selection,
            own: None,
            link: None,
            purpose: Purpose::List,
        }
    }

    /// The view of somebody who calls with these arguments, as they came.
    #[must_use]
    pub fn calling(self, purpose: Purpose<'a>) -> Self {
        Self { purpose, ..self }
    }

    /// The same, with lists of the caller's own behind the shared ones.
    #[must_use]
    pub fn with(self, own: Option<&'a PerCaller>) -> Self {
        Self { own, ..self }
    }

    /// The same, for somebody who was given a link to this resource.
    #[must_use]
    pub fn linked(self, link: Option<&'a Entry>) -> Self {
        Self { link, ..self }
    }

    fn entry(&self, kind: ItemKind, published: &str) -> Option<&'a Entry> {
        let own = || self.own.and_then(|own| own.table(kind).get(published));
        self.catalog.table(kind).get(published).or_else(own)
    }

    /// All entries after `last` by name, shared ones and the caller's own.
    fn entries(&self, kind: ItemKind, last: Option<&str>) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        let shared = self.catalog.table(kind).after(last);
        match self.own {
            None => Box::new(shared),
            Some(own) => {
                let mut all: Vec<&'a Entry> = shared.chain(own.table(kind).after(last)).collect();
                all.sort_unstable_by(|a, b| a.published.cmp(&b.published));
                Box::new(all.into_iter())
            }
        }
    }

    /// True when what the caller sees depends on nothing but the catalog, the virtual server, the verified token and whether
    /// there is a session.
    pub fn is_repeatable(&self) -> bool {
        let selection = self.selection;
        self.own.is_none()
            && selection.scope.is_none()
            && selection.capabilities == Capabilities::Unfiltered
            && !matches!(self.scope, Scope::Nothing)
    }

    /// The catalog behind it.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    fn in_scope(&self, kind: ItemKind, published: &str) -> bool {
        match (&self.scope, kind) {
            (Scope::All, _) => true,
            (Scope::Nothing, _) => false,
            (Scope::Only(server), ItemKind::Tool) => server.tools.contains(published),
            (Scope::Only(server), ItemKind::Prompt) => server
                .prompts
                .as_ref()
                .is_none_or(|names| names.contains(published)),
            (Scope::Only(server), ItemKind::Resource | ItemKind::Template) => server
                .resources
                .as_ref()
                .is_none_or(|names| names.contains(published)),
        }
    }

    /// Whether a caller of this era can use the item.
    fn fits(&self, entry: &Entry) -> bool {
        let chooses = entry.server == GATEWAY && *entry.published == *MetaTool::Select.name();
        !self.selection.stateless || (entry.mirrors.is_ok() && !chooses)
    }

    /// Whether `x-mcp-authorized` allows an item of a server; it says nothing about the gateway's own tools.
    fn is_authorized(&self, kind: ItemKind, entry: &Entry) -> bool {
        let Capabilities::Only(allowed) = &self.selection.capabilities else {
            return true;
        };
        let by_server = match kind {
            ItemKind::Tool => &allowed.tools,
            ItemKind::Prompt => &allowed.prompts,
            ItemKind::Resource | ItemKind::Template => &allowed.resources,
        };
        let Some(by_server) = by_server else { return true };
        self.catalog
            .server_of(entry)
            .and_then(|server| by_server.get(&server.config.name))
            .is_some_and(|names| names.contains(&entry.original))
    }

    /// What the policies say about the server's own name or URI `name` of this entry.
    fn judged(&self, kind: ItemKind, entry: &Entry, name: &str) -> Option<Outcome> {
        let config = self.catalog.config.snapshot.as_deref()?;
        let item = authorization::Item {
            kind: match kind {
                ItemKind::Tool => authorization::ItemKind::Tool,
                ItemKind::Prompt => authorization::ItemKind::Prompt,
                ItemKind::Resource | ItemKind::Template => authorization::ItemKind::Resource,
            },
            // The gateway's own tools have a name in rules, too (operator.md 10.2).
            server: match entry.server {
                GATEWAY => authorization::GATEWAY_SERVER,
                _ => &self.catalog.server_of(entry)?.config.name,
            },
            name,
            annotations: entry.annotations.as_deref(),
        };
        let request = authorization::Request {
            claims: self.selection.caller.as_ref().map(|caller| &*caller.claims),
            virtual_server: self.selection.virtual_server.first().map(String::as_str),
            purpose: self.purpose,
        };
        Some(config.policies.decide(&request, &item))
    }

    fn allows(&self, kind: ItemKind, entry: &Entry) -> bool {
        self.in_scope(kind, &entry.published)
            && self.fits(entry)
            && (entry.server == GATEWAY || self.is_authorized(kind, entry))
            && self
                .judged(kind, entry, &entry.original)
                .is_some_and(|outcome| outcome.permits())
    }

    fn permit_entry(&self, kind: ItemKind, entry: &'a Entry, target: &str) -> Option<Permit<'a>> {
        (self.is_authorized(kind, entry) && self.fits(entry)).then_some(())?;
        let outcome = self.judged(kind, entry, target)?;
        Some(Permit {
            entry,
            server: self.catalog.server_of(entry)?,
            target: target.to_owned(),
            outcome: outcome.permits().then_some(outcome)?,
        })
    }

    /// What the list shows, in its order, after `last`.
    pub fn list(&self, kind: ItemKind, last: Option<&str>) -> impl Iterator<Item = &'a Entry> {
        let shape = self.shape(kind);
        self.entries(kind, last)
            .filter(move |entry| self.allows(kind, entry))
            .filter(move |entry| match &shape {
                _ if entry.server == GATEWAY => true,
                Shape::All => true,
                Shape::OwnTools => false,
                Shape::Selected(names) => names
                    .binary_search_by(|name| (**name).cmp(&entry.published))
                    .is_ok(),
            })
    }

    /// Everything that the caller may use, whether the list shows it or not.
    pub fn visible(&self, kind: ItemKind) -> impl Iterator<Item = &'a Entry> {
        self.entries(kind, None)
            .filter(move |entry| self.allows(kind, entry))
    }

    fn shape(&self, kind: ItemKind) -> Shape<'a> {
        let meta = self.catalog.meta;
        if kind != ItemKind::Tool || !meta.enabled {
            return Shape::All;
        }
        if let Some(names) = &self.selection.scope {
            return Shape::Selected(names);
        }
        let of_servers = || self.visible(kind).filter(|entry| entry.server != GATEWAY);
        if meta.threshold > 0 && of_servers().nth(meta.threshold).is_some() {
            return Shape::OwnTools;
        }
        Shape::All
    }

    /// The gateway's own tool of this name, when it is published and visible.
    pub fn meta_tool(&self, name: &str) -> Option<MetaTool> {
        let entry = self.catalog.table(ItemKind::Tool).get(name)?;
        let own = entry.server == GATEWAY && self.allows(ItemKind::Tool, entry);
        own.then(|| MetaTool::named(name)).flatten()
    }

    /// Permission to use a published name; a hidden one is answered as an unknown one.
    pub fn permit(&self, kind: ItemKind, published: &str) -> Option<Permit<'a>> {
        let entry = self.entry(kind, published)?;
        self.in_scope(kind, &entry.published).then_some(())?;
        self.permit_entry(kind, entry, &entry.original)
    }

    /// What the policies have against an item that exists and is in scope: for the audit record. The caller may know
    /// only that an item of the list is refused with these arguments ([`Outcome::Refused`]).
    pub fn denial(&self, kind: ItemKind, published: &str) -> Option<Outcome> {
        if let Some(entry) = self.entry(kind, published) {
            self.in_scope(kind, &entry.published).then_some(())?;
            return self.denied(kind, entry, &entry.original);
        }
        let (template, own) = self.covering(published).filter(|_| kind == ItemKind::Resource)?;
        self.denied(ItemKind::Template, template, &own)
    }

    fn denied(&self, kind: ItemKind, entry: &Entry, name: &str) -> Option<Outcome> {
        let outcome = self.judged(kind, entry, name)?;
        let listed = self.is_authorized(kind, entry) && self.fits(entry);
        match outcome {
            Outcome::Refused(denial) if !listed => Some(Outcome::Denied(denial)),
            Outcome::Denied(_) | Outcome::Refused(_) => Some(outcome),
            Outcome::Open | Outcome::Allowed { .. } => None,
        }
    }

    /// The server whose list for this caller alone could hold a name that no list has, while the person's token for it, which
    /// the list needs, may be missing.
    pub fn unlisted(&self, kind: ItemKind, published: &str) -> Option<&'a Server> {
        let could_hold = |(at, server): (usize, &'a Server)| {
            let config = &server.config;
            let lists = config.enabled && config.user_specific_list && config.token_url_elicitation.is_some();
            let original = published.strip_prefix(config.prefix.as_str());
            let original = original.filter(|_| lists && kind.is_named())?;
            let entry = Entry::unlisted(published, original.to_owned(), at);
            self.allows(kind, &entry).then_some(server)
        };
        self.catalog.servers.iter().enumerate().find_map(could_hold)
    }

    /// Permission to use a published URI (data-plane.md 5.5): the resource itself, else the template with the most literal
    /// characters, else what the caller was given a link to. Two servers whose templates are equally good give none. Policies judge
    /// the server's own URI, not the template.
    pub fn permit_uri(&self, uri: &str) -> Option<Permit<'a>> {
        if let Some(permit) = self.permit(ItemKind::Resource, uri) {
            return Some(permit);
        }
        // An exact URI that is hidden from this caller stays hidden, whatever template would cover it.
        if self.entry(ItemKind::Resource, uri).is_some() {
            return None;
        }
        if let Some((entry, own)) = self.covering(uri) {
            return self.permit_entry(ItemKind::Template, entry, &own);
        }
        let link = self.link.filter(|link| *link.published == *uri)?;
        let reachable = self.is_unlisted(uri) && self.in_scope(ItemKind::Resource, &link.published);
        reachable.then(|| self.permit_entry(ItemKind::Resource, link, &link.original))?
    }

    /// True for a URI that no resource has and no template covers, hidden ones included: only a link can lead to it.
    pub fn is_unlisted(&self, uri: &str) -> bool {
        let covers = |entry: &Entry| uri_template::covers(&entry.published, uri).is_some();
        self.entry(ItemKind::Resource, uri).is_none() && !self.entries(ItemKind::Template, None).any(covers)
    }

    /// The template in scope that covers a URI with the most literal characters, and the server's own form of the URI; none when
    /// two servers have equally good templates.
    fn covering<'u>(&self, uri: &'u str) -> Option<(&'a Entry, Cow<'u, str>)> {
        let templates = self.entries(ItemKind::Template, None);
        let matching: Vec<(usize, &'a Entry)> = templates
            .filter(|entry| self.in_scope(ItemKind::Template, &entry.published))
            .filter_map(|entry| uri_template::covers(&entry.published, uri).map(|literals| (literals, entry)))
            .collect();
        let (best, entry) = matching.iter().max_by_key(|(literals, _)| *literals)?;
        let rivals = matching
            .iter()
            .any(|(literals, rival)| literals == best && rival.server != entry.server);
        let uris = self.catalog.server_of(entry)?.config.uris.as_ref();
        let own = uris.map_or(Some(uri.into()), |uris| uris.original(uri))?;
        (!rivals).then_some((*entry, own))
    }
}
