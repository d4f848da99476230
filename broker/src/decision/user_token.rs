//! Servers that want a token of the person behind the client (data-plane.md 11.5): whether one is there, and what the
//! client is answered when not, with a session and without. Departure from 8.6: the router answers itself instead of sending the call to the broker's
//! `/mcp/elicitation`; the client sees the same.

use super::repair::UserToken;
use super::{Decision, Facts, Head, Need, message::answer};
use super::{access, bridge};
use crate::aggregation::catalog::{Catalog, Server};
use crate::auth::identity;
use crate::auth::keys::Keys;
use crate::auth::pool::{self, Behalf};
use crate::auth::session::SessionClaims;
use crate::protocol::json::quoted;
use crate::protocol::message::Message;
use crate::protocol::reply::{INTERNAL, Refusal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// JSON-RPC: the person has to visit a URL first.
pub const URL_ELICITATION: i32 = -32042;
/// Path of the built-in page.
pub const PAGE: &str = "/tokens";
/// Methods of the stateless revision whose result may ask for input.
const MAY_ASK: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// Key of the question.
const KEY: &str = "authorization";
const WHY: &str = "Authorization is required to access this service.";
const NOT_ABLE: &str = "MCP server requires a per-user token but the client does not support elicitation";

/// What a visit of the page is about. Kept for two minutes, used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Client session that gets the token.
    pub jti: Uuid,
    /// End of it, Unix seconds.
    pub exp: u64,
    /// Server name.
    pub server: String,
    /// Binding of the person who caused it; `None` for an anonymous session.
    pub bnd: Option<String>,
}

impl Entry {
    /// The entry for a session and a server.
    pub fn new(claims: &SessionClaims, server: &str) -> Self {
        Self {
            jti: claims.jti,
            exp: claims.exp,
            server: server.to_owned(),
            bnd: claims.bnd.clone(),
        }
    }
}

/// The decision that stands in the way of a call, if its server wants a token that is not there.
pub(super) fn missing(
    (head, message, token): (&Head, &Message<'_>, &str),
    (catalog, server): (&Catalog, &Server),
    claims: &SessionClaims,
    facts: &Facts,
) -> Option<Decision> {
    let configured = lacking(server, facts)?;
    let answer = |refusal| answer(message, Some(token), refusal);
    if !can_visit(claims) {
        return Some(answer(not_able(&message.method)));
    }
    Some(with_entry((claims, server, facts), |id| {
        answer(required(&page(configured, head, catalog), id))
    }))
}

/// Where the server's configuration sends people, when the token that it wants is not there.
fn lacking<'a>(server: &'a Server, facts: &Facts) -> Option<&'a String> {
    let configured = server.config.token_url_elicitation.as_ref()?;
    facts.user_token.is_none().then_some(configured)
}

/// The answer that names the entry of the page, or the need for one.
fn with_entry(
    (claims, server, facts): (&SessionClaims, &Server, &Facts),
    answer: impl FnOnce(Uuid) -> Decision,
) -> Decision {
    let need = || Decision::Need(Need::UserToken(claims.clone(), Arc::clone(&server.config)));
    facts.elicitation.map_or_else(need, answer)
}

/// What a refusal of the person's token by the server is answered by, when the call carried one.
pub(super) fn again(
    (head, catalog, server): (&Head, &Catalog, &Server),
    (claims, stateless): (&SessionClaims, bool),
    facts: &Facts,
) -> Option<UserToken> {
    let configured = server.config.token_url_elicitation.as_ref()?;
    facts.user_token.as_ref()?;
    Some(UserToken {
        entry: Entry::new(claims, &server.config.name),
        page: page(configured, head, catalog),
        stateless,
    })
}

/// As [`missing`], for a client without a session: it is asked by the result of its call and calls again.
pub(super) fn missing_without_session(
    (head, message): (&Head, &Message<'_>),
    (catalog, server): (&Catalog, &Server),
    claims: &SessionClaims,
    facts: &Facts,
) -> Option<Decision> {
    let configured = lacking(server, facts)?;
    let method = message.method.as_ref();
    if !MAY_ASK.contains(&method) || !declares_urls(message) {
        return Some(answer(message, None, not_able_without_session(method)));
    }
    Some(with_entry((claims, server, facts), |id| {
        answer(message, None, asked(&page(configured, head, catalog), id))
    }))
}

/// The verified caller as the one whose tokens are kept without a session.
pub(super) fn person_of(head: &Head, keys: &Keys, now: u64) -> Option<pool::Person> {
    let caller = head.caller.as_ref()?;
    pool::person(keys, &identity::binding_of(keys, caller.subject()), now)
}

/// On whose behalf servers are asked for what they list for the caller of `claims` alone.
pub fn behalf(head: &Head, keys: &Keys, claims: &SessionClaims, now: u64) -> Behalf {
    let person = person_of(head, keys, now);
    let tokens =
        person.map(|pool::Person { current, former }| std::iter::once(current).chain(former).collect());
    Behalf {
        session: claims.clone(),
        tokens: tokens.unwrap_or_default(),
    }
}

/// Whether the client says with this request that it can send a person to a URL.
fn declares_urls(message: &Message<'_>) -> bool {
    let text = message.meta.capabilities.unwrap_or_default();
    let capabilities: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    capabilities
        .pointer("/elicitation/url")
        .is_some_and(serde_json::Value::is_object)
}

fn not_able_without_session(method: &str) -> Refusal {
    let refusal = Refusal::new(200, INTERNAL, NOT_ABLE, "user_token");
    if method == "tools/call" {
        refusal.with_result(bridge::complete(&failed(), None))
    } else {
        refusal
    }
}

/// Whether the client can send a person to a URL: it says so, or is of the version before the modes had names.
fn can_visit(claims: &SessionClaims) -> bool {
    claims.cap.contains('u') || (claims.cap.contains('e') && claims.ver == "2025-06-18")
}

fn not_able(method: &str) -> Refusal {
    let refusal = Refusal::new(200, INTERNAL, NOT_ABLE, "user_token");
    if method != "tools/call" {
        return refusal;
    }
    refusal.with_result(failed())
}

/// The result of a call that its client cannot make possible.
fn failed() -> String {
    let text = quoted(NOT_ABLE);
    format!(r#"{{"content":[{{"type":"text","text":{text}}}],"isError":true}}"#)
}

/// Where a person leaves the token, up to the id.
pub fn page(configured: &str, head: &Head, catalog: &Catalog) -> String {
    if !configured.is_empty() {
        let separator = if configured.contains('?') { '&' } else { '?' };
        return format!("{configured}{separator}elicitation_id=");
    }
    format!("{}{PAGE}?elicitation_id=", access::base(head, catalog))
}

/// The error that names the page.
pub fn required(page: &str, id: Uuid) -> Refusal {
    let data = format!(
        r#"{{"elicitations":[{{"mode":"url","elicitationId":"{id}","url":{},"message":"{WHY}"}}]}}"#,
        quoted(&format!("{page}{id}"))
    );
    Refusal::new(200, URL_ELICITATION, "URL elicitation required", "user_token").with_data(data)
}

/// The answer to a client without a session whose token the server refused.
pub fn refused() -> Refusal {
    let what = "MCP server refused the per-user token; call again to give another one";
    Refusal::new(200, INTERNAL, what, "user_token")
}

/// The result that names the page, for a client without a session.
fn asked(page: &str, id: Uuid) -> Refusal {
    let url = quoted(&format!("{page}{id}"));
    let request = format!(
        r#"{{"{KEY}":{{"method":"elicitation/create","params":{{"mode":"url","url":{url},"message":"{WHY}"}}}}}}"#
    );
    let refusal = Refusal::new(200, INTERNAL, "URL elicitation required", "user_token");
    refusal.with_result(bridge::input_required(&request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_golden_shape() {
        let refusal = required("https://mcp.example.com/tokens?elicitation_id=", Uuid::nil());
        assert_eq!(
            refusal.body(Some("7")),
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32042,"message":"URL elicitation required","data":{"elicitations":[{"mode":"url","elicitationId":"00000000-0000-0000-0000-000000000000","url":"https://mcp.example.com/tokens?elicitation_id=00000000-0000-0000-0000-000000000000","message":"Authorization is required to access this service."}]}}}"#
        );
    }

    #[test]
    fn a_configured_page_keeps_its_query() {
        let (head, catalog) = (Head::default(), Catalog::default());
        assert_eq!(
            page("https://a/x", &head, &catalog),
            "https://a/x?elicitation_id="
        );
        assert_eq!(
            page("https://a/x?y=1", &head, &catalog),
            "https://a/x?y=1&elicitation_id="
        );
    }
}
