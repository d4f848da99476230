//! Why the broker's pods are not ready, as the cluster says it.

use mcp_gateway_api::{names, object_key::ObjectKey};

use crate::context::Context;

/// Why the first broker pod is not ready, for people.
pub(super) async fn first_pod_problem(context: &Context, key: &ObjectKey) -> Option<String> {
    use k8s_openapi::api::core::v1::Pod;
    let (label, value) = names::NAME_LABEL;
    let (managed, by) = names::MANAGED_BY_LABEL;
    let api: kube::Api<Pod> = kube::Api::namespaced(context.client.clone(), &key.namespace);
    let params = kube::api::ListParams::default()
        .labels(&format!("{label}={value},{managed}={by}"))
        .limit(10);
    let pods = api.list(&params).await.ok()?;
    pods.items.into_iter().find_map(|pod| {
        let name = pod.metadata.name.unwrap_or_default();
        let status = pod.status?;
        let waiting = status
            .container_statuses
            .into_iter()
            .flatten()
            .find_map(|container| {
                let state = container.state?;
                let waiting = state.waiting.map(|waiting| (waiting.reason, waiting.message));
                let ended = state.terminated.map(|ended| (ended.reason, ended.message));
                waiting.or(ended)
            });
        let unscheduled = || {
            let mut conditions = status.conditions.into_iter().flatten();
            let found = conditions
                .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
            Some((found.reason, found.message))
        };
        let (reason, message) = waiting.or_else(unscheduled)?;
        let parts = [reason, message]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ");
        Some(format!("pod {name}: {parts}"))
    })
}
