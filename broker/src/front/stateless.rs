//! Requests without a session that the gateway answers itself (data-plane.md 4.7): discovery, lists, its own tools. What
//! belongs to a server never gets an answer here: it came by the wrong way.

use super::FrontState;
use super::mcp::{Caller, json, plain, refuse, with_result};
use super::{listen, meta_tools, methods};
use crate::aggregation::meta::STATELESS_INSTRUCTIONS;
use crate::aggregation::user_lists::{self, Own};
use crate::auth::clock;
use crate::auth::pool::Pool;
use crate::decision::stateless::{check, is_routed, pool_of};
use crate::decision::user_token::behalf;
use crate::decision::{Head, bridge, selection};
use crate::protocol::json::quoted;
use crate::protocol::message::{Message, MessageKind};
use crate::protocol::reply::{INTERNAL, INVALID_REQUEST, Refusal, result};
use crate::protocol::version;
use crate::sessions::hairpin::forwarded;
use crate::upstreams::items::{CacheHints, ItemKind};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use uuid::Uuid;

/// What is answered here or by servers. Resources are subscribed to by listening.
const CAPABILITIES: &str = r#"{"completions":{},"logging":{},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true}}"#;

/// Answers a message of this revision.
pub async fn answer(state: &Arc<FrontState>, head: &Head, message: &Message<'_>) -> Response {
    match message.kind {
        MessageKind::Request => {}
        MessageKind::Notification => return plain(StatusCode::ACCEPTED, ""),
        MessageKind::Response => {
            let refusal = Refusal::new(400, INVALID_REQUEST, "unknown request id", "response");
            return refuse(&refusal, message.id);
        }
    }
    if let Err(refusal) = check(head, message) {
        return refuse(&refusal, message.id);
    }
    let caller = caller(state, head, message).await;
    if message.method == "subscriptions/listen" {
        return listen::open(state, head, caller, message)
            .unwrap_or_else(|refusal| refuse(&refusal, message.id));
    }
    if let Some(kind) = ItemKind::listed_by(&message.method) {
        return match methods::listed(state, &caller, kind, message) {
            Ok(page) => {
                let hints = hints(state, &caller, kind);
                let first = bridge::complete("{}", Some((hints.ttl_ms, hints.private)));
                with_result(message.id.unwrap_or("null"), page.pieces(&first))
            }
            Err(refusal) => refuse(&refusal, message.id),
        };
    }
    match answered(state, &caller, message).await {
        Ok(body) => json(StatusCode::OK, result(message.id.unwrap_or("null"), &body)),
        Err(refusal) => refuse(&refusal, message.id),
    }
}

async fn answered(state: &FrontState, caller: &Caller, message: &Message<'_>) -> Result<String, Refusal> {
    if let Some(tool) = meta_tools::called(state, caller, message) {
        let body = meta_tools::answered(state, caller, tool, message).await?;
        return Ok(bridge::complete(&body, None));
    }
    match message.method.as_ref() {
        "server/discover" => Ok(discover(state)),
        "completion/complete" => {
            methods::completed(state, caller, message).map(|body| bridge::complete(body, None))
        }
        method if is_routed(method) => {
            let what = "call must go through the gateway";
            Err(Refusal::new(200, INTERNAL, what, "direct"))
        }
        _ => Err(Refusal::new(500, INTERNAL, "internal error", "method")),
    }
}

/// The same for every caller, and for as long as the process runs.
fn discover(state: &FrontState) -> String {
    let instructions = if state.published.load().meta.enabled {
        format!(r#","instructions":{}"#, quoted(STATELESS_INSTRUCTIONS))
    } else {
        String::new()
    };
    let versions: Vec<String> = version::SERVED.into_iter().map(quoted).collect();
    let body = format!(
        r#"{{"supportedVersions":[{}],"capabilities":{CAPABILITIES}{instructions}}}"#,
        versions.join(",")
    );
    bridge::complete(&body, Some((0, true)))
}

/// How long a list may be kept, and by whom: as the servers say that contribute to it, and never by others when it
/// depends on who asks. The same for all pages.
fn hints(state: &FrontState, caller: &Caller, kind: ItemKind) -> CacheHints {
    let catalog = state.published.load();
    let config = catalog.config.snapshot.as_deref();
    let policies = config.is_some_and(|config| !config.policies.is_empty());
    let personal = policies || !caller.own.is_empty() || caller.selection.is_personal();
    let served = catalog.servers.iter().filter(|server| server.snapshot.served);
    let said = served.map(|server| server.snapshot.items.of(kind).cache.unwrap_or_default());
    let joined = said.reduce(CacheHints::joined).unwrap_or_default();
    CacheHints {
        private: joined.private || personal || joined.ttl_ms == 0,
        ..joined
    }
}

/// Who calls, with what servers list for this caller alone.
async fn caller(state: &FrontState, head: &Head, message: &Message<'_>) -> Caller {
    let now = clock::now();
    let pool = pool_of(head, &state.keys, (now, Uuid::new_v4()));
    let catalog = state.published.load();
    let own = match &pool {
        Pool::Caller(claims) if methods::shows_items(message) && user_lists::wanted(&catalog) => {
            let headers = forwarded(&head.fields);
            let behalf = behalf(head, &state.keys, claims, now);
            state.user_lists.fetch(&catalog, &behalf, &headers).await
        }
        _ => Own::default(),
    };
    let mut selection = selection(head, &state.rules, now);
    selection.stateless = true;
    Caller {
        claims: pool.claims().clone(),
        selection,
        own,
    }
}
