//! How requests of the gateway itself reach an MCP server: by hairpin, so that the policies on the server's route apply
//! (data-plane.md 9), or straight to its URL where the front forwards calls itself (13).

use super::hairpin::Hairpin;
use crate::auth::hairpin::Purpose;
use crate::config::ca_bundle::CaBundle;
use crate::config::model::ServerConfig;
use crate::protocol::header;
use crate::transport::address::AddressPolicy;
use crate::transport::carrier::Carrier;
use crate::transport::client::{ClientError, server_client};
use crate::transport::exchange::{self, ExchangeError, Failure};
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use mcp_gateway_api::envoy_filter::REPLY_DETAILS_HEADER;
use reqwest::{Client, Method, RequestBuilder, Response};
use std::collections::HashMap;
use std::sync::Arc;

/// Clients with roots of their own that are kept; past it they are made anew.
const MAX_CLIENTS: usize = 1000;
const BOTH: &str = "application/json, text/event-stream";

/// One request of the gateway to a server.
pub struct OwnRequest<'a> {
    /// To which server.
    pub server: &'a ServerConfig,
    /// What for.
    pub purpose: Purpose,
    /// MCP method, for the policies' `x-mcp-method`.
    pub method: &'a str,
    /// What is sent.
    pub payload: Payload,
    /// Headers beside those that every such request has. A sensitive `authorization` is meant for the server itself.
    pub headers: HeaderMap,
}

/// What a request sends.
pub enum Payload {
    /// POST of a message.
    Post(String),
    /// GET of the event stream.
    Stream,
    /// DELETE of the session.
    End,
}

impl OwnRequest<'_> {
    /// True when `authorization` is for the server itself and not the client's.
    pub fn own_authorization(&self) -> bool {
        self.headers
            .get("authorization")
            .is_some_and(HeaderValue::is_sensitive)
    }
}

impl Payload {
    /// The HTTP method.
    pub fn method(&self) -> Method {
        match self {
            Self::Post(_) => Method::POST,
            Self::Stream => Method::GET,
            Self::End => Method::DELETE,
        }
    }

    /// The request with its body and the headers that go with it.
    pub fn put_into(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Post(body) => request
                .header("accept", BOTH)
                .header("content-type", "application/json")
                .body(body.clone()),
            Self::Stream => request.header("accept", "text/event-stream"),
            Self::End => request.header("accept", BOTH),
        }
    }
}

/// The way to the servers.
pub enum Way {
    /// Through the gateway.
    Hairpin(Box<Hairpin>),
    /// Straight to their URLs.
    Direct(Arc<Direct>),
}

impl Way {
    /// Sends and waits for the response headers.
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`].
    pub async fn send(&self, request: &OwnRequest<'_>) -> Result<Response, ExchangeError> {
        match self {
            Self::Hairpin(hairpin) => hairpin.send(request).await,
            Self::Direct(direct) => direct.send(request).await,
        }
    }

    /// Reads a response that is no success. Without an Envoy in between, every reply is the server's own.
    pub async fn failure(&self, response: Response) -> Failure {
        let failure = exchange::failure(response, REPLY_DETAILS_HEADER).await;
        match self {
            Self::Hairpin(_) => failure,
            Self::Direct(_) => Failure {
                details: Some("via_upstream".to_owned()),
                ..failure
            },
        }
    }

    /// Sends a client's message through the gateway once more, as [`Hairpin::again`].
    ///
    /// # Errors
    /// [`ExchangeError`] as in [`exchange::send`]; without a gateway there is no such way.
    pub async fn again(
        &self,
        headers: HeaderMap,
        host: &str,
        body: String,
    ) -> Result<Response, ExchangeError> {
        match self {
            Self::Hairpin(hairpin) => hairpin.again(headers, host, body).await,
            Self::Direct(_) => Err(ExchangeError::Connect("no gateway to go through")),
        }
    }

    /// Trusts other bundles from now on: the CA file's and the config's.
    ///
    /// # Errors
    /// [`ClientError`] when a bundle is bad; the former ones stay in use.
    pub fn trust(&self, bundles: [&str; 2]) -> Result<(), ClientError> {
        match self {
            Self::Hairpin(hairpin) => hairpin.trust(&bundles),
            Self::Direct(direct) => direct.trust(bundles),
        }
    }
}

/// The clients that reach servers at their URLs.
pub struct Direct {
    addresses: AddressPolicy,
    trusted: ArcSwap<Trusted>,
}

/// Clients by the bundle of the server, under one set of bundles for all.
#[derive(Default)]
struct Trusted {
    bundles: [String; 2],
    clients: ArcSwap<HashMap<CaBundle, Arc<Clients>>>,
}

/// What reaches the servers that trust the same authorities.
pub struct Clients {
    /// For requests of the gateway itself.
    pub own: Client,
    /// For calls of clients.
    pub calls: Carrier,
}

impl Clients {
    fn new(bundles: &[&str], addresses: AddressPolicy) -> Result<Self, ClientError> {
        Ok(Self {
            own: server_client(bundles, addresses)?,
            calls: Carrier::new(bundles, addresses)?,
        })
    }
}

impl Direct {
    /// A way that reaches the addresses that are allowed.
    pub fn new(addresses: AddressPolicy) -> Self {
        Self {
            addresses,
            trusted: ArcSwap::default(),
        }
    }

    fn trust(&self, bundles: [&str; 2]) -> Result<(), ClientError> {
        let clients = Arc::new(Clients::new(&bundles, self.addresses)?);
        self.trusted.store(Arc::new(Trusted {
            bundles: bundles.map(str::to_owned),
            clients: ArcSwap::from_pointee(HashMap::from([(CaBundle::default(), clients)])),
        }));
        Ok(())
    }

    /// The clients for a server.
    ///
    /// # Errors
    /// [`ExchangeError::Connect`] when its address is not allowed or its bundle is bad.
    pub fn clients(&self, server: &ServerConfig) -> Result<Arc<Clients>, ExchangeError> {
        if !self.addresses.allows_literal(server) {
            return Err(ExchangeError::Connect("address not allowed"));
        }
        let trusted = self.trusted.load();
        if let Some(clients) = trusted.clients.load().get(&server.ca) {
            return Ok(Arc::clone(clients));
        }
        let [file, config] = &trusted.bundles;
        let clients = Clients::new(&[file, config, server.ca.pem()], self.addresses)
            .map(Arc::new)
            .map_err(|_| ExchangeError::Connect("CA bundle is not valid"))?;
        trusted.clients.rcu(|known| {
            let mut next = if known.len() < MAX_CLIENTS {
                known.as_ref().clone()
            } else {
                HashMap::new()
            };
            next.insert(server.ca.clone(), Arc::clone(&clients));
            next
        });
        Ok(clients)
    }

    async fn send(&self, request: &OwnRequest<'_>) -> Result<Response, ExchangeError> {
        let (server, own) = (request.server, request.own_authorization());
        let mut headers = request.headers.clone();
        for name in header::CREDENTIALS {
            let wanted = server.forward_headers.iter().any(|forwarded| forwarded == name);
            let for_server = own && name == "authorization";
            if !(wanted || for_server) {
                headers.remove(name);
            }
        }
        for (name, value) in &server.headers {
            // The person's own token for the server goes before what the file says for everybody.
            if !(own && name == "authorization") {
                headers.insert(name, value.clone());
            }
        }
        let clients = self.clients(server)?;
        let builder = clients.own.request(request.payload.method(), server.url.clone());
        let builder = builder.headers(headers).header("user-agent", "mcp-router");
        exchange::send(request.payload.put_into(builder)).await
    }
}
