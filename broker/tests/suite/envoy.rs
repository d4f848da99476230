//! A real Envoy with the gateway's two filters in a static configuration.

use crate::programs::cached;
use mcp_gateway_api::envoy_filter::{ext_proc_filter, guard_filters};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

pub struct Envoy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cluster(name: &str, address: SocketAddr, h2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
            "address": address.ip().to_string(), "port_value": address.port()}}}}]}]},
    });
    if h2 {
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}});
    }
    cluster
}

/// A policy between the gateway's filters: refuses by header, and injects a credential of its own.
fn policy() -> Value {
    let source = r#"
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("x-mcp-toolname") == "forbidden" then
    handle:respond({[":status"] = "403", ["content-type"] = "text/plain"}, "policy says no to " .. headers:get("x-mcp-servername"))
  end
  if headers:get("x-deny-init") ~= nil and headers:get("x-mcp-method") == "initialize" and headers:get("x-mcp-servername") ~= "mcpBroker" then
    handle:respond({[":status"] = "401", ["www-authenticate"] = "Bearer realm=policy"}, "policy wants a token")
  end
  headers:replace("x-policy-saw", table.concat({headers:get(":authority"), headers:get(":path"), headers:get("x-mcp-method") or "-", headers:get("x-mcp-toolname") or "-", headers:get("x-mcp-servername") or "-"}, " "))
  if headers:get("x-inject") ~= nil then
    headers:replace("authorization", "Bearer injected")
  end
end"#;
    json!({"name": "policy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": source}}})
}

/// What Envoy leads where.
pub struct Plan<'a> {
    pub listen: u16,
    pub router: SocketAddr,
    pub broker: SocketAddr,
    pub public_host: &'a str,
    /// Hosts and where they lead.
    pub hosts: &'a [(&'a str, SocketAddr)],
    pub body_limit: u64,
    /// Certificate and key, PEM, of an HTTPS listener.
    pub tls: Option<(&'a str, &'a str)>,
}

/// The static configuration of a plan.
pub fn bootstrap(plan: &Plan<'_>) -> Value {
    let mut filters = vec![ext_proc_filter("router"), policy()];
    filters.extend(guard_filters("broker"));
    filters.push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}));
    let route =
        |cluster: &str| json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]);
    let mut hosts =
        vec![json!({"name": "gateway", "domains": [plan.public_host], "routes": route("broker")})];
    let mut clusters = vec![
        cluster("router", plan.router, true),
        cluster("broker", plan.broker, false),
    ];
    for (host, address) in plan.hosts {
        hosts.push(json!({"name": host, "domains": [host], "routes": route(host)}));
        clusters.push(cluster(host, *address, false));
    }
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "access_log": [{"name": "stderr", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {"text_format_source": {"inline_string": "%REQ(:METHOD)% %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%\n"}}}}], "strip_any_host_port": true, "http_filters": filters,
        "route_config": {"virtual_hosts": hosts},
    });
    let mut chain = json!({"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]});
    if let Some((certificate, key)) = plan.tls {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"inline_string": certificate}, "private_key": {"inline_string": key}}]}}});
    }
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "clusters": clusters,
            "listeners": [{
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": plan.listen}},
                // A port that somebody else has is an error, not half of the connections.
                "enable_reuse_port": false,
                "per_connection_buffer_limit_bytes": plan.body_limit + mcp_gateway_api::envoy_filter::BUFFER_LIMIT_MARGIN,
                "filter_chains": [chain],
            }],
        },
    })
}

impl Envoy {
    pub async fn start(plan: &Plan<'_>) -> Self {
        Self::start_with(&bootstrap(plan), plan.listen).await
    }

    /// With a bootstrap of one's own, whose listener is on loopback at `port`.
    pub async fn start_with(bootstrap: &Value, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("envoy.log")).unwrap();
        let child = Command::new(cached("MCPGW_ENVOY", "envoy", "envoy"))
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "-l",
                "warning",
                "-c",
            ])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self {
            child,
            _folder: folder,
        };
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let log = || std::fs::read_to_string(envoy._folder.path().join("envoy.log")).unwrap_or_default();
            assert!(
                envoy.child.try_wait().unwrap().is_none(),
                "Envoy ended: {}",
                log()
            );
            assert!(
                tokio::time::Instant::now() < deadline,
                "Envoy does not listen: {}",
                log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        envoy
    }

    /// What Envoy wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self._folder.path().join("envoy.log")).unwrap_or_default()
    }
}
