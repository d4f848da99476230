//! The gRPC server of the external processor. Each HTTP request of Envoy is one stream with one machine; its fault ends
//! that stream and nothing else.

use super::machine::Machine;
use super::replies::{Extension, Replies};
use crate::pipeline::facts::Pipeline;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use futures::stream::{BoxStream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Streams at once, of all connections (data-plane.md 15.1). Envoy opens no more on one connection either.
pub const MAX_STREAMS: usize = 100_000;
/// Room for the headers beside a body of the largest size.
const MESSAGE_MARGIN: usize = 1024 * 1024;

struct Processor {
    state: Arc<Pipeline>,
    extension: Option<Extension>,
    streams: Arc<Semaphore>,
}

struct ActiveStream {
    state: Arc<Pipeline>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        self.state.metrics.streams_active.dec();
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let Ok(slot) = Arc::clone(&self.streams).try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many streams"));
        };
        self.state.metrics.streams_active.inc();
        let active = ActiveStream {
            state: Arc::clone(&self.state),
            _slot: slot,
        };
        let machine = Machine::new(Arc::clone(&self.state));
        let replies = Replies::new(request.into_inner().boxed(), machine, self.extension);
        // What is counted ends with the stream.
        let replies = replies.map(move |reply| {
            let _ = &active;
            Ok(reply)
        });
        Ok(Response::new(replies.boxed()))
    }
}

/// Serves the router until `stop`; `extension` is when and for how long Envoy is asked to wait longer, `streams` how many
/// requests are decided at once.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    state: Arc<Pipeline>,
    (extension, streams): (Option<Extension>, usize),
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let limit = state.rules.max_body.saturating_add(MESSAGE_MARGIN);
    let streams = Arc::new(Semaphore::new(streams));
    let processor = Processor {
        state,
        extension,
        streams,
    };
    let service = ExternalProcessorServer::new(processor)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    // Streams share a connection: without this a reply waits until Envoy has acknowledged the one before, up to 40 ms.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS as u32))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
}
