//! `config/samples/envoy.yaml`: an Envoy that is configured from a file and asks the router, for a gateway without
//! Kubernetes (data-plane.md 2.1). `broker/tests/suite/envoy_file.rs` runs it.

use mcp_gateway_api::envoy_filter::{BUFFER_LIMIT_MARGIN, ext_proc_filter, guard_filters};
use serde_json::{Value, json};

use crate::tree::{Files, yaml};

/// Host that clients use.
const PUBLIC_HOST: &str = "mcp.127-0-0-1.sslip.io";
/// Port that clients use.
const PORT: u16 = 8888;
/// The broker's default limit of request bodies.
const BODY_LIMIT: u64 = 5_242_880;
const OF_HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";

const HOW: &str = "\
# An Envoy without Kubernetes that asks the router about every request (docs/guides/envoy.md):
#   mcp-gateway-broker --mcp-gateway-config=config/samples/config.yaml --mcp-gateway-public-host=mcp.127-0-0-1.sslip.io \\
#     --mcp-gateway-private-host=127.0.0.1:8888 --gateway-signing-key=<at least 32 bytes>
#   envoy -c config/samples/envoy.yaml
# Each MCP server of config.yaml needs a virtual host, named by its `hostname`, and a cluster.
";

/// `http` is `http_protocol_options`, or `http2_protocol_options` for gRPC.
fn cluster(name: &str, http: &str, (host, port): (&str, u16)) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let address = json!({"socket_address": {"address": host, "port_value": port}});
    json!({
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {http: {}},
        }},
    })
}

/// Every request for `host` goes to `cluster`, and may take as long as it takes.
fn virtual_host(host: &str, cluster: &str) -> Value {
    let route = json!({"cluster": cluster, "timeout": "0s"});
    json!({"name": cluster, "domains": [host], "routes": [{"match": {"prefix": "/"}, "route": route}]})
}

fn bootstrap() -> Value {
    let mut filters = vec![ext_proc_filter("mcp-router")];
    filters.extend(guard_filters("mcp-broker"));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": format!("{OF_HTTP}.router.v3.Router")},
    }));
    let hosts = [
        virtual_host(PUBLIC_HOST, "mcp-broker"),
        virtual_host("weather.mcp.local", "weather"),
    ];
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mcp",
        "strip_any_host_port": true,
        "http_filters": filters,
        "route_config": {"virtual_hosts": hosts},
    });
    let listener = json!({
        "name": "mcp",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}},
        // A request body that is to be read fits in.
        "per_connection_buffer_limit_bytes": BODY_LIMIT + BUFFER_LIMIT_MARGIN,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    });
    json!({"static_resources": {
        "listeners": [listener],
        "clusters": [
            cluster("mcp-router", "http2_protocol_options", ("127.0.0.1", 50051)),
            cluster("mcp-broker", "http_protocol_options", ("127.0.0.1", 8080)),
            cluster("weather", "http_protocol_options", ("weather.example.com", 8080)),
        ],
    }})
}

pub(crate) fn files() -> anyhow::Result<Files> {
    let text = format!("{HOW}{}", yaml(&[bootstrap()])?);
    Ok(Files::from([("config/samples/envoy.yaml".into(), text)]))
}
