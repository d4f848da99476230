//! What a caller is told who is not authenticated (operator.md 10.3, data-plane.md 2.6, 14): the answers and their
//! challenges, which lead an OAuth client to the metadata of the gateway.

use super::Head;
use crate::aggregation::catalog::Catalog;
use crate::auth::jwt::Verified;
use crate::authn::{Authentication, Unauthenticated};
use crate::protocol::reply::{INTERNAL, Refusal, SESSION};
use std::sync::Arc;

/// Seconds after which keys may have been loaded.
const KEYS_RETRY: u32 = 5;

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
            unauthorized(format!("Bearer error=\"invalid_token\", {metadata}"))
        }
        Unauthenticated::Scope(scopes) => Refusal::new(403, SESSION, "insufficient scope", "scope")
            .with_challenge(format!(
                "Bearer error=\"insufficient_scope\", {metadata}{}",
                scope(scopes)
            )),
        Unauthenticated::KeysUnavailable => {
            Refusal::new(503, INTERNAL, "authentication keys unavailable", "authn_keys")
                .retry_after(KEYS_RETRY)
        }
    }
}

/// `<scheme>://<public host>` as the caller knows it; a gateway without a public host is known by where it was asked, and
/// there no proxy stands before it that would speak TLS.
pub fn base(head: &Head, catalog: &Catalog) -> String {
    let public = &catalog.hosts.public;
    let forwarded = head
        .get("x-forwarded-proto")
        .filter(|scheme| matches!(*scheme, "http" | "https"));
    let plain = public.is_empty() && !catalog.speaks_tls();
    let scheme = forwarded.unwrap_or(if plain { "http" } else { "https" });
    let asked = head.host();
    let name = match head.get("host") {
        Some(host) if public.is_empty() => host,
        _ if public.is_empty() || catalog.is_public_host(&asked) => &asked,
        _ => public,
    };
    format!("{scheme}://{name}")
}
