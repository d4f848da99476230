//! Keys of an issuer behind an `https` URL with a private CA, through Envoy (operator.md 10.3): not there at the start,
//! there, exchanged, gone.

use crate::fixture::Server;
use crate::tls::Authority;
use crate::world::{World, config, entry, eventually, eventually_within, free_port};
use arc_swap::ArcSwap;
use axum::Router;
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_gateway_broker::auth::clock;
use rcgen::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A key of the issuer, with what the world sees of it.
pub struct Signer {
    pub jwk: Value,
    kid: String,
    signing: EncodingKey,
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let point = key.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
        Self {
            jwk,
            kid: kid.to_owned(),
            signing: EncodingKey::from_ec_der(&key.serialize_der()),
        }
    }

    /// A token that nobody has seen before: what is remembered of others does not vouch for it.
    fn token(&self) -> String {
        self.token_of("me")
    }

    /// The same for another person.
    pub fn token_of(&self, sub: &str) -> String {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::ES256)
        };
        let exp = clock::now() + 3600;
        let claims =
            json!({"iss": "me", "aud": "me.com", "sub": sub, "exp": exp, "jti": Uuid::new_v4().to_string()});
        jsonwebtoken::encode(&header, &claims, &self.signing).unwrap()
    }
}

/// What a request with a new token is answered: the status and `retry-after`.
async fn answered(world: &World, signer: &Signer) -> (u16, bool) {
    let client = world
        .client()
        .with("authorization", format!("Bearer {}", signer.token()));
    let initialize = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let reply = client.rpc("initialize", initialize).await;
    (reply.status, reply.header("retry-after").is_some())
}

/// What the metrics say: issuers without fresh keys, and without any.
async fn without_keys(world: &World) -> (u64, u64) {
    let admin = world.running.as_ref().unwrap().admin.unwrap();
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    (
        value("mcp_auth_issuers_without_fresh_keys "),
        value("mcp_auth_issuers_without_keys "),
    )
}

fn serve(
    port: u16,
    authority: &Authority,
    document: Arc<ArcSwap<String>>,
) -> axum_server::Handle<SocketAddr> {
    let handle = axum_server::Handle::new();
    let (certificate, key) = authority.issue(&["127.0.0.1"]);
    let app = Router::new().route("/keys", get(async move || document.load().to_string()));
    let own = handle.clone();
    tokio::spawn(async move {
        let tls = RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes())
            .await
            .unwrap();
        let server = axum_server::bind_rustls(SocketAddr::from(([127, 0, 0, 1], port)), tls);
        server.handle(own).serve(app.into_make_service()).await.unwrap();
    });
    handle
}

/// Who brings no token is not sent to log in either: nobody could verify what comes back.
async fn is_closed_for_want_of_keys(world: &World) {
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let request = world
            .client()
            .request(method.clone(), "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        let refused = world.client().send(request).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("5")),
            "{method}"
        );
        assert!(refused.header("www-authenticate").is_none(), "{method}");
        assert_eq!(refused.error().1, "authentication keys unavailable", "{method}");
    }
    let preflight = world.client().request(Method::OPTIONS, "/mcp");
    assert_eq!(world.client().send(preflight).await.status, 200);
    assert_eq!(
        world.status().await["keyProblems"],
        json!([{"issuer": "me", "usable": false, "message": "were never loaded: connection refused"}])
    );
    assert_eq!(without_keys(world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_keys_may_come_late_change_and_go_and_the_gateway_is_never_open() {
    let one = Server::start("one", &["forecast"]).await;
    let (authority, port) = (Authority::new(), free_port());
    let text = format!(
        "{}authPolicies:\n- name: ns/policy\n  valid: true\n  defaultAction: Allow\n  providers: [{{name: p, issuer: me, audiences: [me.com], jwksURL: 'https://127.0.0.1:{port}/keys', jwksCACert: {}}}]\n",
        config(&[entry(&one, "one_")]),
        json!(authority.pem())
    );
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let world = World::start_with(&text, &[&one], &[]).await;
    eventually("503 with Retry-After, neither open nor 401", || async {
        (answered(&world, &first).await == (503, true)).then_some(())
    })
    .await;
    is_closed_for_want_of_keys(&world).await;

    let document = Arc::new(ArcSwap::from_pointee(json!({"keys": [first.jwk]}).to_string()));
    let server = serve(port, &authority, Arc::clone(&document));
    eventually("the keys", || async {
        (answered(&world, &first).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(answered(&world, &second).await.0, 401);
    assert!(world.status().await.get("keyProblems").is_none());
    assert_eq!(without_keys(&world).await, (0, 0));

    // Another key under another name: a token that names it makes the gateway look, at most every 30 s.
    document.store(Arc::new(json!({"keys": [second.jwk]}).to_string()));
    eventually_within(Duration::from_secs(90), "the new key is found", async || {
        (answered(&world, &second).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(
        answered(&world, &first).await.0,
        401,
        "the old key went with the change"
    );

    // Nothing is served any more, and it is tried again and again: the last keys stay, and are the only ones.
    server.shutdown();
    world.write_config(&text.replace("jwksURL:", "refreshIntervalSeconds: 1, jwksURL:"));
    let problem = eventually("a failed fetch", || async {
        world.status().await["keyProblems"].get(0).cloned()
    })
    .await;
    assert_eq!(problem["usable"], true, "{problem}");
    let message = problem["message"].as_str().unwrap();
    assert!(message.starts_with("are still those fetched at "), "{message}");
    assert_eq!(answered(&world, &second).await.0, 200);
    assert_eq!(answered(&world, &first).await.0, 401);
    assert_eq!(without_keys(&world).await, (1, 0));
}
