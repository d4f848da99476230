//! What a caller is told who is not authenticated (operator.md 10.3, data-plane.md 2.6, 14): the answers and their
//! challenges, which lead an OAuth client to the metadata of the gateway.

use super::Head;
use crate::aggregation::catalog::Catalog;
use crate::auth::jwt::{TokenError, Verified};
use crate::authn::{Authentication, Unauthenticated};
use crate::protocol::host;
use crate::protocol::reply::{INTERNAL, Refusal, SESSION};
use http::uri::Authority;
use std::sync::Arc;

/// Seconds after which keys may have been loaded.
pub const KEYS_RETRY: u32 = 5;
/// What callers are told while there are no keys.
pub const KEYS_UNAVAILABLE: &str = "authentication keys unavailable";

/// The verified caller, or `None` where nobody is verified.
///
/// # Errors
/// The refusal: 401, 403 or 503.
pub fn caller(
    checked: Authentication,
    head: &Head,
    catalog: &Catalog,
) -> Result<Option<Arc<Verified>>, Refusal> {
    match checked {
        Authentication::NotConfigured => Ok(None),
        Authentication::Verified(caller) => Ok(Some(caller)),
        Authentication::Refused(why) => Err(refusal(&why, head, catalog)),
    }
}

fn refusal(why: &Unauthenticated, head: &Head, catalog: &Catalog) -> Refusal {
    let metadata = format!(
        "resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"",
        base(head, catalog)
    );
    let scope = |scopes: &[String]| format!(", scope=\"{}\"", scopes.join(" "));
    let unauthorized =
        |challenge| Refusal::new(401, SESSION, "unauthorized", "authn").with_challenge(challenge);
    match why {
        Unauthenticated::Missing { scopes } if scopes.is_empty() => {
            unauthorized(format!("Bearer {metadata}"))
        }
        Unauthenticated::Missing { scopes } => unauthorized(format!("Bearer {metadata}{}", scope(scopes))),
        Unauthenticated::Invalid(error) => {
            tracing::debug!(component = "authn", reason = %error, "Token refused");
            let said = described(*error);
            unauthorized(format!(
                "Bearer error=\"invalid_token\", error_description=\"{said}\", {metadata}"
            ))
        }
        Unauthenticated::Scope(scopes) => Refusal::new(403, SESSION, "insufficient scope", "scope")
            .with_challenge(format!(
                "Bearer error=\"insufficient_scope\", {metadata}{}",
                scope(scopes)
            )),
        Unauthenticated::KeysUnavailable => {
            Refusal::new(503, INTERNAL, KEYS_UNAVAILABLE, "authn_keys").retry_after(KEYS_RETRY)
        }
    }
}

/// What the holder of a refused token can do about it.
fn described(error: TokenError) -> &'static str {
    match error {
        TokenError::Time => "the token has expired or is not valid yet: get a new one",
        TokenError::Audience => "the token is for somebody else: its aud must name this gateway",
        TokenError::Issuer => "the token is of an issuer that no policy here trusts",
        TokenError::UnknownKey | TokenError::Signature => "the issuer's keys do not verify the token",
        TokenError::Malformed | TokenError::TooLarge | TokenError::Unsupported | TokenError::Algorithm => {
            "the token is none that this gateway can verify"
        }
    }
}

/// `<scheme>://<public host>[:<port>]` as the caller knows it, who asked at the port that leads here. A gateway without a
/// public host is known by where it was asked, and there no proxy stands before it that would speak TLS.
pub fn base(head: &Head, catalog: &Catalog) -> String {
    let public = &catalog.hosts.public;
    let forwarded = head
        .get("x-forwarded-proto")
        .filter(|scheme| matches!(*scheme, "http" | "https"));
    let plain = public.is_empty() && !catalog.speaks_tls();
    let scheme = forwarded.unwrap_or(if plain { "http" } else { "https" });
    let asked = head.get(":authority").or_else(|| head.get("host"));
    let asked: Option<Authority> = asked.and_then(|asked| asked.parse().ok());
    let asked = asked
        .filter(|asked| public.is_empty() || catalog.is_public_host(&host::comparable(asked.host())))
        .map(|asked| canonical(&asked, scheme));
    format!("{scheme}://{}", asked.as_ref().unwrap_or(public))
}

/// Lower case, without trailing dot, user and the port that the scheme implies (data-plane.md 2.6).
fn canonical(asked: &Authority, scheme: &str) -> String {
    let name = asked.host().trim_end_matches('.').to_ascii_lowercase();
    let implied = if scheme == "https" { 443 } else { 80 };
    match asked.port_u16().filter(|port| *port != implied) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::jwt::tests::{self, Issuer, attacks};
    use crate::authn::Authenticator;
    use crate::config::document;
    use crate::transport::address::AddressPolicy;
    use serde_json::json;

    #[test]
    fn a_challenge_leads_to_the_port_that_was_asked() {
        let mut catalog = Catalog::default();
        let based = |catalog: &Catalog, authority: &str, scheme: Option<&str>| {
            let asked = [(":authority", Some(authority)), ("x-forwarded-proto", scheme)];
            let fields = asked
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.as_bytes().to_vec())));
            let head = Head {
                fields: fields.collect(),
                ..Head::default()
            };
            base(&head, catalog)
        };
        let open = [
            ("127.0.0.1:8080", None, "http://127.0.0.1:8080"),
            ("[::1]:8080", None, "http://[::1]:8080"),
            ("me@LocalHost.:80", None, "http://localhost"),
            ("a\"b", None, "http://"),
        ];
        for (authority, scheme, expected) in open {
            assert_eq!(based(&catalog, authority, scheme), expected, "{authority}");
        }
        catalog.hosts.public = "mcp.test".into();
        let behind = [
            ("MCP.test.", None, "https://mcp.test"),
            ("mcp.test:443", Some("https"), "https://mcp.test"),
            ("mcp.test:8443", Some("https"), "https://mcp.test:8443"),
            ("mcp.test:8080", Some("http"), "http://mcp.test:8080"),
            ("mcp.test:443", Some("http"), "http://mcp.test:443"),
            ("mcp.test:80\", x=\"y", Some("http"), "http://mcp.test"),
            ("private.local:8080", Some("http"), "http://mcp.test"),
            ("mcp.test:8443", Some("gopher"), "https://mcp.test:8443"),
        ];
        for (authority, scheme, expected) in behind {
            assert_eq!(based(&catalog, authority, scheme), expected, "{authority}");
        }
    }

    #[tokio::test]
    async fn every_attack_on_a_token_is_answered_with_401_and_the_challenge() {
        let issuer = Issuer::ec("one", "P-256");
        let config = json!({"authPolicies": [{"name": "ns/policy", "providers": [{"name": "p",
            "issuer": "https://issuer.test", "audiences": ["https://mcp.test/mcp"], "algorithms": ["ES256", "ES384", "ES512", "EdDSA"],
            "jwks": issuer.jwk.to_string()}]}]});
        let config = document::read(config.to_string().as_bytes()).unwrap();
        let authenticator = Authenticator::new(AddressPolicy::Strict, String::new());
        authenticator.apply(&config);
        let (head, catalog) = (Head::default(), Catalog::default());
        let answered = async |shown: &[String]| {
            let checked = authenticator.check(shown, tests::NOW).await;
            caller(checked, &head, &catalog).map_or_else(|refused| refused.status, |_| 200)
        };
        let bearer = |token: &str| format!("Bearer {token}");
        let good = issuer.sign(&issuer.header(), &tests::good_claims().to_string());
        assert_eq!(answered(&[bearer(&good)]).await, 200);
        assert_eq!(
            answered(&[bearer(&good), bearer(&good)]).await,
            401,
            "two headers"
        );
        assert_eq!(answered(&[]).await, 401);
        for (name, token, _) in attacks::all(&issuer) {
            assert_eq!(answered(&[bearer(&token)]).await, 401, "{name}");
        }
    }
}
