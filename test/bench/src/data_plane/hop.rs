//! A bare hop: axum in front, hyper behind, method and tool name read, nothing else. What any gateway in Rust pays.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;

/// Options of `bench hop`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Where requests go.
    #[arg(long)]
    to: Uri,
}

struct Hop {
    client: Client<HttpConnector, Body>,
    to: Uri,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    method: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<std::borrow::Cow<'a, str>>,
}

async fn forward(State(hop): State<Arc<Hop>>, body: Bytes) -> Response<Body> {
    let read = serde_json::from_slice::<Call<'_>>(&body);
    let named = read.is_ok_and(|call| {
        call.method == "tools/call" && call.params.is_some_and(|params| params.name.is_some())
    });
    if !named {
        return status(StatusCode::BAD_REQUEST);
    }
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = hop.to.clone();
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match hop.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => status(StatusCode::BAD_GATEWAY),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Serves until the process is killed.
pub(crate) async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let hop = Arc::new(Hop {
        client,
        to: arguments.to.clone(),
    });
    let router = Router::new().fallback(forward).with_state(hop);
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    Ok(axum::serve(listener, router).await?)
}
