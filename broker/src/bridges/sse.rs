//! Servers of 2024-11-05: an event stream whose first event names the endpoint that takes messages.

use super::link::{Link, LinkError, QUEUE};
use crate::config::model::ServerConfig;
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
    server: &ServerConfig,
    (bundles, addresses): (&[&str], AddressPolicy),
    headers: &HeaderMap,
    end: CancellationToken,
) -> Result<Link, LinkError> {
    let url = &server.url;
    if !addresses.allows_literal(server) {
        return Err(LinkError::Stream("address not allowed".to_owned()));
    }
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
    // Whoever waits for this may leave, and a server may be silent: the reader ends with either.
    let unopened = end.clone().drop_guard();
    tokio::spawn(read(response, to, end.clone()));
    let first = timeout(ENDPOINT, incoming.recv()).await.ok().flatten();
    let endpoint = first.and_then(|text| url.join(text.trim()).ok());
    // The server's own credential is sent there: no other host gets it.
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.origin() == url.origin()) else {
        return Err(LinkError::Stream("no endpoint of the same origin".to_owned()));
    };
    let (outgoing, messages) = mpsc::channel(QUEUE);
    tokio::spawn(write((client, endpoint, headers), messages, end.clone()));
    unopened.disarm();
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
            let taken = tokio::select! {
                () = end.cancelled() => return,
                taken = to.send(event.data) => taken.is_ok(),
            };
            if !taken {
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    /// A server whose stream says nothing, how many streams it has, and what tells of a change.
    async fn silent() -> (Url, Arc<AtomicUsize>, Arc<Notify>) {
        struct Stream(Arc<AtomicUsize>, Arc<Notify>);
        impl Drop for Stream {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
                self.1.notify_one();
            }
        }
        let (open, changed) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let state = (Arc::clone(&open), Arc::clone(&changed));
        let answer = move || {
            let (open, changed) = state.clone();
            async move {
                open.fetch_add(1, Ordering::Relaxed);
                changed.notify_one();
                let held = Stream(open, changed);
                let body = futures::stream::unfold(held, |held| async move {
                    std::future::pending::<()>().await;
                    Some((Ok::<_, std::convert::Infallible>(String::new()), held))
                });
                ([("content-type", "text/event-stream")], Body::from_stream(body))
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/sse", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/sse", get(answer));
        tokio::spawn(async { axum::serve(listener, app).await });
        (url.parse().unwrap(), open, changed)
    }

    fn server(url: &Url) -> ServerConfig {
        let text = format!("servers:\n- {{name: a, url: '{url}', transport: sse}}\n");
        let dialect = crate::config::document::Dialect {
            forwards: true,
            local: None,
        };
        let snapshot = crate::config::document::read_as(text.as_bytes(), dialect).unwrap();
        snapshot.servers[0].as_ref().clone()
    }

    #[tokio::test]
    async fn s23_a_stream_ends_when_nobody_waits_for_its_endpoint_any_more() {
        let (url, open, changed) = silent().await;
        let server = server(&url);
        let headers = HeaderMap::new();
        let opening = super::open(
            &server,
            (&[], AddressPolicy::Unchecked),
            &headers,
            CancellationToken::new(),
        );
        tokio::select! {
            _ = opening => panic!("there is no endpoint"),
            () = changed.notified() => {}
        }
        assert!(open.load(Ordering::Relaxed) <= 1);
        let gone = async {
            while open.load(Ordering::Relaxed) > 0 {
                changed.notified().await;
            }
        };
        timeout(Duration::from_secs(20), gone)
            .await
            .expect("the stream leaks");
    }

    #[tokio::test]
    async fn an_address_that_no_server_may_have_is_not_asked() {
        for url in ["http://169.254.169.254/sse", "http://[::1]:1/sse"] {
            let server = server(&url.parse().unwrap());
            let policy = (&[][..], AddressPolicy::Strict);
            let opened = super::open(&server, policy, &HeaderMap::new(), CancellationToken::new()).await;
            assert_eq!(
                opened.err().map(|error| error.to_string()).as_deref(),
                Some("address not allowed")
            );
        }
    }
}
