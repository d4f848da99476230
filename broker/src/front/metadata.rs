//! OAuth protected-resource metadata (data-plane.md 2.6).

use super::FrontState;
use super::mcp::head_of;
use crate::decision::access;
use crate::decision::head::METADATA;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct Metadata<'a> {
    resource_name: &'a str,
    resource: String,
    authorization_servers: &'a [String],
    bearer_methods_supported: &'a [String],
    scopes_supported: &'a [String],
}

/// GET and HEAD give the document, OPTIONS the CORS headers.
pub async fn handle(State(state): State<Arc<FrontState>>, request: Request<Body>) -> Response {
    let mut response = Response::new(Body::empty());
    let servers = servers(&state);
    if servers.is_empty() {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    match *request.method() {
        Method::GET | Method::HEAD => {
            let document = document(&state, &servers, request.headers());
            *response.body_mut() = Body::from(document);
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/json"));
        }
        Method::OPTIONS => {}
        _ => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
    }
    let cors = [
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-methods",
            "GET, POST, PUT, DELETE, OPTIONS, HEAD",
        ),
        (
            "access-control-allow-headers",
            "Content-Type, Authorization, Accept, Origin, X-Requested-With",
        ),
        ("access-control-max-age", "3600"),
    ];
    for (name, value) in cors {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The authorization servers of the flags, else the issuers of the policies' providers.
fn servers(state: &FrontState) -> Vec<String> {
    if state.oauth.authorization_servers.is_empty() {
        state.authenticator.issuers()
    } else {
        state.oauth.authorization_servers.clone()
    }
}

fn document(state: &FrontState, servers: &[String], headers: &HeaderMap) -> String {
    let oauth = &state.oauth;
    let document = Metadata {
        resource_name: &oauth.resource_name,
        resource: resource(state, headers),
        authorization_servers: servers,
        bearer_methods_supported: &oauth.bearer_methods,
        scopes_supported: &oauth.scopes,
    };
    serde_json::to_string(&document).unwrap_or_default()
}

/// The resource is always absolute.
fn resource(state: &FrontState, headers: &HeaderMap) -> String {
    let resource = state.oauth.resource.trim_end_matches('/');
    if !state.oauth.resource.starts_with('/') {
        return resource.to_owned();
    }
    let head = head_of(&Method::GET, METADATA, headers);
    format!("{}{resource}", access::base(&head, &state.published.load()))
}
