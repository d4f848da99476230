//! An HTTP listener with bounds on headers and time (data-plane.md 15.1) that ends gracefully, encrypted where it has a
//! certificate.

use super::patience::{Doing, Patient};
use super::tls::{Accepted, ServingPair};
use axum::Router;
use axum::body::HttpBody as _;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

const MAX_HEADER_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 200;
/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 50_000;

/// How connections are served.
#[derive(Clone, Default)]
pub struct Serving {
    /// The certificate, if there is one.
    pub pair: Arc<ServingPair>,
    /// How long a client may take to read a reply that is no stream; zero leaves it to the bound of streams.
    pub write_timeout: Duration,
}

/// Accepts until `stop`; then connections finish what they are doing. Returns when the last one has ended.
pub async fn serve(listener: TcpListener, app: Router, serving: Serving, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tracker = TaskTracker::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (app, serving, stop) = (app.clone(), serving.clone(), stop.clone());
                tracker.spawn(async move {
                    taken(stream, app, &serving, stop).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, mostly: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    tracker.close();
    tracker.wait().await;
}

async fn taken(stream: TcpStream, app: Router, serving: &Serving, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let accepted = tokio::select! {
        () = stop.cancelled() => return,
        accepted = serving.pair.accept(stream) => accepted,
    };
    let timeout = serving.write_timeout;
    match accepted {
        Ok(Accepted::Plain(stream)) => connection(stream, app, timeout, stop).await,
        Ok(Accepted::Tls(stream)) => connection(stream, app, timeout, stop).await,
        Err(error) => {
            tracing::info!(
                component = "front",
                %error,
                "No TLS connection: clients need an https URL and trust in the certificate"
            );
        }
    }
}

/// Requests of HTTP/2 name their host beside the headers.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    if request.version() == Version::HTTP_2
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    app: Router,
    write_timeout: Duration,
    stop: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    let doing = Arc::<Doing>::default();
    let patient = Patient::new(stream, Arc::clone(&doing), write_timeout);
    let service = service_fn(move |request| {
        doing.busy.store(true, Ordering::Release);
        let (answer, doing) = (app.clone().call(with_host(request)), Arc::clone(&doing));
        async move {
            let answer = answer.await;
            let streams = |reply: &axum::response::Response| reply.body().size_hint().exact().is_none();
            let streaming = answer.as_ref().is_ok_and(streams);
            doing.streaming.store(streaming, Ordering::Release);
            doing.busy.store(false, Ordering::Release);
            answer
        }
    });
    let connection = builder.serve_connection(TokioIo::new(patient), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
