//! Envoy with the filters that the operator writes, beside a plain route and one with a processor that does nothing:
//! three listeners of one process.

use std::{net::SocketAddr, path::Path, process::Stdio};

use anyhow::Context;
use mcp_gateway_api::envoy_filter::{BUFFER_LIMIT_MARGIN, ext_proc_filter, guard_filters};
use mcp_gateway_kit::Program;
use serde_json::{Value, json};
use tokio::process::Child;

/// The broker's default limit of request bodies.
const BODY_LIMIT: u64 = 5_242_880;
/// Sessions, each with a connection.
const MAX_CONNECTIONS: u32 = 20_000;

/// Where the listeners are and where they lead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// A route to the mock, no filter.
    pub(crate) plain: SocketAddr,
    /// The same behind a processor that does nothing.
    pub(crate) no_op: SocketAddr,
    /// The gateway, ExtProc path.
    pub(crate) gateway: SocketAddr,
    /// A route to the forwarding front: the Direct path.
    pub(crate) direct: SocketAddr,
    pub(crate) mock: SocketAddr,
    pub(crate) no_op_processor: SocketAddr,
    pub(crate) router: SocketAddr,
    pub(crate) broker: SocketAddr,
    pub(crate) front: SocketAddr,
}

/// Starts Envoy with one worker for each of two cores.
pub(crate) fn start(folder: &Path, plan: &Plan) -> anyhow::Result<Child> {
    let file = folder.join("envoy.json");
    std::fs::write(&file, bootstrap(plan).to_string())?;
    let log = std::fs::File::create(folder.join("envoy.log"))?;
    let program = Program::Envoy.path().context("no Envoy: run `kit build envoy`")?;
    tokio::process::Command::new(program)
        .args([
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "-l",
            "warning",
            "-c",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start Envoy")
}

fn place(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let protocol = if http2 {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let limit = json!({"max_connections": MAX_CONNECTIONS, "max_pending_requests": MAX_CONNECTIONS, "max_requests": MAX_CONNECTIONS});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place(address)}}]}]},
        "typed_extension_protocol_options": {OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {protocol: {}},
        }},
    })
}

fn listener(address: SocketAddr, filters: &[Value], hosts: &[(&str, &str)]) -> Value {
    let hosts: Vec<Value> = hosts
        .iter()
        .map(|(domain, cluster)| {
            json!({"name": cluster, "domains": [domain],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]})
        })
        .collect();
    let mut filters = filters.to_vec();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "strip_any_host_port": true,
        "http_filters": filters,
        "route_config": {"virtual_hosts": hosts},
    });
    json!({
        "address": place(address),
        "per_connection_buffer_limit_bytes": BODY_LIMIT + BUFFER_LIMIT_MARGIN,
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
        ]}],
    })
}

fn bootstrap(plan: &Plan) -> Value {
    let mut gateway = vec![ext_proc_filter("router")];
    gateway.extend(guard_filters("broker"));
    let mut idle = vec![ext_proc_filter("no_op")];
    idle.extend(guard_filters("broker"));
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "clusters": [
                cluster("mock", plan.mock, false),
                cluster("no_op", plan.no_op_processor, true),
                cluster("router", plan.router, true),
                cluster("broker", plan.broker, false),
                cluster("front", plan.front, false),
            ],
            "listeners": [
                listener(plan.plain, &[], &[("*", "mock")]),
                listener(plan.no_op, &idle, &[("*", "mock")]),
                listener(plan.gateway, &gateway, &[("*.mock.test", "mock"), ("*", "broker")]),
                listener(plan.direct, &[], &[("*", "front")]),
            ],
        },
    })
}
