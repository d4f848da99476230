//! An HTTP listener with bounds on headers and time (data-plane.md 15.1) that ends gracefully, encrypted where it has a
//! certificate.

use super::patience::{Doing, Patient};
use super::stalling;
use super::tls::{Accepted, ServingPair};
use axum::Router;
use axum::body::HttpBody as _;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
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

/// Silence of a connection until its other side is asked for a sign of life.
const ALIVE: Duration = Duration::from_secs(30);

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

/// A client that is gone without a word is noticed.
fn prepare(stream: &TcpStream) {
    let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&alive);
    let _ = stream.set_nodelay(true);
}

async fn taken(stream: TcpStream, app: Router, serving: &Serving, stop: CancellationToken) {
    prepare(&stream);
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
        .keep_alive_interval(ALIVE)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    let doing = Arc::<Doing>::default();
    let patient = Patient::new(stream, Arc::clone(&doing), write_timeout);
    let service = service_fn(move |request| {
        doing.busy.store(true, Ordering::Release);
        let http2 = request.version() == Version::HTTP_2;
        let (answer, doing) = (app.clone().call(with_host(request)), Arc::clone(&doing));
        async move {
            let answer = answer.await;
            let streams = |reply: &axum::response::Response| reply.body().size_hint().exact().is_none();
            let streaming = answer.as_ref().is_ok_and(streams);
            doing.streaming.store(streaming, Ordering::Release);
            doing.busy.store(false, Ordering::Release);
            if http2 {
                answer.map(stalling::watched)
            } else {
                answer
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use http_body_util::Empty;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout};

    #[tokio::test]
    async fn an_accepted_connection_asks_whether_the_client_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), ALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_http2_that_answers_no_ping_ends() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (start, stop) = (Instant::now(), CancellationToken::new());
        let served = tokio::spawn(connection(server, Router::new(), Duration::ZERO, stop));
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        let _ = timeout(Duration::from_secs(600), client.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
        served.await.unwrap();
        assert!(start.elapsed() >= ALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn s23_a_reader_of_http2_that_opens_no_window_holds_no_reply() {
        let (client, server) = tokio::io::duplex(4096);
        let held = CancellationToken::new();
        let holds = held.clone();
        let app = Router::new().route(
            "/",
            get(async move || {
                let guard = holds.drop_guard();
                let chunks = futures::stream::repeat_with(move || {
                    let _held = &guard;
                    Ok::<_, Infallible>(Bytes::from_static(b"x"))
                });
                Body::from_stream(chunks)
            }),
        );
        tokio::spawn(connection(server, app, Duration::ZERO, CancellationToken::new()));
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(0);
        let (mut sender, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://localhost/")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert!(!held.is_cancelled());
        timeout(Duration::from_secs(600), held.cancelled()).await.unwrap();
        drop(reply);
    }
}
