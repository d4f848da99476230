//! The operator: watches custom resources and Gateways, brings the children of every MCP gateway to their wanted
//! state, and says in status what holds. `README.md` beside this crate tells how a reconcile flows.

pub mod options;
pub mod run;

mod affected;
mod apply;
mod blueprint;
mod brokers;
mod cache;
mod certificates;
mod children;
mod context;
mod document;
mod events;
mod expectations;
mod fields;
#[cfg(test)]
mod fixtures;
mod health;
mod kinds;
mod leader;
mod logging;
mod metrics;
mod ownership;
mod packed;
mod policies;
mod preserve;
mod queue;
mod reconcile;
mod rollouts;
mod secrets;
mod sibling;
mod snapshot;
mod standing;
mod uninstall;
mod watch;
