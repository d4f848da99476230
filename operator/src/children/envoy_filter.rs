//! EnvoyFilter `mcp-ext-proc-<namespace>-gateway` in the Gateway's namespace (operator.md 5.8): ext_proc first, the
//! guard next to the router, the listener's buffer as large as the body limit.

use mcp_gateway_api::{
    envoy_filter::{ext_proc_filter, guard_filters, outbound_cluster},
    names,
    object_key::ObjectKey,
};
use serde_json::{Value, json};

use super::Child;
use crate::{blueprint::Blueprint, kinds::Kind};

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";
/// Applied after the patches of everybody else, so that ext_proc stays first and the guard last.
const PRIORITY: i32 = 1000;

/// The filter; `namespace_uid` is the UID of the extension's Namespace, with which it goes even when no operator runs.
pub(crate) fn build(blueprint: &Blueprint, namespace_uid: Option<&str>) -> Child {
    let key = key(blueprint);
    let selector =
        json!({"labels": {names::GATEWAY_NAME_LABEL: names::label_value(&blueprint.gateway.name)}});
    let spec = json!({"spec": {
        "workloadSelector": selector,
        "priority": PRIORITY,
        "configPatches": patches(blueprint),
    }});
    let mut child = Child::labelled(Kind::EnvoyFilter, key, spec)
        .label(
            names::EXTENSION_NAME_LABEL,
            &names::label_value(&blueprint.key.name),
        )
        .label(
            names::EXTENSION_NAMESPACE_LABEL,
            &names::label_value(blueprint.namespace()),
        )
        .annotation(names::EXTENSION_ANNOTATION, &blueprint.key.to_string())
        .annotation(names::GATEWAY_ANNOTATION, &blueprint.gateway.to_string());
    if let Some(revision) = &blueprint.revision {
        child = child.label("istio.io/rev", revision);
    }
    if let Some(uid) = namespace_uid {
        let owner =
            json!({"apiVersion": "v1", "kind": "Namespace", "name": blueprint.namespace(), "uid": uid});
        child.owners.push(owner);
    }
    child
}

/// Where the filter of `blueprint` lies.
pub(crate) fn key(blueprint: &Blueprint) -> ObjectKey {
    ObjectKey::new(
        blueprint.gateway.namespace.as_str(),
        names::envoy_filter_name(blueprint.namespace()),
    )
}

fn patches(blueprint: &Blueprint) -> Vec<Value> {
    let cluster =
        |port: i32| outbound_cluster(u16::try_from(port).unwrap_or_default(), &blueprint.broker_host());
    let filter = |operation: &str, value: Value| {
        json!({
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY", "listener": {
                "portNumber": blueprint.bound_port,
                "filterChain": {"filter": {"name": CONNECTION_MANAGER, "subFilter": {"name": ROUTER}}},
            }},
            "patch": {"operation": operation, "value": value},
        })
    };
    let mut patches = vec![filter(
        "INSERT_FIRST",
        ext_proc_filter(&cluster(names::ROUTER_GRPC_PORT)),
    )];
    let guard = guard_filters(&cluster(names::BROKER_HTTP_PORT));
    patches.extend(guard.into_iter().map(|value| filter("INSERT_BEFORE", value)));
    patches.extend(blueprint.buffer_limit().map(|limit| {
        json!({
            "applyTo": "LISTENER",
            "match": {"context": "GATEWAY", "listener": {"portNumber": blueprint.bound_port}},
            "patch": {"operation": "MERGE", "value": {"per_connection_buffer_limit_bytes": limit}},
        })
    }));
    patches
}
