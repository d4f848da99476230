//! Which item a message is about: the member that names it, and the permission to use it (data-plane.md 4.5, 5.5).

use super::Facts;
use crate::aggregation::catalog::{Catalog, Server};
use crate::aggregation::user_lists::PerCaller;
use crate::aggregation::view::{Permit, View};
use crate::protocol::header;
use crate::protocol::json::quoted;
use crate::protocol::message::{Message, Routed};
use crate::protocol::reply::{INVALID_PARAMS, Refusal};
use crate::upstreams::items::ItemKind;
use mcp_gateway_api::authorization::Purpose;

/// A routed message's target.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Kind that the answer to an unknown name speaks of.
    pub kind: ItemKind,
    /// `route` in the metadata.
    pub route: &'static str,
    /// Header with the original name.
    pub name_header: &'static str,
    /// Member of the metadata with the original name.
    pub member: &'static str,
    /// The naming member of the message.
    pub name: &'a Routed<'a>,
    /// The message is `completion/complete`.
    pub completion: bool,
}

/// True for methods that are routed to the server of the item that they name.
pub fn is_routed(method: &str) -> bool {
    route_of(method).is_some()
}

fn route_of(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" => Some("tool-call"),
        "prompts/get" => Some("prompt-get"),
        "resources/read" => Some("resource-read"),
        "resources/subscribe" | "resources/unsubscribe" => Some("subscription"),
        "completion/complete" => Some("completion"),
        _ => None,
    }
}

/// Finds the target of a routed message.
///
/// # Errors
/// The refusal when the naming member is missing.
pub fn target<'a>(message: &'a Message<'a>) -> Result<Target<'a>, Refusal> {
    let missing = |what: &str| Refusal::new(200, INVALID_PARAMS, what, "params");
    let route = route_of(&message.method).ok_or_else(|| missing("invalid method"))?;
    let named = |kind, name_header, member, name| Target {
        kind,
        route,
        name_header,
        member,
        name,
        completion: route == "completion",
    };
    match message.method.as_ref() {
        "tools/call" => {
            let name = message
                .name
                .as_ref()
                .ok_or_else(|| missing("missing params.name"))?;
            Ok(named(ItemKind::Tool, header::TOOL_NAME, "tool", name))
        }
        "prompts/get" => {
            let name = message
                .name
                .as_ref()
                .ok_or_else(|| missing("missing params.name"))?;
            Ok(named(ItemKind::Prompt, header::PROMPT_NAME, "prompt", name))
        }
        "completion/complete" => {
            let reference = message.reference.as_ref().ok_or_else(|| missing("invalid ref"))?;
            match (reference.kind.as_deref(), &reference.name, &reference.uri) {
                (Some("ref/prompt"), Some(name), _) => {
                    Ok(named(ItemKind::Prompt, header::PROMPT_NAME, "prompt", name))
                }
                (Some("ref/resource"), _, Some(uri)) => {
                    Ok(named(ItemKind::Template, header::RESOURCE_URI, "resource", uri))
                }
                _ => Err(missing("invalid ref")),
            }
        }
        _ => {
            let uri = message
                .uri
                .as_ref()
                .ok_or_else(|| missing("missing params.uri"))?;
            Ok(named(ItemKind::Resource, header::RESOURCE_URI, "resource", uri))
        }
    }
}

impl Target<'_> {
    /// What the caller may use with this message. Subscriptions and completions do no more than look at an item.
    pub fn view<'c>(
        &self,
        message: &Message<'c>,
        (catalog, facts): (&'c Catalog, &'c Facts),
        own: Option<&'c PerCaller>,
    ) -> View<'c> {
        let purpose = match message.method.as_ref() {
            "tools/call" | "prompts/get" => Purpose::Call(message.arguments.unwrap_or("{}")),
            "resources/read" => Purpose::Call("{}"),
            _ => Purpose::List,
        };
        View::new(catalog, &facts.selection).with(own).calling(purpose)
    }

    /// The permission of this caller, if there is one.
    pub fn permit<'c>(&self, view: &View<'c>) -> Option<Permit<'c>> {
        let name = self.name.value.as_ref();
        match self.kind {
            ItemKind::Tool | ItemKind::Prompt => view.permit(self.kind, name),
            ItemKind::Template => view
                .permit(ItemKind::Template, name)
                .or_else(|| view.permit(ItemKind::Resource, name)),
            ItemKind::Resource => view.permit_uri(name),
        }
    }

    /// The server of the shared item that has exactly this name, whether the caller may use it or not.
    pub fn server<'c>(&self, catalog: &'c Catalog) -> Option<&'c Server> {
        let entry = catalog.table(self.kind).get(self.name.value.as_ref())?;
        catalog.server_of(entry)
    }

    /// The answer to a name that is unknown or hidden: the two look alike.
    pub fn unknown(&self) -> Refusal {
        let name = &self.name.value;
        let refusal = |text: String| Refusal::new(200, INVALID_PARAMS, text, "unknown");
        match self.kind {
            ItemKind::Tool => refusal(format!("Unknown tool: {name}")),
            ItemKind::Prompt => refusal(format!("Unknown prompt: {name}")),
            ItemKind::Resource | ItemKind::Template => {
                refusal("Resource not found".to_owned()).with_data(format!(r#"{{"uri":{}}}"#, quoted(name)))
            }
        }
    }
}
