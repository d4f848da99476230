//! Why a request failed, in words for people: the last cause instead of the types that it went through, and the next step.

use std::error::Error;

use rmcp::{
    service::{ClientInitializeError, ServiceError},
    transport::{DynamicTransportError, streamable_http_client::StreamableHttpError},
};

type HttpError = StreamableHttpError<reqwest::Error>;

/// What is at the bottom of an error: "Connection refused" instead of "error sending request".
pub(crate) fn last_cause(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// Why no session was opened.
pub(crate) fn of_opening(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(error),
        other => with_next_step(&other.to_string()),
    }
}

/// Why a request in a session failed.
pub(crate) fn of_request(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => of_transport(error),
        other => with_next_step(&other.to_string()),
    }
}

fn of_transport(error: &DynamicTransportError) -> String {
    match error.error.downcast_ref::<HttpError>() {
        Some(HttpError::Client(http)) => with_next_step(&last_cause(http)),
        Some(HttpError::AuthRequired(required)) => unauthorized(&required.www_authenticate_header),
        _ => with_next_step(&error.error.to_string()),
    }
}

/// A 401; the challenge says what is wrong with a token that was sent.
fn unauthorized(challenge: &str) -> String {
    let description = challenge
        .split_once("error_description=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    match description {
        Some((why, _)) => {
            format!("HTTP 401: the token is not accepted: {why}; give another one: --token or MCPGW_TOKEN")
        }
        None => "HTTP 401: a token is needed: --token or MCPGW_TOKEN".to_owned(),
    }
}

fn with_next_step(text: &str) -> String {
    let says = |part: &str| text.to_lowercase().contains(part);
    let next = if says("401") || says("auth required") || says("authorization required") {
        "; a token is needed: --token or MCPGW_TOKEN"
    } else if says("403") {
        "; the token does not give the right, or the host is not one of the gateway's"
    } else if says("404") {
        "; is the path right (/mcp), and the host one of the gateway's?"
    } else if says("unknown tool") {
        "; mcpgw tools list shows those that there are for you"
    } else if says("connection refused") {
        "; nothing listens there: see the port, or forward one with kubectl port-forward and give --url"
    } else if says("lookup address") {
        "; DNS does not know the host: see --url, or forward a port with kubectl port-forward"
    } else if says("peer certificate") {
        "; its authority is not known here: SSL_CERT_FILE names a file with it"
    } else if says("invalidcontenttype") || says("corrupt message") {
        "; it does not speak TLS: use http:// in --url"
    } else if says("message completed") || says("closed before") {
        "; it may speak TLS only: use https:// in --url"
    } else {
        ""
    };
    format!("{text}{next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_is_told_why_and_a_missing_one_how_to_give_it() {
        let refused = "Bearer resource_metadata=\"https://x/y\", error=\"invalid_token\", error_description=\"expired\"";
        assert_eq!(
            unauthorized(refused),
            "HTTP 401: the token is not accepted: expired; give another one: --token or MCPGW_TOKEN"
        );
        assert!(unauthorized("Bearer resource_metadata=\"https://x/y\"").contains("a token is needed"));
    }
}
