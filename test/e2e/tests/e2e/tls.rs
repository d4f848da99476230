//! Which pairs of listener and server work (docs/guides/tls.md): each row of the user's table through a real Envoy, with the
//! real DestinationRule where it has one.

use std::time::Duration;

use anyhow::Context;
use mcp_gateway_e2e::{Cluster, McpClient, Site, apply, get, kubectl, publish_address, publish_host};
use mcp_gateway_kit::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

/// Name of the server that is outside of the cluster.
const OUTSIDE: &str = "mcp.outside.example";
/// Host of the HTTPS listener.
const HOST: &str = "mcp.secure.example";

/// The HTTPS listener, as a route names it.
const SECURE: &str = "name: secure, sectionName: mcp";

/// An authority that nobody knows.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // One that has the name of its issuer is taken for self-signed.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A Secret with a certificate for these names.
    fn pair(&self, (name, namespace): (&str, &str), names: &[&str]) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.0)?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        });
        apply(&secret.to_string()).map(drop)
    }

    /// A Secret with the authority itself.
    fn bundle(&self, name: &str, namespace: &str) -> anyhow::Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {"mcp.kuadrant.io/secret": "true"}},
            "stringData": {"ca.crt": self.pem()},
        });
        apply(&secret.to_string()).map(drop)
    }
}

/// The Gateway with an HTTPS listener, beside the site's own, and the extension `tls-secure/ext` on it. One listener with a
/// wildcard: Envoy looks for routes among those of the listener that the client's TLS name chose.
fn secure_gateway(site: &Site) -> anyhow::Result<()> {
    let listeners = "{name: mcp, hostname: '*.secure.example', port: 8443, protocol: HTTPS, \
        allowedRoutes: {namespaces: {from: All}}, tls: {mode: Terminate, certificateRefs: [{name: listener}]}}";
    apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: tls-secure}}}}\n---\n\
        {{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: secure, namespace: tls-gw}}, \
        spec: {{gatewayClassName: istio, listeners: [{listeners}]}}}}\n---\n\
        {{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{name: secure, namespace: tls-gw}}, \
        spec: {{from: [{{group: mcp.kuadrant.io, kind: MCPGatewayExtension, namespace: tls-secure}}], \
        to: [{{group: gateway.networking.k8s.io, kind: Gateway, name: secure}}]}}}}"
    ))?;
    let extension = site.extension("tls-secure", "ext", "mcp", "");
    apply(&extension.replace("name: gw,", "name: secure,")).map(drop)
}

/// A server that speaks TLS on this port, in `tls-servers`.
fn tls_server(name: &str, port: u16) -> anyhow::Result<()> {
    let meta = format!("metadata: {{name: {name}, namespace: tls-servers}}");
    apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, {meta}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, \
        template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: server, \
        image: 'ghcr.io/mcp-gateway-operator/sample-python:2.3.0', ports: [{{name: https, containerPort: {port}}}], \
        env: [{{name: PORT, value: '{port}'}}, {{name: TLS_FOLDER, value: /tls}}], \
        volumeMounts: [{{name: tls, mountPath: /tls}}], readinessProbe: {{tcpSocket: {{port: https}}, periodSeconds: 1}}}}], \
        volumes: [{{name: tls, secret: {{secretName: {name}-tls}}}}]}}}}}}}}\n---\n\
        {{apiVersion: v1, kind: Service, {meta}, spec: {{selector: {{app: {name}}}, ports: [{{name: https, port: {port}}}]}}}}"
    ))
    .map(drop)
}

/// Routes `host` of a listener to a backend and registers the route under `<name>_`.
fn registered(name: &str, (listener, host): (&str, &str), rule: &str, ca: bool) -> anyhow::Result<()> {
    let meta = format!("metadata: {{name: {name}, namespace: tls-servers}}");
    let ca = if ca {
        ", caCertSecretRef: {name: server-ca}"
    } else {
        ""
    };
    apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, {meta}, spec: {{\
        parentRefs: [{{{listener}, namespace: tls-gw}}], hostnames: [{host}], rules: [{rule}]}}}}\n---\n\
        {{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPServerRegistration, {meta}, spec: {{\
        targetRef: {{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}, prefix: {name}_{ca}}}}}"
    ))
    .map(drop)
}

/// A server outside of the cluster: Istio knows its name and that it speaks TLS.
async fn outside() -> anyhow::Result<()> {
    tls_server("outside", 443)?;
    kubectl("rollout status deployment/outside -n tls-servers --timeout=60s")?;
    kubectl("delete service outside -n tls-servers")?;
    let pods = get("pods -n tls-servers -l app=outside")?;
    let address = pods["items"][0]["status"]["podIP"]
        .as_str()
        .context("no address")?;
    publish_address(OUTSIDE, address.parse()?).await?;
    apply(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: outside, namespace: tls-servers}}, \
        spec: {{hosts: [{OUTSIDE}], location: MESH_EXTERNAL, resolution: DNS, ports: [{{number: 443, name: https, protocol: HTTPS}}]}}}}"
    ))
    .map(drop)
}

/// TLS of Envoy towards a host, whose authority is in the Secret `server-ca` beside the Gateway.
fn originate(name: &str, host: &str) -> anyhow::Result<()> {
    apply(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: tls-servers}}, \
        spec: {{host: {host}, trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: server-ca, sni: {host}}}}}}}}}"
    ))
    .map(drop)
}

async fn listed(client: &McpClient, tools: &[&str]) -> anyhow::Result<()> {
    let all = async || {
        let listed = client.tools().await.map_err(|error| format!("{error:#}"))?;
        let found = tools.iter().all(|tool| listed.iter().any(|name| name == tool));
        found.then_some(()).ok_or_else(|| format!("{listed:?}"))
    };
    Ok(eventually(Duration::from_secs(60), "the tools to be listed", all).await?)
}

async fn sums(client: &McpClient, tool: &str) -> anyhow::Result<()> {
    let sum = async || {
        let result = client.call(tool, json!({"a": 19, "b": 23})).await;
        let result = result.map_err(|error| format!("{error:#}"))?;
        (result["content"][0]["text"] == "42")
            .then_some(())
            .ok_or_else(|| result.to_string())
    };
    Ok(eventually(Duration::from_secs(60), &format!("a call of {tool}"), sum).await?)
}

/// Why the call of a tool fails.
async fn refusal(client: &McpClient, tool: &str) -> anyhow::Result<(u16, Value)> {
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {"a": 1, "b": 2}}});
    let answer = client.send(&call).await?;
    Ok((answer.status, answer.message["error"]["code"].clone()))
}

/// The patch of the install guide, as it stands there but for the names.
fn trust_the_listener() -> anyhow::Result<()> {
    let patch = r#"[{"op":"add","path":"/spec/template/spec/volumes/-","value":{"name":"gateway-ca","secret":{"secretName":"my-ca-bundle"}}},{"op":"add","path":"/spec/template/spec/containers/0/volumeMounts/-","value":{"name":"gateway-ca","mountPath":"/certs/gateway-ca.crt","subPath":"ca.crt","readOnly":true}},{"op":"add","path":"/spec/template/spec/containers/0/command/-","value":"--gateway-ca-cert=/certs/gateway-ca.crt"}]"#;
    kubectl(&format!(
        "patch deployment mcp-gateway -n tls-secure --type=json -p {patch}"
    ))?;
    kubectl("rollout status deployment/mcp-gateway -n tls-secure --timeout=90s").map(drop)
}

/// Everything of the table but its DestinationRules.
async fn set_up(authority: &Authority) -> anyhow::Result<Site> {
    let site = Site::create("tls")?;
    authority.pair(("listener", "tls-gw"), &["*.secure.example"])?;
    secure_gateway(&site)?;
    apply(&site.extension("tls", "ext", "mcp", ""))?;
    authority.bundle("my-ca-bundle", "tls-secure")?;
    authority.bundle("server-ca", "tls-servers")?;
    authority.bundle("server-ca", "tls-gw")?;
    site.server("plain")?;
    site.register("plain", "plain_")?;
    authority.pair(
        ("inside-tls", "tls-servers"),
        &["inside.tls-servers.svc.cluster.local"],
    )?;
    authority.pair(("outside-tls", "tls-servers"), &[OUTSIDE])?;
    tls_server("inside", 8443)?;
    outside().await?;
    let service = |name: &str, port: u16| format!("{{backendRefs: [{{name: {name}, port: {port}}}]}}");
    let rewritten = format!(
        "{{filters: [{{type: URLRewrite, urlRewrite: {{hostname: {OUTSIDE}}}}}], \
        backendRefs: [{{group: networking.istio.io, kind: Hostname, name: {OUTSIDE}, port: 443}}]}}"
    );
    registered(
        "splain",
        (SECURE, "plain.secure.example"),
        &service("plain", 8000),
        false,
    )?;
    registered(
        "sinside",
        (SECURE, "inside.secure.example"),
        &service("inside", 8443),
        true,
    )?;
    registered(
        "inside",
        ("name: gw, sectionName: mcps", "inside.tls.local"),
        &service("inside", 8443),
        true,
    )?;
    registered("outside", (SECURE, "outside.secure.example"), &rewritten, true)?;
    site.wait_ready("mcpge/ext -n tls")?;
    site.wait_ready("mcpge/ext -n tls-secure")?;
    trust_the_listener()?;
    Ok(site)
}

#[tokio::test]
async fn each_row_of_the_table_of_tls_configurations_holds() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let authority = Authority::new()?;
    let site = set_up(&authority).await?;
    publish_host(HOST, "secure -n tls-gw").await?;
    let mut http = site.client().await?;
    let mut https = McpClient::with_authority(&format!("https://{HOST}:8443/mcp"), HOST, &authority.pem())?;
    http.initialize().await?;
    https.initialize().await?;
    // Lists need nothing but the server's authority.
    listed(&http, &["plain_add", "inside_add"]).await?;
    listed(&https, &["splain_add", "sinside_add", "outside_add"]).await?;
    // HTTP listener, HTTP server; HTTPS listener, HTTP server.
    sums(&http, "plain_add").await?;
    sums(&https, "splain_add").await?;
    // A server with TLS: Envoy speaks plain HTTP to it until a DestinationRule says otherwise, and the status says so.
    for (client, tool) in [(&http, "inside_add"), (&https, "sinside_add")] {
        let (status, code) = refusal(client, tool).await?;
        assert!(
            (500..=504).contains(&status) && code == -32603,
            "{tool}: {status} {code}"
        );
    }
    let registration = get("mcpsr/inside -n tls-servers")?;
    assert!(
        registration["status"].to_string().contains("DestinationRule"),
        "{registration}"
    );
    originate("inside", "inside.tls-servers.svc.cluster.local")?;
    originate("outside", OUTSIDE)?;
    sums(&http, "inside_add").await?;
    sums(&https, "sinside_add").await?;
    // HTTPS listener, server outside of the cluster.
    sums(&https, "outside_add").await?;
    Ok(())
}
