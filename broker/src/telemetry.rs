//! Logs, metrics and traces (data-plane.md 18). Nothing secret enters any of them.

pub mod call_metrics;
pub mod logs;
pub mod metrics;
pub mod output;
pub mod refusals;
pub mod server_metrics;
pub mod traces;
