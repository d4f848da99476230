//! The admission webhook (issue B): what a decision costs, and what it adds to a create.

mod api_server;
mod handler;
#[path = "../../../webhook/tests/suite/memory.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the suite's API server in memory, used here with fewer of its parts"
)]
mod memory;
mod objects;

use axum::Router;
use clap::Args;

use crate::report::Row;

/// What of it to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only the handler, in process; needs no control plane.
    #[arg(long)]
    handler_only: bool,
    /// Creates of each kind with the webhooks; as many without.
    #[arg(long, default_value_t = 300)]
    creates: usize,
}

/// Measures.
///
/// # Errors
/// When the control plane does not do what is asked.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let mut rows = tokio::task::spawn_blocking(handler::measure).await??;
    if !arguments.handler_only {
        rows.extend(api_server::measure(arguments.creates).await?);
    }
    Ok(rows)
}

/// The webhook's handler with everything in its cache, and the review of a registration that changes.
pub(crate) fn changed_registration() -> (Router, String) {
    (handler::router(), handler::changed_registration(7))
}
