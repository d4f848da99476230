//! The gateway's own tools (data-plane.md 5.7): finding tools by category or tag, and choosing which ones the list shows.
//! Pure; what they keep is kept by who calls.

use super::catalog::{Catalog, Server};
use super::table::Entry;
use super::view::View;
use crate::protocol::json::quoted;
use crate::upstreams::items::ItemKind;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// `initialize` says so when the tools are on.
pub const INSTRUCTIONS: &str = "This server federates many MCP servers. When its tool list is long, call discover_tools to \
see which servers and tools there are, then select_tools with the names that the task needs; the tool list then shows \
those only. select_tools with an empty list shows all tools again.";
/// `server/discover` says so: without a session nothing can be selected.
pub const STATELESS_INSTRUCTIONS: &str = "This server federates many MCP servers. When its tool list is long, call \
discover_tools to see which servers and tools there are.";
/// Category of a server that names none.
const UNCATEGORISED: &str = "uncategorised";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaTool {
    /// `discover_tools`
    Discover,
    /// `filter_tools_by_tags`
    FilterByTags,
    /// `list_tags`
    ListTags,
    /// `select_tools`
    Select,
}

/// Whether and how they are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaSettings {
    /// They are there.
    pub enabled: bool,
    /// Above this many visible tools a list shows them alone, until `select_tools`; 0 never.
    pub threshold: usize,
}

impl MetaTool {
    /// All, by name.
    pub const ALL: [Self; 4] = [Self::Discover, Self::FilterByTags, Self::ListTags, Self::Select];

    /// Published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover_tools",
            Self::FilterByTags => "filter_tools_by_tags",
            Self::ListTags => "list_tags",
            Self::Select => "select_tools",
        }
    }

    /// The tool of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// Whether it is of use for servers of which some have tags.
    pub fn needs_tags(self) -> bool {
        matches!(self, Self::FilterByTags | Self::ListTags)
    }

    /// Definition as it is listed.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Discover => {
                r#"{"name":"discover_tools","title":"Discover tools","description":"Lists the MCP servers behind this gateway with their categories, a hint when to use them, and the names of their tools.","inputSchema":{"type":"object","properties":{"category":{"type":"string","description":"Only servers of this category"}}},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#
            }
            Self::FilterByTags => {
                r#"{"name":"filter_tools_by_tags","title":"Filter tools by tags","description":"Returns the definitions of the tools whose server has all of these tags.","inputSchema":{"type":"object","properties":{"tags":{"type":"array","items":{"type":"string"},"minItems":1}},"required":["tags"]},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#
            }
            Self::ListTags => {
                r#"{"name":"list_tags","title":"List tags","description":"Lists the tags of the MCP servers behind this gateway.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#
            }
            Self::Select => {
                r#"{"name":"select_tools","title":"Select tools","description":"Makes the tool list of this session show only the named tools; an empty list shows all again.","inputSchema":{"type":"object","properties":{"tools":{"type":"array","items":{"type":"string"},"maxItems":250}},"required":["tools"]},"annotations":{"readOnlyHint":false,"destructiveHint":false,"idempotentHint":true,"openWorldHint":false}}"#
            }
        }
    }

    /// Those that a catalog of these servers publishes.
    pub fn of<'a>(settings: MetaSettings, servers: &'a [Server]) -> impl Iterator<Item = Self> + 'a {
        let tagged = servers
            .iter()
            .any(|server| server.config.enabled && !server.config.tags.is_empty());
        Self::ALL
            .into_iter()
            .filter(move |tool| settings.enabled && (tagged || !tool.needs_tags()))
    }
}

#[derive(Serialize)]
struct Discovered<'a> {
    name: &'a str,
    categories: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
    tools: Vec<&'a str>,
}

fn categories(server: &Server) -> Vec<&str> {
    if server.config.category.is_empty() {
        vec![UNCATEGORISED]
    } else {
        server.config.category.iter().map(String::as_str).collect()
    }
}

/// Every tool that the caller may call, with its server.
fn callable<'a>(view: &View<'a>, catalog: &'a Catalog) -> impl Iterator<Item = (&'a Server, &'a Entry)> {
    view.visible(ItemKind::Tool)
        .filter_map(|entry| Some((catalog.server_of(entry)?, entry)))
}

/// The text of `discover_tools`.
pub fn discover(view: &View<'_>, category: Option<&str>) -> String {
    let catalog = view.catalog();
    let wanted = category.map(str::to_lowercase);
    let mut servers: BTreeMap<&str, Discovered<'_>> = BTreeMap::new();
    for (server, entry) in callable(view, catalog) {
        let of = categories(server);
        let matches = wanted
            .as_ref()
            .is_none_or(|wanted| of.iter().any(|category| category.to_lowercase() == *wanted));
        if matches {
            let found = servers.entry(&server.config.name).or_insert_with(|| Discovered {
                name: &server.config.name,
                categories: of,
                hint: &server.config.hint,
                tools: Vec::new(),
            });
            found.tools.push(&entry.published);
        }
    }
    let servers: Vec<Discovered<'_>> = servers.into_values().collect();
    let servers = serde_json::to_string(&servers).expect("plain strings and lists");
    format!(r#"{{"servers":{servers}}}"#)
}

/// The text of `list_tags`.
pub fn tags(view: &View<'_>) -> String {
    let catalog = view.catalog();
    let tags: BTreeSet<&str> = callable(view, catalog)
        .flat_map(|(server, _)| server.config.tags.iter().map(String::as_str))
        .collect();
    serde_json::json!(tags).to_string()
}

/// The text of `filter_tools_by_tags`: whole definitions, as the list shows them.
pub fn tagged(view: &View<'_>, wanted: &[String]) -> String {
    let catalog = view.catalog();
    let mut text = String::from("[");
    for (server, entry) in callable(view, catalog) {
        if wanted.iter().all(|tag| server.config.tags.contains(tag)) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&entry.definition);
        }
    }
    text.push(']');
    text
}

/// The `result` of a tool call that says `text`.
pub fn result(text: &str, is_error: bool) -> String {
    let error = if is_error { r#","isError":true"# } else { "" };
    format!(
        r#"{{"content":[{{"type":"text","text":{}}}]{error}}}"#,
        quoted(text)
    )
}
