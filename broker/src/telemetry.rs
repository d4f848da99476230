//! Logs, metrics and traces (data-plane.md 18). Nothing secret enters any of them.

pub mod call_metrics;
pub mod logs;
pub mod metrics;
pub mod output;
pub mod refusals;
pub mod relay_metrics;
pub mod server_metrics;
pub mod session_metrics;
pub mod traces;
