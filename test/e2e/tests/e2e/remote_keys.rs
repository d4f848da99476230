//! Keys of an issuer behind an `https` URL with a private CA, in a cluster (operator.md 10.3): not there at the start,
//! there, gone; and what the policy's status says of it each time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::{Router, routing::get as route};
use axum_server::tls_rustls::RustlsConfig;
use mcp_gateway_e2e::{Cluster, McpClient, Site, apply, get, kubectl};
use mcp_gateway_kit::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

/// The node of the sandbox, where this process runs.
const NODE: &str = "192.0.2.1";
/// The server is not there at first, so that nobody else may get its port meanwhile: one below those that the kernel gives out,
/// in the sandbox' own network.
const PORT: u16 = 18443;
/// Key and token of the user's guide: issuer `me`, audience `me.com`.
const JWK: &str = r#"{"use":"sig","kty":"EC","kid":"XhO06x8JjWH1wwkWkyeEUxsooGEWoEdidEpwyd_hmuI","crv":"P-256","alg":"ES256","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w";

/// A key server that does not run yet, and the CA of its certificate.
struct KeyServer {
    address: SocketAddr,
    ca: String,
    pair: (String, String),
}

impl KeyServer {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let own = CertificateParams::new(vec![NODE.to_owned()])?.signed_by(&key, &authority)?;
        Ok(Self {
            address: format!("{NODE}:{PORT}").parse()?,
            ca: authority.pem(),
            pair: (own.pem(), key.serialize_pem()),
        })
    }

    async fn start(&self) -> anyhow::Result<axum_server::Handle<SocketAddr>> {
        let (certificate, key) = self.pair.clone();
        let tls = RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes()).await?;
        let app = Router::new().route("/keys", route(async || JWK));
        let handle = axum_server::Handle::new();
        let server = axum_server::bind_rustls(self.address, tls).handle(handle.clone());
        tokio::spawn(server.serve(app.into_make_service()));
        handle.listening().await.context("the key server listens")?;
        Ok(handle)
    }
}

fn policy(url: &str) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPAuthPolicy", "metadata": {"name": "remote", "namespace": "keys"},
    "spec": {
        "targetRefs": [{"group": "mcp.kuadrant.io", "kind": "MCPGatewayExtension", "name": "ext"}],
        "authentication": {"jwt": {"providers": [{"name": "me", "issuer": "me", "audiences": ["me.com"],
            "jwks": {"remote": {"url": url, "caCertSecretRef": {"name": "issuer-ca"}}}}]}},
        "defaultAction": "Allow"
    }})
}

/// Waits until `ResourcesResolved` has this reason; its message.
async fn resolved(reason: &str) -> anyhow::Result<String> {
    let message = eventually(Duration::from_secs(60), reason, async || {
        let policy = get("mcpauthpolicy remote -n keys").map_err(|error| format!("{error:#}"))?;
        let conditions = policy["status"]["conditions"].as_array().cloned();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "ResourcesResolved" && condition["reason"] == reason);
        let found = found.ok_or_else(|| policy["status"].to_string())?;
        Ok::<_, String>(found["message"].as_str().unwrap_or_default().to_owned())
    });
    Ok(message.await?)
}

/// Status and challenge of an `initialize`.
async fn answered(client: &McpClient) -> anyhow::Result<(u16, Option<String>)> {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = client.send(&initialize).await?;
    Ok((answer.status, answer.challenge))
}

#[tokio::test]
async fn remote_keys_are_never_open_and_the_policy_says_when_they_are_missing_or_old() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("keys")?;
    let server = KeyServer::new()?;
    apply(&site.extension("keys", "ext", "mcp", "httpRouteManagement: Enabled"))?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "issuer-ca", "namespace": "keys",
        "labels": {"mcp.kuadrant.io/secret": "true"}}, "stringData": {"ca.crt": server.ca}});
    apply(&secret.to_string())?;
    apply(&policy(&format!("https://{}/keys", server.address)).to_string())?;
    site.wait_ready("mcpge/ext -n keys")?;
    kubectl("wait --for=condition=Enforced --timeout=60s mcpauthpolicy/remote -n keys")?;
    let (anonymous, me) = (site.client().await?, site.client().await?.with_bearer(TOKEN));

    let message = resolved("KeysUnavailable").await?;
    assert!(
        message.starts_with(
            "keys of issuer me were never loaded: connection refused (1/1 replicas of keys/ext)"
        ) && message.contains("503"),
        "{message}"
    );
    for client in [&anonymous, &me] {
        assert_eq!(answered(client).await?, (503, None));
    }

    let running = server.start().await?;
    resolved("AllResolved").await?;
    assert_eq!(answered(&me).await?.0, 200);
    let (status, challenge) = answered(&anonymous).await?;
    let metadata = "http://mcp.keys.example:8080/.well-known/oauth-protected-resource/mcp";
    assert_eq!(
        (status, challenge),
        (401, Some(format!("Bearer resource_metadata=\"{metadata}\"")))
    );

    // Another interval makes the broker fetch at once, and nobody is there.
    running.shutdown();
    let interval = "[{\"op\":\"replace\",\"path\":\"/spec/authentication/jwt/providers/0/jwks/remote/refreshIntervalSeconds\",\"value\":86400}]";
    kubectl(&format!(
        "patch mcpauthpolicy remote -n keys --type=json -p {interval}"
    ))?;
    let message = resolved("KeysStale").await?;
    assert!(
        message.starts_with("keys of issuer me are still those fetched at ")
            && message.contains("callers are still verified"),
        "{message}"
    );
    assert_eq!(answered(&me).await?.0, 200);
    assert_eq!(answered(&anonymous).await?.0, 401);
    Ok(())
}
