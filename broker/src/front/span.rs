//! The span of what the gateway answers itself (data-plane.md 18.3).

use crate::decision::Head;
use crate::protocol::message::Message;
use crate::telemetry::traces::{Fields, Traces};
use axum::response::Response;

/// The response to a message, in a span of its own when traces are on.
pub(super) async fn traced(
    traces: &Traces,
    (head, message): (&Head, &Message<'_>),
    answered: impl Future<Output = Response>,
) -> Response {
    let begun = traces.begin("mcp-broker.handle-request", &Fields(&|name| head.get(name)));
    let Some(mut span) = begun else {
        return answered.await;
    };
    span.note("mcp.method.name", &message.method);
    let part = part_of(message).map(|part| span.part(part));
    let response = answered.await;
    drop(part);
    span.status(response.status().as_u16());
    response
}

/// The part of a span in which the gateway answers a message of this kind.
fn part_of(message: &Message<'_>) -> Option<&'static str> {
    let tool = message.name.as_ref().map(|name| &*name.value);
    match (message.method.as_ref(), tool) {
        ("tools/list", _) => Some("mcp-broker.tools-list"),
        ("prompts/list", _) => Some("mcp-broker.prompts-list"),
        ("resources/list" | "resources/templates/list", _) => Some("mcp-broker.resources-list"),
        ("tools/call", Some("discover_tools")) => Some("discover_tools"),
        ("tools/call", Some("select_tools")) => Some("select_tools"),
        _ => None,
    }
}
