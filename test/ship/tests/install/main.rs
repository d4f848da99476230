//! Installs as users do, on a real control plane that had nothing of ours before: Helm 3 and 4, and exactly what the bundle
//! says. One after the other, since an operator works for the whole cluster. Run it by `make e2e`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod bundle;
#[path = "../../../cases/admission.rs"]
#[expect(dead_code, reason = "verdicts are for other suites")]
mod cases;
mod cluster;
mod helm;
mod isolated;
mod kustomize;
mod olm;
mod olm_tools;
mod schemas;
mod stored;

use tokio::sync::Mutex;

/// Held by the test that has the cluster.
static CLUSTER: Mutex<()> = Mutex::const_new(());
