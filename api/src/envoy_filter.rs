//! The Envoy HTTP filters of the gateway as plain JSON: ext_proc and the guard (data-plane.md 8.1, 8.8). The operator
//! puts them into its EnvoyFilter, the broker's tests into a static Envoy config; the guard's Lua is
//! `envoy_filter/guard.lua`. Invariant: what the router emits (metadata namespaces, header names) and what the guard
//! reads are the constants of this file.

use serde_json::{Value, json};

/// Name of the ext_proc filter.
pub const EXT_PROC_FILTER_NAME: &str = "envoy.filters.http.ext_proc";
/// Name of the guard, a Lua filter.
pub const GUARD_FILTER_NAME: &str = "mcp.kuadrant.io.guard";
/// Name of the filter that tells the guard who made a reply.
pub const REPLY_DETAILS_FILTER_NAME: &str = "mcp.kuadrant.io.reply-details";
/// Dynamic metadata for policies and logs (data-plane.md 8.6).
pub const METADATA_NAMESPACE: &str = "mcp.kuadrant.io";
/// Dynamic metadata that only the guard reads; it holds credentials and must never be logged.
pub const GUARD_NAMESPACE: &str = "mcp.kuadrant.io/guard";
/// Response header between the two guard filters; it leaves Envoy in no direction.
pub const REPLY_DETAILS_HEADER: &str = "x-mcp-reply-details";
/// Path of the broker that decides what replaces a failed reply.
pub const REPAIR_PATH: &str = "/mcp/repair";
/// Request header with the status of the failed reply.
pub const REPAIR_STATUS_HEADER: &str = "x-mcp-repair-status";
/// Request header with Envoy's response code details of the failed reply.
pub const REPAIR_DETAILS_HEADER: &str = "x-mcp-repair-details";
/// Request header with the content type of the failed reply.
pub const REPAIR_TYPE_HEADER: &str = "x-mcp-repair-type";
/// Response header of the broker: `keep` leaves the reply's body and content type, `replace` takes those of the answer.
pub const REPAIR_ACTION_HEADER: &str = "x-mcp-repair-action";
/// Request header that carries the router's seal to the broker.
pub const SEAL_HEADER: &str = "x-mcp-seal";
/// Added to the body limit for the listener's `per_connection_buffer_limit_bytes`, in bytes.
pub const BUFFER_LIMIT_MARGIN: u64 = 65_536;
/// `message_timeout` of the filter, in seconds: the default of `--ext-proc-message-timeout`.
pub const MESSAGE_TIMEOUT_SECONDS: u64 = 10;
/// `max_message_timeout` of the filter, in seconds: the default of `--ext-proc-max-message-timeout`.
pub const MAX_MESSAGE_TIMEOUT_SECONDS: u64 = 60;

const GUARD_SOURCE: &str = include_str!("envoy_filter/guard.lua");

/// Name of Istio's cluster for a Service port: `outbound|<port>||<host>`.
pub fn outbound_cluster(port: u16, host: &str) -> String {
    format!("outbound|{port}||{host}")
}

/// The ext_proc filter, to be the first HTTP filter; `router_cluster` is the cluster of the router's gRPC port.
///
/// The static processing mode asks for the request headers only; the router turns on the BUFFERED body (and the response
/// phases) by override where it needs them. With a static BUFFERED, Envoy 1.40 buffers what arrives before the router's
/// first reply and answers a large body of *any* host on the listener with 413, or hangs until the message timeout (D73).
pub fn ext_proc_filter(router_cluster: &str) -> Value {
    json!({
        "name": EXT_PROC_FILTER_NAME,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "failure_mode_allow": false,
            "allow_mode_override": true,
            "message_timeout": format!("{MESSAGE_TIMEOUT_SECONDS}s"),
            "max_message_timeout": format!("{MAX_MESSAGE_TIMEOUT_SECONDS}s"),
            "mutation_rules": {"allow_all_routing": true, "allow_envoy": true},
            "processing_mode": {
                "request_header_mode": "SEND",
                "response_header_mode": "SKIP",
                "request_body_mode": "NONE",
                "response_body_mode": "NONE",
                "request_trailer_mode": "SKIP",
                "response_trailer_mode": "SKIP",
            },
            "response_attributes": ["response.code_details"],
            "metadata_options": {"receiving_namespaces": {"untyped": [METADATA_NAMESPACE, GUARD_NAMESPACE]}},
            "grpc_service": {"envoy_grpc": {"cluster_name": router_cluster, "authority": authority(router_cluster)}},
        },
    })
}

/// The host in the name of a cluster. Without it Envoy sends the cluster's name as `:authority`, and an HTTP/2 server that
/// checks its syntax resets the stream because of the `|` in Istio's names.
fn authority(cluster: &str) -> &str {
    cluster.rsplit_once('|').map_or(cluster, |(_, host)| host)
}

/// The guard's filters in the order in which they stand, directly before `envoy.filters.http.router`: inserting each
/// with `INSERT_BEFORE` the router, in this order, gives that. `broker_cluster` is the cluster of the broker's HTTP port.
pub fn guard_filters(broker_cluster: &str) -> [Value; 2] {
    [
        json!({
            "name": GUARD_FILTER_NAME,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": guard_source(broker_cluster)},
            },
        }),
        json!({
            "name": REPLY_DETAILS_FILTER_NAME,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {"response_mutations": [{"append": {
                    "header": {"key": REPLY_DETAILS_HEADER, "value": "%RESPONSE_CODE_DETAILS%"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }}]},
            },
        }),
    ]
}

/// The Lua text with its constants in place. `broker_cluster` is written as a Lua long string, so that no character of
/// it is read as code; a name that contains the closing bracket cannot be a host name and is written empty.
fn guard_source(broker_cluster: &str) -> String {
    let cluster = if broker_cluster.contains("]==]") {
        ""
    } else {
        broker_cluster
    };
    [
        ("@BROKER_CLUSTER@", cluster),
        ("@GUARD_NAMESPACE@", GUARD_NAMESPACE),
        ("@REPLY_DETAILS_HEADER@", REPLY_DETAILS_HEADER),
        ("@REPAIR_PATH@", REPAIR_PATH),
        ("@REPAIR_STATUS_HEADER@", REPAIR_STATUS_HEADER),
        ("@REPAIR_DETAILS_HEADER@", REPAIR_DETAILS_HEADER),
        ("@REPAIR_TYPE_HEADER@", REPAIR_TYPE_HEADER),
        ("@REPAIR_ACTION_HEADER@", REPAIR_ACTION_HEADER),
        ("@SEAL_HEADER@", SEAL_HEADER),
    ]
    .iter()
    .fold(GUARD_SOURCE.to_owned(), |text, (mark, value)| {
        text.replace(mark, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_has_no_mark_left_and_names_its_cluster() {
        let source = guard_source("outbound|8080||mcp-gateway.team-a.svc.cluster.local");
        assert!(!source.contains('@'), "{source}");
        assert!(source.contains("[==[outbound|8080||mcp-gateway.team-a.svc.cluster.local]==]"));
    }

    #[test]
    fn the_router_is_asked_and_never_passed_by() {
        let filter = ext_proc_filter("outbound|50051||mcp-gateway.team-a.svc.cluster.local");
        assert_eq!(filter["typed_config"]["failure_mode_allow"], false);
        assert_eq!(
            filter["typed_config"]["mutation_rules"]["allow_all_routing"],
            true
        );
        // Every request's headers reach the router; it asks for the body of those that it must read.
        assert_eq!(filter["typed_config"]["allow_mode_override"], true);
        let mode = &filter["typed_config"]["processing_mode"];
        assert_eq!(
            (&mode["request_header_mode"], &mode["request_body_mode"]),
            (&json!("SEND"), &json!("NONE"))
        );
    }

    #[test]
    fn the_router_is_called_by_a_name_that_is_a_valid_authority() {
        let filter = ext_proc_filter("outbound|50051||mcp-gateway.team-a.svc.cluster.local");
        let grpc = &filter["typed_config"]["grpc_service"]["envoy_grpc"];
        assert_eq!(grpc["authority"], "mcp-gateway.team-a.svc.cluster.local");
        assert_eq!(authority("router"), "router");
    }
}
