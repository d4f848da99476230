use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use std::sync::Arc;
use tokio::sync::mpsc;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that hands over what it gets.
async fn collector() -> (String, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(8);
    let app = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(body).await;
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, receiver)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_joins_the_clients_trace_and_reaches_the_collector() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (url, mut received) = collector().await;
    let endpoint = Endpoint::Http(url);
    let traces = Arc::new(Traces::to(&endpoint, "gateway-under-test").unwrap());
    let read = |name: &str| (name == "traceparent").then_some(PARENT);
    let mut span = traces.begin("mcp-router.process", &Fields(&read)).unwrap();
    span.note("gen_ai.tool.name", "one_add");
    span.refused("session", 404);
    let headers = span.headers();
    assert_eq!(headers.len(), 1, "{headers:?}");
    let (name, value) = &headers[0];
    assert_eq!(*name, "traceparent");
    assert!(
        value.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && *value != PARENT,
        "{value}"
    );
    drop(span);
    let flushing = Arc::clone(&traces);
    tokio::task::spawn_blocking(move || flushing.flush())
        .await
        .unwrap();
    let body = tokio::time::timeout(Duration::from_secs(10), received.recv())
        .await
        .unwrap()
        .unwrap();
    let trace = hex::decode("0af7651916cd43dd8448eb211c80319c").unwrap();
    let parent = hex::decode("b7ad6b7169203331").unwrap();
    for part in [
        trace.as_slice(),
        &parent,
        b"mcp-router.process",
        b"gateway-under-test",
        b"gen_ai.tool.name",
        b"one_add",
        b"error.type",
    ] {
        assert!(contains(&body, part), "{part:?} is missing");
    }
}

#[test]
fn without_an_endpoint_there_is_no_span() {
    assert!(
        Traces::default()
            .begin("mcp-router.process", &Fields(&|_| None))
            .is_none()
    );
    assert_eq!(endpoint(|_| None), Ok(None));
}

#[test]
fn endpoints_follow_the_rules_of_otlp() {
    let only = |name: &'static str, value: &'static str| {
        endpoint(move |asked: &str| (asked == name).then(|| value.to_owned()))
    };
    assert_eq!(
        only("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
        Ok(Some(Endpoint::Http("http://collector:4318/v1/traces".to_owned())))
    );
    assert_eq!(
        only("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/x"),
        Ok(Some(Endpoint::Http("https://c/x".to_owned())))
    );
    assert_eq!(
        only("OTEL_EXPORTER_OTLP_ENDPOINT", "rpc://collector:4317"),
        Ok(Some(Endpoint::Grpc("https://collector:4317".to_owned())))
    );
    let plain = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("rpc://collector:4317".to_owned()),
        "OTEL_EXPORTER_OTLP_INSECURE" => Some("true".to_owned()),
        _ => None,
    };
    assert_eq!(
        endpoint(plain),
        Ok(Some(Endpoint::Grpc("http://collector:4317".to_owned())))
    );
    for wrong in ["grpc://collector:4317", "collector:4317"] {
        assert!(only("OTEL_EXPORTER_OTLP_ENDPOINT", wrong).is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_over_grpc() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (sender, mut received) = mpsc::channel(8);
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let app = Router::new().route(
        path,
        post(move |body: Bytes| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(body).await;
                // An empty message, and that all is well.
                let kind = ("content-type", "application/grpc");
                ([kind, ("grpc-status", "0")], vec![0_u8; 5])
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Grpc(format!("http://{}", listener.local_addr().unwrap()));
    let routes = tonic::service::Routes::from(app);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_routes(routes);
    tokio::spawn(server.serve_with_incoming(incoming));
    let traces = Traces::to(&endpoint, "gateway-under-test").unwrap();
    let request = traces.begin("mcp-router.process", &Fields(&|_| None)).unwrap();
    drop(request.part("mcp-router.session-init"));
    drop(request);
    drop(traces.alone("mcp-broker.upstream-manage"));
    let flushing = traces.clone();
    let flushed = tokio::task::spawn_blocking(move || flushing.flush());
    let body = tokio::time::timeout(Duration::from_secs(10), received.recv());
    let body = body.await.unwrap().unwrap();
    for part in [
        "mcp-router.process",
        "mcp-router.session-init",
        "mcp-broker.upstream-manage",
        "gateway-under-test",
    ] {
        assert!(contains(&body, part.as_bytes()), "{part} is missing");
    }
    flushed.await.unwrap();
}
