//! Calls of the gateway's own tools (data-plane.md 5.7): arguments, the session's scope, and the answer.

use super::FrontState;
use super::mcp::{Caller, refuse};
use super::methods::ok;
use crate::aggregation::meta::{self, MetaTool};
use crate::aggregation::user_lists::PerCaller;
use crate::aggregation::view::View;
use crate::protocol::message::Message;
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::sessions::store::{Change, StoreError};
use crate::upstreams::items::ItemKind;
use axum::response::Response;
use mcp_gateway_api::authorization::Purpose;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// Names that one `select_tools` may choose.
const MAX_SELECTED: usize = 250;

#[derive(Deserialize, Default)]
#[serde(default)]
struct CallParams {
    arguments: Value,
}

/// The tool that this message calls, when the caller sees it.
pub fn called(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Option<MetaTool> {
    let name = message.name.as_ref().filter(|_| message.method == "tools/call")?;
    let catalog = state.published.load();
    View::new(&catalog, &caller.selection)
        .calling(Purpose::Call(message.arguments.unwrap_or("{}")))
        .meta_tool(&name.value)
}

/// Answers a call.
pub async fn call(state: &FrontState, caller: &Caller, tool: MetaTool, message: &Message<'_>) -> Response {
    match answered(state, caller, tool, message).await {
        Ok(result) => ok(message, &result),
        Err(refusal) => refuse(&refusal, message.id),
    }
}

/// The result of a call.
pub(super) async fn answered(
    state: &FrontState,
    caller: &Caller,
    tool: MetaTool,
    message: &Message<'_>,
) -> Result<String, Refusal> {
    let params = serde_json::from_str::<CallParams>(message.params.unwrap_or("{}")).unwrap_or_default();
    let arguments = &params.arguments;
    let catalog = state.published.load();
    let own = PerCaller::merge(&catalog, &caller.own);
    let view = View::new(&catalog, &caller.selection).with(own.as_ref());
    let text = match tool {
        MetaTool::Discover => Ok(meta::discover(
            &view,
            arguments.get("category").and_then(Value::as_str),
        )),
        MetaTool::ListTags => Ok(meta::tags(&view)),
        MetaTool::FilterByTags => wanted_tags(arguments).map(|tags| meta::tagged(&view, &tags)),
        MetaTool::Select => match chosen(arguments, &view) {
            Err(error) => Err(error),
            Ok(names) => Ok(select(state, caller, names).await?),
        },
    };
    Ok(match text {
        Ok(text) => meta::result(&text, false),
        Err(error) => meta::result(error, true),
    })
}

fn wanted_tags(arguments: &Value) -> Result<Vec<String>, &'static str> {
    let tags = arguments.get("tags").ok_or("missing required parameter: tags")?;
    let tags = tags.as_array().ok_or("tags must be an array")?;
    if tags.is_empty() {
        return Err("tags must not be empty");
    }
    let text = |tag: &Value| match tag.as_str() {
        None => Err("tags must be an array of strings"),
        Some("") => Err("tags must not contain empty strings"),
        Some(tag) => Ok(tag.to_owned()),
    };
    tags.iter().map(text).collect()
}

/// The names to select: all of them are visible to the caller, or none is taken.
fn chosen(arguments: &Value, view: &View<'_>) -> Result<Vec<String>, &'static str> {
    let invalid = "invalid tools parameter";
    let tools = arguments.get("tools").and_then(Value::as_array).ok_or(invalid)?;
    if tools.len() > MAX_SELECTED {
        return Err("too many tools requested (max 250)");
    }
    let names: Option<BTreeSet<&str>> = tools.iter().map(Value::as_str).collect();
    let names = names.ok_or(invalid)?;
    let visible = |name: &&str| view.permit(ItemKind::Tool, name).is_some();
    if !names.iter().all(visible) {
        return Err("tool not available");
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// Keeps the scope; the notice to the session follows from the store's event, on whichever replica its stream is.
async fn select(state: &FrontState, caller: &Caller, names: Vec<String>) -> Result<String, Refusal> {
    let text = if names.is_empty() {
        serde_json::json!({"status": "scope reset to all tools"})
    } else {
        serde_json::json!({"status": format!("scope set to {} tools", names.len()), "tools": names})
    };
    let scope = Change::Scope((!names.is_empty()).then_some(names));
    let (jti, expires) = (caller.claims.jti, caller.claims.exp);
    match state.store.change(jti, expires, scope).await {
        Ok(record) if record.revoked => Err(crate::decision::message::session_not_found()),
        Ok(_) => Ok(text.to_string()),
        Err(StoreError::Full) => Err(Refusal::new(503, INTERNAL, "busy", "sessions").retry_after(1)),
        Err(StoreError::Unavailable) => {
            Err(Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1))
        }
    }
}
