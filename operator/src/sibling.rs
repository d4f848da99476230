//! Two installs in one cluster (operator.md 11.1): the one whose held Lease is older works, the other stays passive.
//! The decision is pure; Leases of the same name in other namespaces are all that is read.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, api::ListParams};
use mcp_gateway_api::object_key::Age;

use crate::leader::{LEASE, expired};

/// How often a leader looks for another install.
pub(crate) const INTERVAL: Duration = Duration::from_secs(15);

/// The namespace of an older install that works now, if any. An API error counts as "unknown", and then as none: the
/// own lease is held all the same, and the next look comes soon.
pub(crate) async fn elder(client: &Client, namespace: &str) -> Option<String> {
    let api: Api<Lease> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("metadata.name={LEASE}"));
    match api.list(&params).await {
        Ok(leases) => elder_of(namespace, &leases.items, Timestamp::now()),
        Err(error) => {
            tracing::warn!(%error, "Leases of other installs cannot be listed");
            None
        }
    }
}

fn elder_of(namespace: &str, leases: &[Lease], now: Timestamp) -> Option<String> {
    let is_own = |lease: &&Lease| lease.metadata.namespace.as_deref() == Some(namespace);
    let own = Age::of(&leases.iter().find(is_own)?.metadata);
    let held = |lease: &&Lease| {
        let spec = lease.spec.as_ref();
        let holder = spec
            .and_then(|spec| spec.holder_identity.as_deref())
            .unwrap_or_default();
        !holder.is_empty() && spec.is_some_and(|spec| !expired(spec, now))
    };
    leases
        .iter()
        .filter(|lease| !is_own(lease))
        .filter(held)
        .find(|lease| Age::of(&lease.metadata).older(&own))
        .and_then(|lease| lease.metadata.namespace.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(namespace: &str, created: i64, holder: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": LEASE, "namespace": namespace, "uid": namespace,
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T01:00:00.000000Z"},
        }))
        .expect("a lease")
    }

    #[test]
    fn t62_the_older_install_works_and_a_dead_one_counts_for_nothing() {
        let now: Timestamp = "2026-01-01T01:00:05Z".parse().expect("a time");
        let both = [lease("a", 1, "pod-a"), lease("b", 2, "pod-b")];
        assert_eq!(elder_of("b", &both, now), Some("a".to_owned()));
        assert_eq!(elder_of("a", &both, now), None);
        let later: Timestamp = "2026-01-01T01:01:00Z".parse().expect("a time");
        assert_eq!(elder_of("b", &both, later), None);
        assert_eq!(
            elder_of("b", &[lease("a", 1, ""), lease("b", 2, "pod-b")], now),
            None
        );
    }
}
