//! HTTP of the broker: the MCP edge (`mcp`), streams of clients (`streams`), OAuth metadata, status, repair of failed
//! replies, the admin listener; calls themselves where no Envoy carries them (`forwarding`). It reads the same catalog as the
//! router and never talks to it.

pub mod admin;
mod admitted;
mod body;
pub mod channel;
pub mod forwarding;
pub mod listen;
pub mod listener;
pub mod mcp;
pub mod meta_tools;
pub mod metadata;
pub mod methods;
mod noting;
pub mod older;
mod outgoing;
pub mod passing;
pub mod patience;
pub mod questions;
pub mod relay;
pub mod repair;
pub mod rounds;
pub mod running;
mod sent;
pub mod slots;
mod span;
mod stalling;
pub mod stateless;
pub mod status;
pub mod streams;
pub mod tls;
pub mod tokens;
pub mod unsolicited;
pub mod updates;

use crate::aggregation::federation::Published;
use crate::aggregation::user_lists::UserLists;
use crate::auth::keys::Keys;
use crate::authn::Authenticator;
use crate::decision::Rules;
use crate::options::OauthOptions;
use crate::pipeline::asked::Asked;
use crate::sessions::kept::KeptCalls;
use crate::sessions::opener::Opener;
use crate::sessions::store::SessionStore;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Everything that the handlers work with.
pub struct FrontState {
    /// Catalogs.
    pub published: Arc<Published>,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Check of the callers' tokens.
    pub authenticator: Arc<Authenticator>,
    /// Sessions.
    pub store: Arc<SessionStore>,
    /// Lists of callers.
    pub user_lists: Arc<UserLists>,
    /// Backend sessions; `None` without a hairpin.
    pub opener: Option<Arc<Opener>>,
    /// Forwards calls to the servers; `None` where Envoy does.
    pub forwarding: Option<forwarding::Forwarding>,
    /// Calls that may have to be sent once more.
    pub kept: Arc<KeptCalls>,
    /// Questions of servers to clients.
    pub asked: Arc<Asked>,
    /// Traces.
    pub traces: Traces,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Certificate of the listener.
    pub tls: Arc<tls::ServingPair>,
    /// Clients of 2024-11-05.
    pub older: older::OlderClients,
    /// The front is reached from other machines, without a proxy that it belongs to.
    pub exposed: bool,
    /// GET streams of clients.
    pub streams: streams::Streams,
    /// Streams of clients without a session.
    pub listeners: listen::Listeners,
    /// Questions of servers without sessions that clients have not answered yet.
    pub questions: questions::Questions,
    /// Messages that are under way to all servers of a session.
    pub relays: relay::Relays,
    /// Calls that are held open.
    pub running: running::RunningCalls,
    /// Streams of backend sessions that may be open at once.
    pub unsolicited: Arc<Semaphore>,
    /// Servers that are listened to on behalf of clients without a session.
    pub updates: Arc<Semaphore>,
    /// Health.
    pub health: Arc<Health>,
    /// Settings that decide.
    pub rules: Rules,
    /// Items in one page.
    pub page_size: usize,
    /// Lifetime of a session.
    pub session_length: Duration,
    /// OAuth metadata.
    pub oauth: OauthOptions,
    /// Name of the replica.
    pub replica: String,
}

/// What readiness depends on beside the catalog.
#[derive(Default)]
pub struct Health {
    draining: AtomicBool,
    bound: AtomicBool,
}

impl Health {
    /// The listeners are bound.
    pub fn listening(&self) {
        self.bound.store(true, Ordering::Release);
    }

    /// No new work.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True while draining.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn is_bound(&self) -> bool {
        self.bound.load(Ordering::Acquire)
    }
}

/// The broker's routes.
pub fn broker(state: Arc<FrontState>) -> Router {
    Router::new()
        .route("/mcp", any(mcp::handle))
        .route("/mcp/", any(mcp::handle))
        .route("/mcp/stateful", any(mcp::handle))
        .route("/mcp/stateless", any(mcp::handle))
        .route(mcp_gateway_api::envoy_filter::REPAIR_PATH, post(repair::handle))
        .route("/.well-known/oauth-protected-resource", any(metadata::handle))
        .route(
            "/.well-known/oauth-protected-resource/{*rest}",
            any(metadata::handle),
        )
        .route(crate::decision::user_token::PAGE, any(tokens::handle))
        .route(older::STREAM, any(older::stream))
        .route(older::MESSAGES, any(older::message))
        .route("/status", any(status::all_public))
        .route("/status/{*name}", any(status::one_public))
        .route("/healthz", any(admin::healthz_public))
        .route("/readyz", any(admin::readyz_public))
        .route("/", get(async || "MCP Gateway\n"))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(state)
}
