//! Who may speak to the front at all: requests from origins and to hosts that are ours, by callers whose token is good where
//! one is asked for. Refusals are logged and counted here.

use super::FrontState;
use super::mcp::refuse;
use crate::auth::clock;
use crate::auth::jwt::Verified;
use crate::decision::{Head, access, head};
use crate::protocol::reply::{INVALID_REQUEST, Refusal};
use axum::response::Response;
use std::sync::Arc;

/// The verified caller of a request from an origin and to a host that are ours; `None` where nobody is verified.
///
/// # Errors
/// The refusal.
pub(super) async fn admitted(state: &FrontState, head: &Head) -> Result<Option<Arc<Verified>>, Response> {
    let refused = |refusal: &Refusal| {
        let metrics = &state.metrics;
        metrics.immediate(refusal.reason, refusal.status);
        metrics
            .refusals
            .refused(head.method(), refusal.reason, refusal.status);
        refuse(refusal, None)
    };
    if let Some(refusal) = foreign(state, head) {
        return Err(refused(&refusal));
    }
    let checked = state
        .authenticator
        .check(&head.all("authorization"), clock::now())
        .await;
    access::caller(checked, head, &state.published.load()).map_err(|refusal| refused(&refusal))
}

/// What a request from a foreign origin, or to a host that is not ours, is refused with.
pub(super) fn foreign(state: &FrontState, head: &Head) -> Option<Refusal> {
    let catalog = state.published.load();
    let origins = head.all("origin");
    let origin = match origins.as_slice() {
        [] => None,
        [origin] => Some(origin.as_str()),
        _ => Some("null"),
    };
    if !catalog.origins.allow(origin) {
        return Some(head::origin_refusal());
    }
    if !catalog.origins.allow_host(head.get("host").unwrap_or_default()) {
        let said = r#"{"hint":"add the name to publicHosts of the config"}"#;
        let refusal = Refusal::new(403, INVALID_REQUEST, "host not allowed", "host");
        return Some(refusal.with_data(said.to_owned()));
    }
    None
}
