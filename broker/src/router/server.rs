//! The gRPC server of the external processor. Each HTTP request of Envoy is one stream with one machine; its fault ends
//! that stream and nothing else.

use super::machine::Machine;
use crate::pipeline::facts::Pipeline;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use futures::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS: u32 = 100_000;
/// Room for the headers beside a body of the largest size.
const MESSAGE_MARGIN: usize = 1024 * 1024;

struct Processor {
    state: Arc<Pipeline>,
}

struct Exchange {
    inbound: Streaming<ProcessingRequest>,
    machine: Machine,
    _active: ActiveStream,
}

struct ActiveStream(Arc<Pipeline>);

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.0.metrics.streams_active.dec();
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        self.state.metrics.streams_active.inc();
        let exchange = Exchange {
            inbound: request.into_inner(),
            machine: Machine::new(Arc::clone(&self.state)),
            _active: ActiveStream(Arc::clone(&self.state)),
        };
        let replies = stream::unfold(Some(exchange), |exchange| async move {
            let mut exchange = exchange?;
            // An error or the end of the inbound side is Envoy's: the request is over.
            let message = exchange.inbound.message().await.ok()??;
            let reply = exchange.machine.step(message.request).await;
            let next = (!exchange.machine.is_done()).then_some(exchange);
            Some((Ok(reply), next))
        });
        Ok(Response::new(replies.boxed()))
    }
}

/// Serves the router until `stop`.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    state: Arc<Pipeline>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let limit = state.rules.max_body.saturating_add(MESSAGE_MARGIN);
    let service = ExternalProcessorServer::new(Processor { state })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    // Streams share a connection: without this a reply waits until Envoy has acknowledged the one before, up to 40 ms.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
}
