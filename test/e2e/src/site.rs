//! A site of its own for each test: a Gateway with its Envoy, a team's namespace, MCP servers with their routes. Names are
//! made from the site's name, so that tests run beside each other.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use mcp_gateway_kit::eventually;
use serde_json::Value;

use crate::{
    kubectl::{apply, get, kubectl},
    mcp::McpClient,
};

/// Port of the listeners that every site's Gateway has.
pub const PUBLIC_PORT: u16 = 8080;

/// Waits until the next second begins. Creation times have whole seconds and equal ones are decided by UID (T1), so an
/// object that a test needs to be the younger one has to be made after this.
///
/// # Errors
/// When the clock stands still.
pub async fn next_second() -> anyhow::Result<()> {
    let second = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let begun = second();
    let later = async || {
        (second() > begun)
            .then_some(())
            .ok_or_else(|| "still the same".to_owned())
    };
    Ok(eventually(Duration::from_secs(5), "the next second", later).await?)
}

/// One Gateway and the namespaces around it.
#[derive(Clone, Debug)]
pub struct Site {
    name: String,
}

impl Site {
    /// Makes namespaces `<name>-gw`, `<name>` and `<name>-servers`, and the Gateway `<name>-gw/gw` with listeners `mcp`
    /// (host `mcp.<name>.example`), `mcps` (`*.<name>.local`), both on port 8080, and `other` (`*.<name>.other`, 9090),
    /// open to all namespaces; grants the team namespace `<name>` access.
    ///
    /// # Errors
    /// When the API server refuses an object.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let listener = |listener: &str, host: &str, port: u16| {
            format!(
                "{{name: {listener}, hostname: '{host}', port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}"
            )
        };
        let listeners = [
            listener("mcp", &format!("mcp.{name}.example"), PUBLIC_PORT),
            listener("mcps", &format!("*.{name}.local"), PUBLIC_PORT),
            listener("other", &format!("*.{name}.other"), 9090),
        ]
        .join(", ");
        let namespaces: String = [format!("{name}-gw"), name.to_owned(), format!("{name}-servers")]
            .map(|namespace| {
                format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---\n")
            })
            .concat();
        apply(&format!(
            "{namespaces}{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: gw, namespace: {name}-gw}}, \
            spec: {{gatewayClassName: istio, listeners: [{listeners}]}}}}"
        ))?;
        let site = Self {
            name: name.to_owned(),
        };
        site.grant(name)?;
        Ok(site)
    }

    /// The site's name, also that of the team's namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host that clients use.
    #[must_use]
    pub fn host(&self) -> String {
        format!("mcp.{}.example", self.name)
    }

    /// Lets extensions of `namespace` use the Gateway.
    ///
    /// # Errors
    /// When the API server refuses the grant.
    pub fn grant(&self, namespace: &str) -> anyhow::Result<()> {
        let name = &self.name;
        apply(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{name: allow-{namespace}, namespace: {name}-gw}}, \
            spec: {{from: [{{group: mcp.kuadrant.io, kind: MCPGatewayExtension, namespace: {namespace}}}], \
            to: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]}}}}"
        ))?;
        Ok(())
    }

    /// Manifest of an extension `<namespace>/<extension>` on the Gateway's `listener`; `more` is added to its spec. Without it
    /// the data path is that of `MCPGW_DATA_PATH`, as in the suites in process.
    #[must_use]
    pub fn extension(&self, namespace: &str, extension: &str, listener: &str, more: &str) -> String {
        let name = &self.name;
        let path = std::env::var("MCPGW_DATA_PATH").unwrap_or_default();
        let more = match (more, path.as_str()) {
            ("", "direct") => ", dataPath: Direct".to_owned(),
            ("", _) => String::new(),
            (more, _) => format!(", {more}"),
        };
        format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPGatewayExtension, metadata: {{name: {extension}, namespace: {namespace}}}, \
            spec: {{targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: {name}-gw, sectionName: {listener}}}{more}}}}}"
        )
    }

    /// Runs the Python sample server as `<name>-servers/<server>` with Service and HTTPRoute
    /// `<server>.<name>.local` on listener `mcps`.
    ///
    /// # Errors
    /// When the API server refuses an object.
    pub fn server(&self, server: &str) -> anyhow::Result<()> {
        self.workload(server, "sample-python:2.3.0", 8000)
    }

    /// Runs npm's `server-everything` in the same way.
    ///
    /// # Errors
    /// When the API server refuses an object.
    pub fn everything(&self, server: &str) -> anyhow::Result<()> {
        self.workload(server, "sample-everything:2026.8.31", 3001)
    }

    fn workload(&self, server: &str, image: &str, port: u16) -> anyhow::Result<()> {
        let name = &self.name;
        let meta = format!("metadata: {{name: {server}, namespace: {name}-servers}}");
        apply(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, {meta}, spec: {{selector: {{matchLabels: {{app: {server}}}}}, \
            template: {{metadata: {{labels: {{app: {server}}}}}, spec: {{containers: [{{name: server, \
            image: 'ghcr.io/mcp-gateway-operator/{image}', ports: [{{name: http, containerPort: {port}}}], \
            readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}}}]}}}}}}}}\n---\n\
            {{apiVersion: v1, kind: Service, {meta}, spec: {{selector: {{app: {server}}}, ports: [{{name: http, port: {port}}}]}}}}\n---\n\
            {{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, {meta}, spec: {{\
            parentRefs: [{{name: gw, namespace: {name}-gw, sectionName: mcps}}], hostnames: [{server}.{name}.local], \
            rules: [{{backendRefs: [{{name: {server}, port: {port}}}]}}]}}}}"
        ))?;
        Ok(())
    }

    /// What docs/guides/troubleshooting.md has for servers that close idle connections after 5 seconds, as ours do: Envoy
    /// gives them up before, so that no call meets a connection that is being closed.
    pub(crate) fn give_up_idle_connections(&self) -> anyhow::Result<()> {
        let namespace = format!("{}-servers", self.name);
        apply(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: idle, namespace: {namespace}}}, \
            spec: {{host: '*.{namespace}.svc.cluster.local', trafficPolicy: {{connectionPool: {{http: {{idleTimeout: 4s}}}}}}}}}}"
        ))
        .map(drop)
    }

    /// Registers the route of `server` with `prefix`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn register(&self, server: &str, prefix: &str) -> anyhow::Result<()> {
        let name = &self.name;
        apply(&format!(
            "{{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, metadata: {{name: {server}, namespace: {name}-servers}}, \
            spec: {{targetRef: {{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {server}}}, prefix: {prefix}}}}}"
        ))?;
        Ok(())
    }

    /// `kubectl wait --for=condition=Ready` for `what`, such as `mcpge/ext -n team`.
    ///
    /// # Errors
    /// When it does not become Ready within a minute and a half; the error holds its conditions.
    pub fn wait_ready(&self, what: &str) -> anyhow::Result<()> {
        kubectl(&format!("wait --for=condition=Ready --timeout=90s {what}"))
            .map(drop)
            .with_context(|| format!("conditions: {}", conditions(what)))
    }

    /// Waits until condition `Ready` of `what` is False with `reason`, and returns its message.
    ///
    /// # Errors
    /// When that does not happen within a minute.
    pub async fn wait_not_ready(&self, what: &str, reason: &str) -> anyhow::Result<String> {
        let awaited = format!("{what} to be refused with {reason}");
        let message = eventually(Duration::from_secs(60), &awaited, async || {
            let object = get(what).map_err(|error| format!("{error:#}"))?;
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ready = conditions
                .iter()
                .find(|condition| condition["type"] == "Ready")
                .cloned()
                .unwrap_or_default();
            if ready["status"] == "False" && ready["reason"] == reason {
                return Ok(ready["message"].as_str().unwrap_or_default().to_owned());
            }
            Err(ready.to_string())
        });
        Ok(message.await?)
    }

    /// A client of this site's endpoint, through Envoy.
    ///
    /// # Errors
    /// When the Gateway has no address within a minute.
    pub async fn client(&self) -> anyhow::Result<McpClient> {
        let address = self.address().await?;
        McpClient::new(&format!("http://{address}:{PUBLIC_PORT}/mcp"), &self.host())
    }

    /// URL of this site's endpoint for clients that resolve names: the sandbox' DNS knows it from now on.
    ///
    /// # Errors
    /// When the Gateway has no address within a minute, or the name is not known within seconds.
    pub async fn url(&self) -> anyhow::Result<String> {
        let host = self.host();
        publish_host(&host, &self.gateway()).await?;
        Ok(format!("http://{host}:{PUBLIC_PORT}/mcp"))
    }

    fn gateway(&self) -> String {
        format!("gw -n {}-gw", self.name)
    }

    async fn address(&self) -> anyhow::Result<String> {
        address_of(&self.gateway()).await
    }
}

/// Lets `host` lead to a Gateway (`gw -n team-gw`), as DNS does for users: the sandbox knows it from now on.
///
/// # Errors
/// When the Gateway has no address within a minute, or the name is not known within seconds.
pub async fn publish_host(host: &str, gateway: &str) -> anyhow::Result<()> {
    let service = address_of(gateway).await?;
    let resolved = async || {
        let found = tokio::net::lookup_host((service.as_str(), PUBLIC_PORT)).await;
        let found = found.map_err(|error| error.to_string())?.next();
        found
            .map(|address| address.ip())
            .ok_or_else(|| "no address".to_owned())
    };
    let address = eventually(Duration::from_secs(30), "the Gateway's pod", resolved).await?;
    publish_address(host, address).await
}

/// Lets `host` lead to an address, as [`publish_host`] does.
///
/// # Errors
/// When the name is not known within seconds.
pub async fn publish_address(host: &str, address: IpAddr) -> anyhow::Result<()> {
    let kit = std::env::var("MCPGW_KIT_DIR").context("not in the kit's sandbox")?;
    let folder = std::path::Path::new(&kit).join("hosts.d");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(host), format!("{address} {host}\n"))?;
    let known = async || {
        let found = tokio::net::lookup_host((host, PUBLIC_PORT)).await;
        let found = found.map_err(|error| error.to_string())?.next();
        let known = found.is_some_and(|found| found.ip() == address);
        known.then_some(()).ok_or_else(|| format!("{found:?}"))
    };
    Ok(eventually(Duration::from_secs(10), "the name of the endpoint", known).await?)
}

async fn address_of(gateway: &str) -> anyhow::Result<String> {
    let line = format!("gateway {gateway}");
    let address = eventually(Duration::from_secs(60), "the Gateway's address", async || {
        let gateway = get(&line).map_err(|error| format!("{error:#}"))?;
        let address = gateway["status"]["addresses"][0]["value"]
            .as_str()
            .map(str::to_owned);
        address.ok_or_else(|| gateway["status"]["conditions"].to_string())
    });
    Ok(address.await?)
}

fn conditions(what: &str) -> Value {
    get(what).map_or(Value::Null, |object| object["status"]["conditions"].clone())
}
