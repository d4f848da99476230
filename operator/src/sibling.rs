//! Two installs in one cluster (operator.md 11.1): the one whose held Lease is older works, the other stays passive.
//! The decision is pure; Leases of the same name in other namespaces are all that is read. As in the election, a Lease
//! is held until it was not seen to change for its duration: clocks of two nodes are never compared.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::ListParams};
use mcp_gateway_api::{names::OPERATOR_LEASE, object_key::Age};

use crate::leader::{Seen, ran_out, uninstalled};

/// How often a leader looks for another install. An install that ended without a word holds a newcomer up for two looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(15);

/// The Leases of other installs as they were seen so far, by namespace.
#[derive(Default)]
pub(crate) struct Siblings {
    seen: Mutex<BTreeMap<String, Seen>>,
}

impl Siblings {
    /// The namespace of an older install that works now, if any. An API error counts as "unknown", and then as none: the
    /// own lease is held all the same, and the next look comes soon.
    pub(crate) async fn elder(&self, client: &Client, namespace: &str) -> Option<String> {
        let api: Api<Lease> = Api::all(client.clone());
        let params = ListParams::default().fields(&format!("metadata.name={OPERATOR_LEASE}"));
        match api.list(&params).await {
            Ok(leases) => self.elder_of(namespace, &leases.items),
            Err(error) => {
                tracing::warn!(%error, "Leases of other installs cannot be listed");
                None
            }
        }
    }

    fn elder_of(&self, namespace: &str, leases: &[Lease]) -> Option<String> {
        let of = |lease: &Lease| lease.metadata.namespace.clone().unwrap_or_default();
        let own = leases.iter().find(|lease| of(lease) == namespace)?;
        let own = Age::of(&own.metadata);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|namespace, _| leases.iter().any(|lease| of(lease) == *namespace));
        let mut held = |lease: &Lease| {
            let unchanged = seen
                .entry(of(lease))
                .or_default()
                .unchanged(lease.metadata.resource_version.clone());
            let spec = lease.spec.as_ref();
            let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
            holder.is_some_and(|holder| !holder.is_empty())
                && spec.is_some_and(|spec| !ran_out(spec, unchanged))
                && uninstalled(lease).is_none()
        };
        // Every Lease is looked at, so that each is known from now on.
        let working: Vec<&Lease> = leases.iter().filter(|lease| held(lease)).collect();
        working
            .into_iter()
            .find(|lease| of(lease) != namespace && Age::of(&lease.metadata).older(&own))
            .map(of)
    }
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::names::UNINSTALLED_ANNOTATION;
    use serde_json::json;

    use super::*;

    fn lease(namespace: &str, created: i64, (holder, version): (&str, &str)) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": OPERATOR_LEASE, "namespace": namespace, "uid": namespace, "resourceVersion": version,
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2000-01-01T01:00:00.000000Z"},
        }))
        .expect("a lease")
    }

    #[tokio::test(start_paused = true)]
    async fn t62_the_older_install_works_and_a_dead_one_counts_for_nothing() {
        let siblings = Siblings::default();
        let both = [lease("a", 1, ("pod-a", "1")), lease("b", 2, ("pod-b", "1"))];
        // Whatever the clock of its node says.
        assert_eq!(siblings.elder_of("b", &both), Some("a".to_owned()));
        assert_eq!(siblings.elder_of("a", &both), None);
        tokio::time::advance(Duration::from_secs(14)).await;
        let renewed = [lease("a", 1, ("pod-a", "2")), lease("b", 2, ("pod-b", "2"))];
        assert_eq!(siblings.elder_of("b", &renewed), Some("a".to_owned()));
        tokio::time::advance(Duration::from_secs(16)).await;
        let dead = [lease("a", 1, ("pod-a", "2")), lease("b", 2, ("pod-b", "3"))];
        assert_eq!(siblings.elder_of("b", &dead), None);
        let released = [lease("a", 1, ("", "3")), lease("b", 2, ("pod-b", "4"))];
        assert_eq!(siblings.elder_of("b", &released), None);
        let mut left = lease("a", 1, ("mcpgw-uninstall", "4"));
        let gone = (UNINSTALLED_ANNOTATION.to_owned(), "uid".to_owned());
        left.metadata.annotations = Some([gone].into());
        let left = [left, lease("b", 2, ("pod-b", "5"))];
        assert_eq!(siblings.elder_of("b", &left), None);
    }
}
