//! The check over several providers, what is remembered and for how long, and keys that are fetched.

use super::*;
use crate::config::document;
use axum::Router;
use axum::routing::get;
use std::time::Duration;
use tokio::time::Instant;

const NOW: u64 = 1_800_000_000;
pub(super) const JWK: &str = r#"{"use":"sig","kty":"EC","kid":"XhO06x8JjWH1wwkWkyeEUxsooGEWoEdidEpwyd_hmuI","crv":"P-256","alg":"ES256","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;
/// The token of the user's guide: iss me, aud me.com, sub me, exp 1900650294.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w";

fn authenticator(document: &str) -> Authenticator {
    let authenticator = Authenticator::new(AddressPolicy::Unchecked, "https://mcp.test/mcp".into());
    authenticator.apply(&document::read(document.as_bytes()).unwrap());
    authenticator
}

fn local(extra: &str) -> String {
    format!(
        "authn: {{type: jwt, issuer: me, audience: me.com, jwks: {{type: local, source: {{type: inline, data: '{JWK}'}}}}{extra}}}"
    )
}

fn bearer(token: &str) -> Vec<String> {
    vec![format!("Bearer {token}")]
}

fn outcome(checked: &Authentication) -> &'static str {
    match checked {
        Authentication::NotConfigured => "not configured",
        Authentication::Verified(_) => "verified",
        Authentication::Refused(Unauthenticated::Missing { .. }) => "missing",
        Authentication::Refused(Unauthenticated::Invalid(_)) => "invalid",
        Authentication::Refused(Unauthenticated::Scope(_)) => "scope",
        Authentication::Refused(Unauthenticated::KeysUnavailable) => "keys",
    }
}

#[tokio::test]
async fn a_token_is_demanded_as_soon_as_there_is_a_provider() {
    let open = authenticator("servers: []");
    assert_eq!(outcome(&open.check(&[], NOW).await), "not configured");
    let closed = authenticator(&local(""));
    assert_eq!(outcome(&closed.check(&[], NOW).await), "missing");
    assert_eq!(outcome(&closed.check(&bearer(TOKEN), NOW).await), "verified");
    for bad in [
        vec![TOKEN.to_owned()],
        vec![format!("Basic {TOKEN}")],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![format!("Bearer {TOKEN} {TOKEN}")],
        vec![format!("Bearer {TOKEN}, Bearer {TOKEN}")],
        [bearer(TOKEN), bearer(TOKEN)].concat(),
        vec![String::new()],
    ] {
        assert_eq!(outcome(&closed.check(&bad, NOW).await), "invalid", "{bad:?}");
    }
}

#[tokio::test]
async fn a_verified_identity_is_dropped_at_expiry_and_when_the_providers_change() {
    let checked = authenticator(&local(""));
    assert_eq!(
        outcome(&checked.check(&bearer(TOKEN), 1_900_650_290).await),
        "verified"
    );
    assert_eq!(
        outcome(&checked.check(&bearer(TOKEN), 1_900_650_294 + 30).await),
        "invalid"
    );
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "verified");
    let other = local("").replace("issuer: me", "issuer: you");
    checked.apply(&document::read(other.as_bytes()).unwrap());
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "invalid");
}

#[tokio::test]
async fn s23_fifty_thousand_verified_callers_are_remembered_for_a_minute() {
    let checked = authenticator(&local(""));
    let Authentication::Verified(known) = authenticator(&local("")).check(&bearer(TOKEN), NOW).await else {
        panic!("not verified")
    };
    let caller = |number: u64| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Arc::new(Verified::new(known.claims.clone(), digest))
    };
    let remember = |number: u64, now: u64| {
        let caller = caller(number);
        checked.remember(&caller, checked.epoch.now(), now);
        checked.recall(&caller.digest, now).is_some()
    };
    assert!((0..50_000).all(|number| remember(number, NOW)));
    assert!(!remember(50_000, NOW), "one more is verified at each request");
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "verified");
    assert_eq!(checked.remembered.lock().unwrap().len(), 50_000);
    assert!(checked.recall(&caller(0).digest, NOW + 59).is_some());
    assert!(checked.recall(&caller(0).digest, NOW + 60).is_none());
    assert!(remember(50_000, NOW + 60), "those that are over make room");
    assert_eq!(checked.remembered.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn required_scopes_are_demanded_and_named() {
    let checked = authenticator(&local(", requiredScopes: [mcp, tools]"));
    let refused = checked.check(&bearer(TOKEN), NOW).await;
    assert!(
        matches!(refused, Authentication::Refused(Unauthenticated::Scope(scopes)) if scopes == ["mcp", "tools"])
    );
    let missing = checked.check(&[], NOW).await;
    assert!(
        matches!(missing, Authentication::Refused(Unauthenticated::Missing { scopes }) if scopes == ["mcp", "tools"])
    );
}

#[tokio::test]
async fn algorithms_that_the_provider_does_not_list_are_refused() {
    let checked = authenticator(&local(", algorithms: [RS256]"));
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "invalid");
    let unknown_only = authenticator(&local(", algorithms: [none, HS256]"));
    assert_eq!(outcome(&unknown_only.check(&bearer(TOKEN), NOW).await), "invalid");
}

/// A key server whose document can be exchanged; an empty one answers 503.
pub(super) async fn key_server(document: Arc<ArcSwap<String>>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let app = Router::new().route(
        "/jwks.json",
        get(async move || {
            let text = document.load().to_string();
            if text.is_empty() {
                return (axum::http::StatusCode::SERVICE_UNAVAILABLE, text);
            }
            (axum::http::StatusCode::OK, text)
        }),
    );
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, task)
}

async fn until(checked: &Authenticator, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while outcome(&checked.check(&bearer(TOKEN), NOW).await) != wanted {
        assert!(Instant::now() < deadline, "not {wanted} within 20 s");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_that_were_never_loaded_are_503_and_loaded_ones_outlive_their_server() {
    let document = Arc::new(ArcSwap::from_pointee(String::new()));
    let (url, server) = key_server(Arc::clone(&document)).await;
    let config =
        format!("authn: {{type: jwt, issuer: me, audience: me.com, jwks: {{type: remote, url: '{url}'}}}}");
    let checked = authenticator(&config);
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "keys");
    for nobody in [Vec::new(), vec!["Basic x".to_owned()], bearer("x.y.z")] {
        assert_eq!(outcome(&checked.check(&nobody, NOW).await), "keys", "{nobody:?}");
    }
    let problem = |usable, message: &str| KeyProblem {
        issuer: "me".to_owned(),
        usable,
        message: message.to_owned(),
    };
    assert_eq!(
        checked.problems(),
        [problem(false, "were never loaded: answered 503")]
    );
    document.store(Arc::new(JWK.to_owned()));
    until(&checked, "verified").await;
    assert!(checked.problems().is_empty());
    server.abort();
    let _ = server.await;
    checked.apply(&document::read(config.as_bytes()).unwrap());
    assert_eq!(
        outcome(&checked.check(&bearer(TOKEN), NOW).await),
        "verified",
        "the set is kept over a reload"
    );
    let another_pace = config.replace("type: remote,", "type: remote, refreshIntervalSeconds: 77,");
    checked.apply(&document::read(another_pace.as_bytes()).unwrap());
    assert_eq!(
        outcome(&checked.check(&bearer(TOKEN), NOW).await),
        "verified",
        "and over a change of the refresh interval"
    );
}

#[tokio::test]
async fn a_key_url_without_tls_or_on_the_own_machine_is_used_nowhere_but_in_tests() {
    let config =
        "authn: {type: jwt, issuer: me, audience: me.com, jwks: {type: remote, url: 'http://127.0.0.1:1/'}}";
    let strict = Authenticator::new(AddressPolicy::Strict, String::new());
    for (url, why) in [
        ("http://127.0.0.1:1/", "the key URL must be https"),
        ("https://127.0.0.1:1/", "address not allowed"),
        ("https://[::1]:1/", "address not allowed"),
    ] {
        let config = config.replace("http://127.0.0.1:1/", url);
        strict.apply(&document::read(config.as_bytes()).unwrap());
        assert_eq!(outcome(&strict.check(&bearer(TOKEN), NOW).await), "keys");
        assert_eq!(strict.problems()[0].message, format!("cannot be used: {why}"));
    }
}

#[tokio::test]
async fn one_issuer_without_keys_does_not_close_the_door_to_those_of_another() {
    let provider =
        |issuer: &str, keys: &str| format!("{{name: p, issuer: {issuer}, audiences: [me.com], {keys}}}");
    let (absent, there) = (
        provider("me", "jwksURL: 'http://127.0.0.1:1/'"),
        provider("you", &format!("jwks: '{JWK}'")),
    );
    let checked = authenticator(&format!(
        "authPolicies: [{{name: a/b, defaultAction: Allow, providers: [{absent}, {there}]}}]"
    ));
    assert_eq!(outcome(&checked.check(&bearer(TOKEN), NOW).await), "keys");
    assert_eq!(
        outcome(&checked.check(&[], NOW).await),
        "missing",
        "a token of the other issuer would be good"
    );
}
