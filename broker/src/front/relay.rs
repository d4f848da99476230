//! Messages of a client that concern several servers (data-plane.md 4.5, 10.2): the broker sends them by hairpin to the
//! backend sessions of the client session. Nothing here waits for a server before it answers the client.

use super::FrontState;
use super::mcp::{Caller, refuse};
use super::methods::{invalid_params, ok};
use crate::decision::Head;
use crate::decision::relay::LEVELS;
use crate::protocol::message::Message;
use crate::protocol::object::Object;
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::sessions::hairpin::forwarded;
use crate::sessions::leg::set_level_body;
use crate::sessions::store::{BackendSession, Change};
use crate::telemetry::relay_metrics::Direction;
use axum::response::Response;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const RELAY: Duration = Duration::from_secs(10);
/// Messages of this process that are under way to the servers of a session; past it they are dropped.
const MAX_UNDER_WAY: usize = 1024;
/// Servers of one session that are told at once.
const AT_ONCE: usize = 16;

/// Who may be under way.
pub struct Relays(Arc<Semaphore>);

impl Default for Relays {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_UNDER_WAY)))
    }
}

impl Relays {
    fn begin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// `logging/setLevel`: kept for the session, told to its open backend sessions, and to later ones when they open.
pub async fn set_level(
    state: &Arc<FrontState>,
    (caller, head): (&Caller, &Head),
    message: &Message<'_>,
) -> Response {
    #[derive(Deserialize)]
    struct LevelParams {
        level: String,
    }
    let params = serde_json::from_str::<LevelParams>(message.params.unwrap_or("{}"));
    let Some(level) = params
        .ok()
        .map(|params| params.level)
        .filter(|level| LEVELS.contains(&level.as_str()))
    else {
        return refuse(&invalid_params("level"), message.id);
    };
    let body = set_level_body(&level);
    let (jti, expires) = (caller.claims.jti, caller.claims.exp);
    match state.store.change(jti, expires, Change::Level(level)).await {
        Ok(record) => {
            let logging = record
                .backends
                .iter()
                .filter(|(_, backend)| backend.logging)
                .map(|(server, backend)| (server.clone(), backend.clone()))
                .collect();
            fan_out(state, logging, head, ("logging/setLevel", body));
            if let Some(opener) = &state.opener {
                opener.watchers.touch(caller.claims.jti);
            }
            ok(message, "{}")
        }
        Err(_) => refuse(
            &Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1),
            message.id,
        ),
    }
}

/// A notification that concerns every server of the session: `notifications/cancelled`, because those that do not know the
/// request ignore it, and `notifications/roots/list_changed` when the client has roots. Nobody else's sessions are touched.
pub async fn notify_all(
    state: &Arc<FrontState>,
    (caller, head): (&Caller, &Head),
    (message, body): (&Message<'_>, &[u8]),
) {
    let method = match message.method.as_ref() {
        "notifications/cancelled" => {
            let params = message.params.and_then(Object::read);
            if let Some(id) = params.as_ref().and_then(|params| params.get("requestId")) {
                state.running.cancel(caller.claims.jti, id);
            }
            "notifications/cancelled"
        }
        "notifications/roots/list_changed" if caller.claims.cap.contains('r') => {
            "notifications/roots/list_changed"
        }
        _ => return,
    };
    let Ok(body) = std::str::from_utf8(body) else {
        return;
    };
    if let Ok(backends) = state.store.backends(caller.claims.jti).await {
        fan_out(state, backends, head, (method, body.to_owned()));
    }
}

fn fan_out(
    state: &Arc<FrontState>,
    backends: Vec<(String, BackendSession)>,
    head: &Head,
    (method, body): (&'static str, String),
) {
    let Some(opener) = state.opener.clone().filter(|_| !backends.is_empty()) else {
        return;
    };
    let Some(permit) = state.relays.begin() else {
        tracing::debug!(
            component = "broker",
            method,
            "Message dropped, too many are under way"
        );
        return;
    };
    let catalog = state.published.load();
    let (headers, state) = (forwarded(&head.fields), Arc::clone(state));
    tokio::spawn(async move {
        let sends = backends.iter().filter_map(|(server, backend)| {
            let server = &catalog.server(server)?.config;
            if method.starts_with("notifications/") {
                state.metrics.relays.notices(method, Direction::ToServer, 1);
            }
            Some(opener.relay((server, backend), headers.clone(), (method, body.clone())))
        });
        let told = stream::iter(sends).for_each_concurrent(AT_ONCE, |told| told);
        let _ = timeout(RELAY, told).await;
        drop(permit);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_messages_to_all_servers_of_sessions_are_bounded_and_counted_back() {
        let relays = Relays::default();
        let mut under_way: Vec<_> = (0..MAX_UNDER_WAY).map(|_| relays.begin().unwrap()).collect();
        assert!(relays.begin().is_none());
        under_way.pop();
        assert!(relays.begin().is_some());
    }
}
