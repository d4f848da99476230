//! An external processor that does nothing in the phases in which the router does something: what Envoy and gRPC cost
//! alone.

use std::net::SocketAddr;

use envoy_types::pb::envoy::{
    extensions::filters::http::ext_proc::v3::{
        ProcessingMode, processing_mode::BodySendMode, processing_mode::HeaderSendMode,
    },
    service::ext_proc::v3::{
        BodyResponse, HeadersResponse, ProcessingRequest, ProcessingResponse,
        external_processor_server::{ExternalProcessor, ExternalProcessorServer},
        processing_request::Request as Phase,
        processing_response::Response as Reply,
    },
};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Options of `bench no-op`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
}

struct NoOp;

#[tonic::async_trait]
impl ExternalProcessor for NoOp {
    type ProcessStream = BoxStream<'static, Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let replies = stream::unfold(Some(request.into_inner()), |inbound| async move {
            let mut inbound = inbound?;
            let message = inbound.message().await.ok()??;
            let (reply, last) = reply(message.request);
            Some((Ok(reply), (!last).then_some(inbound)))
        });
        Ok(Response::new(replies.boxed()))
    }
}

/// Headers ask for the body, buffered; the body passes, and the stream ends.
fn reply(phase: Option<Phase>) -> (ProcessingResponse, bool) {
    match phase {
        Some(Phase::RequestHeaders(headers)) if !headers.end_of_stream => {
            let mode = ProcessingMode {
                request_header_mode: HeaderSendMode::Send.into(),
                response_header_mode: HeaderSendMode::Skip.into(),
                request_body_mode: BodySendMode::Buffered.into(),
                response_body_mode: BodySendMode::None.into(),
                request_trailer_mode: HeaderSendMode::Skip.into(),
                response_trailer_mode: HeaderSendMode::Skip.into(),
            };
            let reply = ProcessingResponse {
                response: Some(Reply::RequestHeaders(HeadersResponse::default())),
                mode_override: Some(mode),
                ..ProcessingResponse::default()
            };
            (reply, false)
        }
        Some(Phase::RequestBody(_)) => (of(Reply::RequestBody(BodyResponse::default())), true),
        _ => (of(Reply::RequestHeaders(HeadersResponse::default())), true),
    }
}

fn of(reply: Reply) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(reply),
        ..ProcessingResponse::default()
    }
}

/// Serves until the process is killed.
pub(crate) async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let service = ExternalProcessorServer::new(NoOp);
    Ok(tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .serve(arguments.listen)
        .await?)
}
