//! The span of a decided message (data-plane.md 18.3): what it was, where it went, and the headers with which the next one
//! joins the trace. Arguments and results are never read here.

use super::decide::Settled;
use crate::decision::{Edits, Head};
use crate::protocol::message::{Message, MessageError};
use crate::telemetry::traces::{Fields, RequestSpan, Traces};

/// Begins the span of a request; nothing when traces are off.
pub fn begin(traces: &Traces, head: &Head) -> Option<RequestSpan> {
    let mut span = traces.begin(&Fields(&|name| head.get(name)))?;
    span.note("http.request.method", head.method());
    span.note("url.path", head.path_only());
    Some(span)
}

/// Says in the span what was decided, lets the next one join, and ends it.
pub fn end(mut span: RequestSpan, read: &Result<Message<'_>, MessageError>, settled: &mut Settled) {
    if let Ok(message) = read {
        describe(&mut span, message);
    }
    match settled {
        Settled::Broker(edits) => join(&mut span, edits, "broker"),
        Settled::Forward(forward) => {
            span.note("mcp.server", &forward.server.name);
            join(&mut span, &mut forward.edits, "forward");
        }
        Settled::Answer(answer) => span.refused(answer.refusal.reason, answer.refusal.status),
        Settled::Policy(failure) => span.refused("policy", failure.status),
    }
}

fn describe(span: &mut RequestSpan, message: &Message<'_>) {
    span.note("mcp.method.name", &message.method);
    if let Some(id) = message.id {
        span.note("jsonrpc.request.id", id);
    }
    if let (Some(name), "tools/call") = (&message.name, message.method.as_ref()) {
        span.note("gen_ai.tool.name", &name.value);
    }
}

fn join(span: &mut RequestSpan, edits: &mut Edits, route: &'static str) {
    span.note("mcp.route", route);
    edits.set.extend(span.headers());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::read;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_on_carries_the_trace_of_the_client() {
        crate::transport::client::install_crypto();
        let traces = Traces::to("http://127.0.0.1:9/v1/traces", "test").unwrap();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let head = Head {
            fields: vec![("traceparent".to_owned(), parent.as_bytes().to_vec())],
            ..Head::default()
        };
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let message = read(body);
        let mut settled = Settled::Broker(Edits::default());
        end(begin(&traces, &head).unwrap(), &message, &mut settled);
        let Settled::Broker(edits) = settled else {
            panic!("changed its way")
        };
        let (name, value) = &edits.set[0];
        assert_eq!((*name, edits.set.len()), ("traceparent", 1));
        assert!(
            value.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && value != parent,
            "{value}"
        );
        assert!(begin(&Traces::default(), &head).is_none());
    }
}
