//! The header phase (data-plane.md 8.3, 8.4, 4.2): whose request it is, what is refused without reading the body, what
//! goes to the broker without one, and which edits every request on an owned host gets.

use super::{Edits, Facts, Guard, Head, Metadata, Rules, forward, internal_headers, resume, stateless};
use crate::aggregation::catalog::Catalog;
use crate::auth::hairpin::HairpinClaims;
use crate::protocol::header;
use crate::protocol::host;
use crate::protocol::reply::{INVALID_REQUEST, Refusal};

/// The decision about the headers.
#[derive(Clone, Debug)]
pub enum HeadDecision {
    /// Not ours: touch nothing.
    Ignore,
    /// Goes on without its body being read.
    Pass(Edits),
    /// A stream of a server is taken up again; these are the edits when none can be led there.
    Resume(Edits),
    /// The body decides; these edits are made at once.
    Body {
        /// Edits.
        edits: Edits,
        /// The reply may have to be rewritten.
        reply: bool,
    },
    /// Answered with a JSON-RPC error without id.
    Refuse(Refusal),
    /// Answered with plain text.
    Text(u16, &'static str),
}

/// Result of the check of `router-key`.
#[derive(Clone, Debug)]
pub enum HairpinCheck {
    /// No token.
    None,
    /// A token that opens nothing.
    Invalid,
    /// A valid token.
    Valid(Box<HairpinClaims>),
}

const MCP: &str = "/mcp";
const TOKENS: &str = "/tokens";
/// OAuth protected-resource metadata, with and without a path after it.
pub const METADATA: &str = "/.well-known/oauth-protected-resource";
const OWN_PATHS: [&str; 5] = ["/status", "/metrics", "/debug", "/healthz", "/readyz"];
/// Paths of the MCP endpoint itself. Others below `/mcp` are the broker's to refuse.
const ENDPOINTS: [&str; 4] = ["/mcp", "/mcp/", stateless::SESSION_PATH, stateless::PATH];
const GATEWAY_ONLY: [&str; 2] = ["/mcp/elicitation", mcp_gateway_api::envoy_filter::REPAIR_PATH];
/// Set for the broker on its private paths when they come through the gateway: it answers 404 then.
pub const THROUGH_GATEWAY: &str = "x-mcp-through-gateway";

fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True for requests whose caller is authenticated here, when anybody is: those for the MCP endpoint, but not the
/// gateway's own ones, preflights, the metadata and `/tokens` (data-plane.md 11.2), nor what [`judge`] refuses anyway.
pub fn is_for_callers(head: &Head, catalog: &Catalog, hairpin: &HairpinCheck) -> bool {
    matches!(hairpin, HairpinCheck::None)
        && head.method() != "OPTIONS"
        && under(head.path_only(), MCP)
        && !is_gateway_only(head)
        && catalog.origins.allow(origin(head))
        && is_own(head, catalog)
}

fn is_own(head: &Head, catalog: &Catalog) -> bool {
    let (name, path) = (head.host(), head.path_only());
    let shared_path = under(path, MCP) || under(path, TOKENS) || under(path, METADATA);
    let loopback = (host::is_loopback(&name) || host::is_ip_literal(&name)) && shared_path;
    catalog.is_public_host(&name)
        || (!name.is_empty() && name == catalog.hosts.private)
        || catalog.is_server_host(&name)
        || loopback
}

/// Judges the headers.
pub fn judge(
    head: &Head,
    catalog: &Catalog,
    rules: &Rules,
    (hairpin, facts): (&HairpinCheck, &Facts),
) -> HeadDecision {
    if !is_own(head, catalog) {
        return HeadDecision::Ignore;
    }
    let (name, path) = (head.host(), head.path_only());
    match hairpin {
        HairpinCheck::Invalid => return HeadDecision::Text(400, "bad request"),
        HairpinCheck::Valid(claims) => return of_hairpin(head, catalog, claims),
        HairpinCheck::None => {}
    }
    let mut edits = Edits {
        remove: internal_headers(head),
        ..Edits::default()
    };
    if !catalog.is_public_host(&name) && !catalog.hosts.public.is_empty() {
        edits.set.push((":authority", catalog.hosts.public.clone()));
    }
    if under(path, MCP) {
        return of_mcp(head, catalog, (rules, facts), edits);
    }
    if OWN_PATHS.iter().any(|own| under(path, own)) {
        edits.set.push((THROUGH_GATEWAY, "1".to_owned()));
    }
    HeadDecision::Pass(edits)
}

fn of_mcp(head: &Head, catalog: &Catalog, (rules, facts): (&Rules, &Facts), edits: Edits) -> HeadDecision {
    if is_gateway_only(head) {
        return HeadDecision::Text(404, "not found");
    }
    if !catalog.origins.allow(origin(head)) {
        return HeadDecision::Refuse(origin_refusal());
    }
    match head.method() {
        "POST" if ENDPOINTS.contains(&head.path_only()) => match refuse_post(head, rules) {
            Some(refusal) => refusal,
            None if is_for_broker(head, facts) => HeadDecision::Pass(broker_edits(
                head,
                edits,
                head.get(header::MCP_METHOD).unwrap_or_default(),
            )),
            None => HeadDecision::Body {
                edits,
                reply: may_rewrite(head, (catalog, facts)),
            },
        },
        method if resume::is_resumption(head) && ENDPOINTS.contains(&head.path_only()) => {
            HeadDecision::Resume(broker_edits(head, edits, method))
        }
        method => HeadDecision::Pass(broker_edits(head, edits, method)),
    }
}

/// True for paths that are reached inside the broker only.
fn is_gateway_only(head: &Head) -> bool {
    GATEWAY_ONLY.iter().any(|path| under(head.path_only(), path))
}

/// True when the headers of a request of the stateless revision say that the broker answers it. The broker compares them
/// with the body, so that nothing else comes through (data-plane.md 8.4).
fn is_for_broker(head: &Head, facts: &Facts) -> bool {
    let methods = head.all(header::MCP_METHOD);
    stateless::is_by_head(head, facts.claims.is_some())
        && matches!(methods.as_slice(), [method] if !stateless::is_routed(method.trim()))
}

/// True when the reply may have to be rewritten, whatever the body says.
fn may_rewrite(head: &Head, (catalog, facts): (&Catalog, &Facts)) -> bool {
    let by_session = |claims| forward::may_rewrite(head, claims) || catalog.rewrites_replies;
    let claims = facts.claims.as_ref();
    stateless::is_by_head(head, claims.is_some()) || claims.is_some_and(by_session)
}

/// The `Origin`; one that is no text is as bad as a foreign one.
fn origin(head: &Head) -> Option<&str> {
    let present = head.fields.iter().any(|(name, _)| name == "origin");
    present.then(|| head.get("origin").unwrap_or("null"))
}

/// Refusal of a foreign `Origin`.
pub fn origin_refusal() -> Refusal {
    Refusal::new(403, INVALID_REQUEST, "origin not allowed", "origin").with_data(
        r#"{"hint":"add the origin to spec.allowedOrigins of the MCPGatewayExtension"}"#.to_owned(),
    )
}

/// What a POST is refused for by its headers (data-plane.md 4.2).
fn refuse_post(head: &Head, rules: &Rules) -> Option<HeadDecision> {
    if !head.get("content-type").is_some_and(header::is_json) {
        return Some(HeadDecision::Text(
            400,
            "Invalid content type: must be 'application/json'",
        ));
    }
    let accepts = header::accepts(head.get("accept"));
    if !accepts.json && !accepts.sse {
        return Some(HeadDecision::Refuse(Refusal::new(
            406,
            INVALID_REQUEST,
            "not acceptable",
            "accept",
        )));
    }
    let length = head
        .get("content-length")
        .and_then(|text| text.parse::<usize>().ok());
    if length.is_some_and(|length| length > rules.max_body) {
        return Some(HeadDecision::Refuse(too_large()));
    }
    if head.end_of_stream {
        return Some(HeadDecision::Refuse(Refusal::new(
            400,
            crate::protocol::reply::PARSE_ERROR,
            "parse error",
            "parse",
        )));
    }
    None
}

/// Refusal of a body over the limit.
pub fn too_large() -> Refusal {
    Refusal::new(413, INVALID_REQUEST, "request body too large", "body_size")
}

/// Edits of a request that the broker answers: the two captured inputs come back.
pub fn broker_edits(head: &Head, mut edits: Edits, method: &str) -> Edits {
    edits.set.push((header::METHOD, header::encode(method)));
    edits.set.push((header::SERVER_NAME, header::BROKER.to_owned()));
    for name in [header::AUTHORIZED, header::VIRTUAL_SERVER] {
        let values = head.all(name);
        // Repeated inputs select nothing; one line with a comma is no known name either.
        if !values.is_empty() {
            edits.remove.retain(|removed| removed != name);
            edits.set.push((name, values.join(",")));
        }
    }
    edits
        .remove
        .retain(|name| !edits.set.iter().any(|(set, _)| set == name));
    edits.metadata = Metadata {
        text: vec![("method", method.to_owned()), ("route", "broker".to_owned())],
        hints: None,
    };
    edits
}

/// A request of our own: it goes to the server that its token names, without the client's credentials.
fn of_hairpin(head: &Head, catalog: &Catalog, claims: &HairpinClaims) -> HeadDecision {
    let Some(server) = catalog
        .server(&claims.server)
        .filter(|server| server.config.hostname == claims.host)
    else {
        return HeadDecision::Text(400, "bad request");
    };
    let mut edits = Edits {
        remove: internal_headers(head),
        ..Edits::default()
    };
    edits.set.push((":authority", claims.host.clone()));
    edits.set.push((header::METHOD, header::encode(&claims.method)));
    edits
        .set
        .push((header::SERVER_NAME, header::encode(&claims.server)));
    edits
        .remove
        .retain(|name| !edits.set.iter().any(|(set, _)| set == name));
    let credentials = if claims.own_authorization {
        Vec::new()
    } else {
        credentials(head, &server.config.forward_headers)
    };
    edits.guard = Some(Box::new(Guard {
        credentials,
        hairpin: true,
        ..Guard::default()
    }));
    edits.metadata = Metadata {
        text: vec![
            ("method", claims.method.clone()),
            ("server", claims.server.clone()),
            ("route", "hairpin".to_owned()),
        ],
        hints: None,
    };
    HeadDecision::Pass(edits)
}

/// The client's credential headers, but those that the server asked for by name (S4).
pub fn credentials(head: &Head, forwarded: &[String]) -> Vec<(&'static str, String)> {
    header::CREDENTIALS
        .into_iter()
        .filter(|name| !forwarded.iter().any(|kept| kept == name))
        .flat_map(|name| head.all(name).into_iter().map(move |value| (name, value)))
        .collect()
}
