//! Logs and metrics (data-plane.md 18). Nothing secret enters either.

pub mod logs;
pub mod metrics;
pub mod server_metrics;
