//! What is shipped: the Helm chart with the real Helm, the manifests beside it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod chart;
mod chart_values;
mod registry;
