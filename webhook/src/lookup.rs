//! Gathers the facts for one judgement: live reads, all at once, those that only warnings need under a short deadline.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use mcp_gateway_api::{
    admission::{Facts, ObjectFact, Subject, facts},
    object_key::ObjectKey,
};
use tokio::time::timeout;

use crate::cluster::{Cluster, ClusterError};

/// What is not known after this time gives no warning (operator.md 11.2).
const FOR_WARNINGS: Duration = Duration::from_secs(1);

/// Secrets and ConfigMaps that `subject` names, by metadata.
pub(crate) async fn facts<C: Cluster>(cluster: &C, namespace: &str, subject: &Subject) -> Facts {
    let needs = facts::needs(subject);
    let secrets = needs.secrets.iter().map(|name| async {
        let key = ObjectKey::new(namespace, name.as_str());
        (name.clone(), known(cluster.secret(&key)).await)
    });
    let config_maps = needs.config_maps.iter().map(|name| async {
        let key = ObjectKey::new(namespace, name.as_str());
        (name.clone(), known(cluster.config_map(&key)).await)
    });
    let (secrets, config_maps) = futures::join!(join_all(secrets), join_all(config_maps));
    Facts {
        secrets: only_known(secrets),
        config_maps: only_known(config_maps),
        ..Facts::default()
    }
}

/// Whether kind EnvoyFilter is served; `None` when that cannot be found out in time.
pub(crate) async fn envoy_filter_served<C: Cluster>(cluster: &C) -> Option<bool> {
    known(cluster.envoy_filter_served()).await
}

async fn known<T>(call: impl Future<Output = Result<T, ClusterError>>) -> Option<T> {
    match timeout(FOR_WARNINGS, call).await {
        Ok(Ok(fact)) => Some(fact),
        Ok(Err(error)) => {
            tracing::debug!(%error, "Fact not known");
            None
        }
        Err(_) => None,
    }
}

fn only_known(facts: Vec<(String, Option<ObjectFact>)>) -> BTreeMap<String, ObjectFact> {
    facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
}
