//! Servers of 2024-11-05: an event stream whose first event names the endpoint that takes messages.

use super::link::{Link, LinkError, QUEUE};
use crate::protocol::{header, sse};
use crate::transport::address::AddressPolicy;
use crate::transport::client::server_client;
use crate::transport::exchange;
use axum::http::HeaderMap;
use futures::StreamExt as _;
use reqwest::{Client, Response};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

/// From the head of the stream to its first event.
const ENDPOINT: Duration = Duration::from_secs(30);

/// Opens a stream; `headers` are those of the request that opens the session.
pub(super) async fn open(
    url: &Url,
    (bundles, addresses): (&[&str], AddressPolicy),
    headers: &HeaderMap,
    end: CancellationToken,
) -> Result<Link, LinkError> {
    let client = server_client(bundles, addresses).map_err(|error| stream(&error))?;
    let headers = passed(headers);
    let request = client.get(url.clone()).headers(headers.clone());
    let request = request.header("accept", "text/event-stream");
    let response = exchange::send(request).await.map_err(|error| stream(&error))?;
    let status = response.status();
    let content_type = response.headers().get("content-type");
    if !status.is_success() || !content_type.is_some_and(|value| value.to_str().is_ok_and(header::is_sse)) {
        return Err(LinkError::Stream(format!(
            "no event stream, HTTP status {}",
            status.as_u16()
        )));
    }
    let (to, mut incoming) = mpsc::channel(QUEUE);
    tokio::spawn(read(response, to, end.clone()));
    let first = timeout(ENDPOINT, incoming.recv()).await.ok().flatten();
    let endpoint = first.and_then(|text| url.join(text.trim()).ok());
    // The server's own credential is sent there: no other host gets it.
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.origin() == url.origin()) else {
        end.cancel();
        return Err(LinkError::Stream("no endpoint of the same origin".to_owned()));
    };
    let (outgoing, messages) = mpsc::channel(QUEUE);
    tokio::spawn(write((client, endpoint, headers), messages, end.clone()));
    Ok(Link {
        outgoing,
        incoming,
        end,
    })
}

fn stream(error: &dyn std::fmt::Display) -> LinkError {
    LinkError::Stream(error.to_string())
}

/// What the gateway sends with every request to this server, credentials included.
fn passed(headers: &HeaderMap) -> HeaderMap {
    let own = |name: &str| header::is_own_of_hop(name) || header::is_internal(name);
    let kept = headers.iter().filter(|(name, _)| !own(name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn read(response: Response, to: mpsc::Sender<String>, end: CancellationToken) {
    let (mut chunks, mut decoder) = (response.bytes_stream(), sse::Decoder::default());
    loop {
        let chunk = tokio::select! {
            () = end.cancelled() => return,
            chunk = chunks.next() => chunk,
        };
        let Some(Ok(chunk)) = chunk else { break };
        let Ok(events) = decoder.push(&chunk) else { break };
        for event in events.into_iter().filter(|event| !event.data.is_empty()) {
            if to.send(event.data).await.is_err() {
                return end.cancel();
            }
        }
    }
    end.cancel();
}

async fn write(
    (client, endpoint, headers): (Client, Url, HeaderMap),
    mut messages: mpsc::Receiver<String>,
    end: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            () = end.cancelled() => return,
            message = messages.recv() => message,
        };
        let Some(message) = message else { break };
        let request = client.post(endpoint.clone()).headers(headers.clone());
        let request = request.header("content-type", "application/json").body(message);
        match exchange::send(request).await {
            Ok(response) if response.status().is_success() => {}
            _ => break,
        }
    }
    end.cancel();
}
