//! The four kinds of items, and how the protocol names them.

/// Kinds of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Tool, by name.
    Tool,
    /// Prompt, by name.
    Prompt,
    /// Resource, by URI.
    Resource,
    /// Resource template, by URI template.
    Template,
}

impl ItemKind {
    /// All kinds, in the order of lists.
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// The kind that this method lists.
    pub fn listed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.list_method() == method)
    }

    /// Method that lists the kind.
    pub fn list_method(self) -> &'static str {
        match self {
            Self::Tool => "tools/list",
            Self::Prompt => "prompts/list",
            Self::Resource => "resources/list",
            Self::Template => "resources/templates/list",
        }
    }

    /// Member of the list result.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }

    /// The word in messages and in `conflicts[].kind`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resourceTemplate",
        }
    }

    /// Member that identifies an item.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// Whether items are known by names; else it is by URIs.
    pub fn is_named(self) -> bool {
        matches!(self, Self::Tool | Self::Prompt)
    }
}
