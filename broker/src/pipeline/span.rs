//! The span of a decided message (data-plane.md 18.3): what it was, where it went, and the headers with which the next one
//! joins the trace. Arguments and results are never read here.

use super::decide::Settled;
use crate::decision::{Edits, Forward, Head, Need};
use crate::protocol::header;
use crate::protocol::message::{Message, MessageError, MessageKind};
use crate::telemetry::traces::{Fields, RequestSpan, Traces};

/// Begins the span of a request; nothing when traces are off.
pub fn begin(traces: &Traces, head: &Head) -> Option<RequestSpan> {
    let mut span = traces.begin("mcp-router.process", &Fields(&|name| head.get(name)))?;
    span.note("http.request.method", head.method());
    span.note("url.path", head.path_only());
    for (name, field) in [
        ("client.address", "x-forwarded-for"),
        ("mcp.protocol.version", header::PROTOCOL_VERSION),
    ] {
        if let Some(value) = head.get(field) {
            span.note(name, value);
        }
    }
    Some(span)
}

/// Says in the span what was decided, lets the next one join, and ends it.
pub fn end(mut span: RequestSpan, read: &Result<Message<'_>, MessageError>, settled: &mut Settled) {
    if let Ok(message) = read {
        describe(&mut span, message);
    }
    match settled {
        Settled::Broker(edits) => {
            span.note("mcp.route", "broker");
            join(&span.part("mcp-router.broker-passthrough"), edits);
        }
        Settled::Forward(forward) => {
            for (name, value) in &forward.edits.metadata.text {
                fact(&mut span, name, value);
            }
            span.note("mcp.server", &forward.server.name);
            span.note("mcp.server.hostname", &forward.server.hostname);
            let part = read.as_ref().map_or(FORWARD, part_of);
            join(&span.part(part), &mut forward.edits);
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
        span.note("gen_ai.operation.name", "execute_tool");
        span.note("gen_ai.tool.name", &name.value);
    }
}

/// What goes on is below this span.
fn join(span: &RequestSpan, edits: &mut Edits) {
    edits.set.extend(span.headers());
}

/// The part for what has none of its own.
const FORWARD: &str = "mcp-router.forward";

/// The part in which a message goes to a server.
fn part_of(message: &Message<'_>) -> &'static str {
    match (message.kind, message.method.as_ref()) {
        (MessageKind::Response, _) => "mcp-router.client-response",
        (_, "tools/call") => "mcp-router.tool-call",
        (_, "prompts/get") => "mcp-router.prompt-get",
        (_, "resources/read") => "mcp-router.resource-read",
        (_, "completion/complete") => "mcp-router.completion",
        _ => FORWARD,
    }
}

/// Notes a fact of the decision.
fn fact(span: &mut RequestSpan, name: &str, value: &str) {
    match name {
        "route" => span.note("mcp.route", value),
        "era" => span.note("mcp.era", value),
        "prompt" => span.note("mcp.prompt.name", value),
        "session" => span.note("mcp.session.id", &format!("jti:{value}")),
        // A query may hold what only the caller should know.
        "resource" => span.note(
            "mcp.resource.uri",
            value.split(['?', '#']).next().unwrap_or_default(),
        ),
        _ => {}
    }
}

/// The part in which a fact is fetched.
pub fn fetching(need: &Need) -> &'static str {
    match need {
        Need::Backend(..) => "mcp-router.session-init",
        Need::UserLists(_) => "broker.user-specific-tools.fetch-all",
        Need::Facts(..) | Need::Link(..) | Need::UserToken(..) => "mcp-router.session-cache.get",
    }
}

/// Begins the span of a call that the gateway carries to a server itself; the server's own hangs below it.
pub fn carrying(traces: &Traces, forward: &mut Forward) -> Option<RequestSpan> {
    let set = &mut forward.edits.set;
    let of = |name: &str| set.iter().find(|(known, _)| *known == name);
    let read = |name: &str| of(name).map(|(_, value)| value.as_str());
    let mut span = traces.begin("mcp-front.forward", &Fields(&read))?;
    span.note("mcp.server", &forward.server.name);
    for (name, value) in span.headers() {
        set.retain(|(known, _)| *known != name);
        set.push((name, value));
    }
    Some(span)
}

/// Ends it with the status that the client gets.
pub fn carried(span: Option<RequestSpan>, status: u16) {
    if let Some(mut span) = span {
        span.status(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::read;
    use crate::telemetry::traces::Endpoint;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_on_carries_the_trace_of_the_client() {
        crate::transport::client::install_crypto();
        let endpoint = Endpoint::Http("http://127.0.0.1:9/v1/traces".to_owned());
        let traces = Traces::to(&endpoint, "test").unwrap();
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
