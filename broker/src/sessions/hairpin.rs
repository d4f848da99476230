//! Requests of our own that go to an MCP server *through* the gateway's private host, so that the policies on the
//! server's route apply to them (data-plane.md 9).

use super::way::OwnRequest;
use crate::auth::clock;
use crate::auth::hairpin::{Door, mint};
use crate::auth::keys::Keys;
use crate::options::PrivateHost;
use crate::protocol::header;
use crate::transport::client::{ClientError, hairpin_client};
use crate::transport::exchange::{self, ExchangeError};
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Servers for which the name that TLS verified is remembered.
const MAX_REMEMBERED: usize = 1000;

/// Sends hairpin requests.
pub struct Hairpin {
    target: PrivateHost,
    public_host: String,
    keys: Arc<Keys>,
    client: ArcSwap<Client>,
    /// Servers whose hairpin is verified by the public host instead of the server's hostname.
    by_public_host: Mutex<HashMap<String, ()>>,
}

impl Hairpin {
    /// A hairpin to `target`.
    ///
    /// # Errors
    /// [`ClientError`] when a bundle is bad.
    pub fn new(
        target: PrivateHost,
        public_host: String,
        keys: Arc<Keys>,
        bundles: &[&str],
    ) -> Result<Self, ClientError> {
        let client = ArcSwap::from_pointee(hairpin_client(bundles, &target)?);
        Ok(Self {
            target,
            public_host,
            keys,
            client,
            by_public_host: Mutex::default(),
        })
    }

    /// Trusts other bundles from now on.
    ///
    /// # Errors
    /// [`ClientError`] when a bundle is bad; the former ones stay in use.
    pub fn trust(&self, bundles: &[&str]) -> Result<(), ClientError> {
        self.client
            .store(Arc::new(hairpin_client(bundles, &self.target)?));
        Ok(())
    }

    /// Sends and waits for the response headers.
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn send(&self, request: &OwnRequest<'_>) -> Result<Response, ExchangeError> {
        if !self.target.tls {
            return exchange::send(self.build(request, &self.target.host)).await;
        }
        let known = self
            .by_public_host
            .lock()
            .is_ok_and(|known| known.contains_key(&request.server.name));
        if known {
            return exchange::send(self.build(request, &self.public_host)).await;
        }
        match exchange::send(self.build(request, &request.server.hostname)).await {
            Err(ExchangeError::Connect(_)) => {
                let response = exchange::send(self.build(request, &self.public_host)).await?;
                if let Ok(mut known) = self.by_public_host.lock()
                    && known.len() < MAX_REMEMBERED
                {
                    known.insert(request.server.name.clone(), ());
                }
                Ok(response)
            }
            other => other,
        }
    }

    /// Sends a client's message through the gateway once more; `host` is the one that the client used. The answer is JSON.
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn again(
        &self,
        headers: HeaderMap,
        host: &str,
        body: String,
    ) -> Result<Response, ExchangeError> {
        let (scheme, name) = if self.target.tls {
            ("https", self.public_host.as_str())
        } else {
            ("http", self.target.host.as_str())
        };
        let url = format!("{scheme}://{}:{}/mcp", bracketed(name), self.target.port);
        let request = self.client.load().post(url).headers(headers);
        let request = request
            .header("host", host)
            .header("accept", "application/json")
            .header("content-type", "application/json");
        exchange::send(request.body(body)).await
    }

    fn build(&self, request: &OwnRequest<'_>, host: &str) -> RequestBuilder {
        let scheme = if self.target.tls { "https" } else { "http" };
        let host = bracketed(host);
        let url = format!("{scheme}://{host}:{}{}", self.target.port, request.server.path);
        let door = Door {
            purpose: request.purpose,
            host: &request.server.hostname,
            path: &request.server.path,
            server: &request.server.name,
            method: request.method,
            own_authorization: request.own_authorization(),
        };
        let token = mint(&self.keys, &door, clock::now());
        let client = self.client.load();
        let builder = client.request(request.payload.method(), url);
        let builder = builder
            .headers(request.headers.clone())
            .header(header::INIT_HOST, &request.server.hostname)
            .header(header::ROUTER_KEY, token)
            .header("user-agent", "mcp-router");
        request.payload.put_into(builder)
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The client's headers that its message carries when it goes through the gateway once more: also its session, what
/// repeats the message, and the inputs that select what it may use.
pub fn as_client(client: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut headers = forwarded(client);
    let inputs = [header::AUTHORIZED, header::VIRTUAL_SERVER];
    let kept = client.iter().filter(|(name, _)| {
        name.starts_with("mcp-") && !header::is_internal(name) || inputs.contains(&name.as_str())
    });
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// The client's headers that a hairpin request carries: not those of the hop, the body, MCP, or the gateway itself.
pub fn forwarded(client: &[(String, Vec<u8>)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in client
        .iter()
        .filter(|(name, _)| !header::is_own_of_hop(name) && !header::is_internal(name))
    {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hairpin_carries_what_policies_read_and_nothing_of_the_hop() {
        let client = [
            (":method", "POST"),
            ("authorization", "Bearer x"),
            ("x-team", "a"),
            ("mcp-session-id", "s"),
            ("content-length", "7"),
            ("accept", "*/*"),
            ("x-mcp-toolname", "forged"),
            ("router-key", "forged"),
            ("host", "h"),
            ("connection", "close"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let headers = forwarded(&client);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-team"]);
    }
}
