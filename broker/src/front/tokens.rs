//! `/tokens`: the page where a person leaves a token for one MCP server (data-plane.md 11.5). The entry that the link names
//! is used once, by the person who caused it (S15); a wrong person does not consume it.

use super::FrontState;
use super::admitted::foreign;
use super::mcp::{head_of, plain, refuse};
use crate::auth::identity::{self, Binding};
use crate::auth::{clock, vault};
use crate::authn::{Authentication, Unauthenticated};
use crate::decision::user_token::Entry;
use crate::decision::{Head, access};
use crate::secret::Secret;
use crate::sessions::store::Change;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use rand::RngCore as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Largest form, bytes.
const MAX_FORM: usize = 4096;
/// Longest token, characters.
const MAX_TOKEN: usize = 2048;
const BODY_READ: Duration = Duration::from_secs(30);
/// Characters of a CSRF value.
const CSRF: usize = 64;

/// One request on the page.
pub async fn handle(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    if !state.rules.url_elicitation {
        return plain(StatusCode::NOT_FOUND, "not found");
    }
    let (parts, body) = request.into_parts();
    let head = head_of(&parts.method, parts.uri.path(), &parts.headers);
    if let Some(refusal) = foreign(&state, &head) {
        return refuse(&refusal, None);
    }
    let response = match parts.method {
        Method::GET => form(&state, &head, parts.uri.query().unwrap_or_default()).await,
        Method::POST => match read(&head, body).await {
            Ok(fields) => submit(&state, &head, &fields).await,
            Err(problem) => Err(problem),
        },
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "method not allowed")),
    };
    guarded(response.unwrap_or_else(refused))
}

fn refused((status, text): Problem) -> Response {
    let mut response = plain(status, text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let retry = HeaderValue::from(access::KEYS_RETRY);
        response.headers_mut().insert("retry-after", retry);
    }
    response
}

type Problem = (StatusCode, &'static str);

/// Headers that keep the page and what is typed there to itself.
fn guarded(mut response: Response) -> Response {
    let policy = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'";
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", policy),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields
        .iter()
        .find(|(key, _)| key == name)
        .map_or("", |(_, value)| value)
}

fn fields_of(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// The entry that a link names, still there afterwards.
async fn entry(state: &FrontState, id: &str) -> Result<(Uuid, Entry), Problem> {
    let unknown = (StatusCode::BAD_REQUEST, "unknown or expired elicitation_id");
    let id = Uuid::parse_str(id).map_err(|_| unknown)?;
    let text = state
        .store
        .elicitation(id, false)
        .await
        .map_err(|_| UNAVAILABLE)?;
    let entry = text.and_then(|text| serde_json::from_str(&text).ok());
    entry.map(|entry| (id, entry)).ok_or(unknown)
}

const UNAVAILABLE: Problem = (StatusCode::SERVICE_UNAVAILABLE, "session store unavailable");

async fn form(state: &FrontState, head: &Head, query: &str) -> Result<Response, Problem> {
    let fields = fields_of(query.as_bytes());
    let (id, entry) = entry(state, field(&fields, "elicitation_id")).await?;
    let mut bytes = [0; CSRF / 2];
    rand::rng().fill_bytes(&mut bytes);
    let csrf = hex::encode(bytes);
    let server = escaped(&entry.server);
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Access to {server}</title></head>\n\
         <body><h1>Access to {server}</h1>\n<p>The MCP server {server} needs a token of yours. It is kept encrypted and ends \
         with your session. Give the whole value of the Authorization header, for example <code>Bearer …</code>.</p>\n\
         <form method=\"post\" action=\"/tokens\">\n<input type=\"hidden\" name=\"elicitation_id\" value=\"{id}\">\n\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\n<label>Token <input type=\"password\" name=\"token\" \
         maxlength=\"{MAX_TOKEN}\" autocomplete=\"off\" required></label>\n<button type=\"submit\">Save</button>\n</form></body></html>\n"
    );
    let secure = if head.get("x-forwarded-proto") == Some("https") {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!("csrf={csrf}; Path=/tokens; HttpOnly; SameSite=Strict; Max-Age=120{secure}");
    let mut response = html(page);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert("set-cookie", cookie);
    }
    Ok(response)
}

fn html(page: String) -> Response {
    let mut response = Response::new(Body::from(page));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert("content-type", html);
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

async fn read(head: &Head, body: Body) -> Result<Vec<(String, String)>, Problem> {
    let kind = head.get("content-type").unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err((StatusCode::BAD_REQUEST, "a form is expected"));
    }
    match timeout(BODY_READ, axum::body::to_bytes(body, MAX_FORM)).await {
        Ok(Ok(bytes)) => Ok(fields_of(&bytes)),
        _ => Err((StatusCode::BAD_REQUEST, "form not readable or too large")),
    }
}

/// Order matters: CSRF, then who it is, then what is given; only then is the entry used up.
async fn submit(state: &FrontState, head: &Head, fields: &[(String, String)]) -> Result<Response, Problem> {
    let cookie = cookie(head, "csrf").unwrap_or_default();
    if !same(cookie, field(fields, "csrf")) {
        return Err((StatusCode::FORBIDDEN, "csrf check failed"));
    }
    let (id, entry) = entry(state, field(fields, "elicitation_id")).await?;
    if let Some(owner) = &entry.bnd {
        match visitor(state, head).await? {
            None => return Err((StatusCode::FORBIDDEN, "no identity found in request")),
            Some(visitor) if !visitor.is(owner) => return Err((StatusCode::FORBIDDEN, "identity mismatch")),
            Some(_) => {}
        }
    }
    let token = field(fields, "token");
    let length = token.chars().count();
    if length == 0 || length > MAX_TOKEN || token.chars().any(char::is_control) {
        return Err((
            StatusCode::BAD_REQUEST,
            "token missing, too long or with control characters",
        ));
    }
    let sealed = vault::seal(&state.keys, entry.jti, &entry.server, &Secret::new(token))
        .ok_or((StatusCode::INTERNAL_SERVER_ERROR, "internal error"))?;
    let claimed = state.store.elicitation(id, true).await.map_err(|_| UNAVAILABLE)?;
    if claimed.is_none() || entry.exp <= clock::now() {
        return Err((StatusCode::BAD_REQUEST, "unknown or expired elicitation_id"));
    }
    let change = Change::Token(entry.server, Some(sealed));
    match state.store.change(entry.jti, entry.exp, change).await {
        Ok(record) if record.revoked => Err((StatusCode::BAD_REQUEST, "the session has ended")),
        Ok(_) => Ok(html(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Saved</title></head>\
             <body><p>Saved. You can close this page and repeat the call.</p></body></html>\n"
                .to_owned(),
        )),
        Err(_) => Err(UNAVAILABLE),
    }
}

/// Equal in constant time, and of the length that this page gives out.
fn same(a: &str, b: &str) -> bool {
    let pairs = a.bytes().zip(b.bytes());
    a.len() == CSRF && b.len() == CSRF && pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn cookie<'a>(head: &'a Head, name: &str) -> Option<&'a str> {
    let pairs = head.get("cookie")?.split(';');
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Who visits: by `Authorization`, else by the cookie `jwt`; verified where the gateway verifies callers.
async fn visitor(state: &FrontState, head: &Head) -> Result<Option<Binding>, Problem> {
    let mut shown = head.all("authorization");
    if shown.is_empty() {
        shown.extend(cookie(head, "jwt").map(|token| format!("Bearer {token}")));
    }
    Ok(match state.authenticator.check(&shown, clock::now()).await {
        Authentication::Verified(caller) => Some(identity::binding_of(&state.keys, caller.subject())),
        Authentication::NotConfigured => identity::binding(&state.keys, shown.first().map(String::as_str)),
        Authentication::Refused(Unauthenticated::KeysUnavailable) => {
            return Err((StatusCode::SERVICE_UNAVAILABLE, access::KEYS_UNAVAILABLE));
        }
        Authentication::Refused(_) => None,
    })
}
