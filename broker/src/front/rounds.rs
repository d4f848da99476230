//! Questions of a server without sessions to a client with one (data-plane.md 10.6): the call is held open, each question
//! becomes a request on its stream, and the call is made again with the answers. Only where the front carries calls out.

use super::FrontState;
use super::forwarding::put_session;
use super::mcp::event_stream;
use super::outgoing::Outgoing;
use super::passing::IDLE;
use super::questions::{MARK, Question};
use super::repair::{Replacement, replacement};
use super::running::RunningCall;
use super::sent::{Reply, failed_reply, within};
use crate::decision::Forward;
use crate::decision::bridge::{Bridge, Input};
use crate::decision::relay::{Passage, Relay};
use crate::decision::rewrite::{Form, ReplyPlan};
use crate::protocol::json::quoted;
use crate::protocol::links::links;
use crate::protocol::object::Object;
use crate::protocol::reply::{self, INTERNAL};
use crate::protocol::{header, server_message, sse};
use crate::telemetry::relay_metrics::{Answered, kind};
use crate::transport::exchange::{self, ExchangeError};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use futures::StreamExt as _;
use futures::future::try_join_all;
use prometheus_client::metrics::counter::Counter;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

/// Rounds of one call.
const MAX_ROUNDS: usize = 8;
/// Questions of one round.
const MAX_QUESTIONS: usize = 16;
/// Messages for a client that does not read.
const QUEUE: usize = 64;

/// True for calls to servers that may answer with a question; they are held, so that they can also be cancelled.
pub(super) fn is_held(forward: &Forward) -> bool {
    let plan = forward.reply.as_ref().filter(|plan| plan.form == Form::Events);
    plan.and_then(|plan| plan.bridge.as_ref())
        .is_some_and(Bridge::asks_by_rounds)
}

/// A call that is held open.
pub(super) struct Held {
    state: Arc<FrontState>,
    forward: Forward,
    /// Headers of the request as the server gets it.
    headers: HeaderMap,
    /// Its body as the server gets it.
    body: Bytes,
    out: mpsc::Sender<Bytes>,
    /// What the client got.
    bytes: Counter,
}

/// How a round ended.
enum Round {
    /// This is the client's answer.
    Over(String),
    /// The server asks.
    Asked(Input),
}

impl Held {
    /// Holds the call whose first reply is a good one, and answers its client with an event stream.
    pub(super) fn start(
        state: &Arc<FrontState>,
        running: RunningCall,
        (forward, outgoing): (Forward, Outgoing),
        reply: Reply,
    ) -> Response {
        let (out, queue) = mpsc::channel(QUEUE);
        let session = forward
            .edits
            .guard
            .as_ref()
            .and_then(|guard| guard.session.clone());
        let plan = forward.reply.as_ref().map_or("bridge", ReplyPlan::word);
        let held = Self {
            bytes: state.metrics.relays.rewritten(plan),
            state: Arc::clone(state),
            forward,
            headers: outgoing.headers,
            body: outgoing.body,
            out,
        };
        tokio::spawn(async move {
            // Ending it ends the server's stream, which the server takes as the end of the call.
            tokio::select! {
                () = running.cancelled.cancelled() => {}
                () = held.run(reply) => {}
            }
        });
        let stream = ReceiverStream::new(queue).map(Ok::<_, Infallible>);
        let mut reply = event_stream(Body::from_stream(stream));
        put_session(&mut reply, session.as_deref());
        reply
    }

    async fn run(&self, first: Reply) {
        let Some((ReplyPlan { relay, .. }, bridge)) = self.plan() else {
            return;
        };
        let last = tokio::select! {
            () = self.out.closed() => return,
            last = self.rounds(first, (relay, bridge)) => last,
        };
        if let (Some(session), Some(forwarding)) = (self.forward.links, &self.state.forwarding) {
            let (server, uris) = (&self.forward.server.name, links(last.as_bytes()));
            forwarding.pipeline.note_links(session, server, &uris).await;
        }
        self.tell(&last).await;
    }

    /// Goes from round to round; the text is what the client gets in the end.
    async fn rounds(&self, first: Reply, (relay, bridge): (&Relay, &Bridge)) -> String {
        let mut reply = first;
        for round in 0..=MAX_ROUNDS {
            let Reply { response, deadline } = reply;
            let ended = within(deadline, self.round(response, (relay, bridge))).await;
            let input = match ended.unwrap_or(Err(ExchangeError::Timeout("response body"))) {
                Ok(Round::Over(text)) => return text,
                Ok(Round::Asked(input)) => input,
                Err(error) => return failed(bridge, &error),
            };
            if round == MAX_ROUNDS {
                break;
            }
            let answers = match self.answers(&input, relay).await {
                Ok(answers) => answers,
                Err(needed) => return bridge.not_answerable(&needed),
            };
            reply = match self.again(&input, &answers, bridge).await {
                Ok(reply) => reply,
                Err(text) => return text,
            };
        }
        bridge.not_answerable("more rounds of input")
    }

    fn plan(&self) -> Option<(&ReplyPlan, &Bridge)> {
        let plan = self.forward.reply.as_ref()?;
        Some((plan, plan.bridge.as_ref()?))
    }

    async fn tell(&self, text: &str) {
        let event = sse::encode(None, text);
        self.bytes.inc_by(event.len() as u64);
        // A client that is gone needs nothing.
        let _ = self.out.send(Bytes::from(event)).await;
    }

    /// Passes on what a reply brings until its answer.
    async fn round(
        &self,
        response: reqwest::Response,
        (relay, bridge): (&Relay, &Bridge),
    ) -> Result<Round, ExchangeError> {
        let kind = response.headers().get("content-type");
        let events = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(header::is_sse);
        if !events {
            let body = exchange::body(response, sse::MAX_EVENT).await?;
            let text = std::str::from_utf8(&body).map_err(|_| ExchangeError::Malformed)?;
            return Ok(self.answered(text, (relay, bridge)));
        }
        let (mut stream, mut decoder) = (response.bytes_stream(), sse::Decoder::default());
        loop {
            let piece = timeout(IDLE, stream.next()).await;
            let piece = piece.map_err(|_| ExchangeError::Timeout("response body"))?;
            let found = match piece {
                Some(Ok(piece)) => decoder.push(&piece).map_err(|_| ExchangeError::Malformed)?,
                Some(Err(_)) => return Err(ExchangeError::Broken),
                None => {
                    let last = decoder.finish().ok().flatten().ok_or(ExchangeError::Broken)?;
                    return Ok(self.answered(&last.data, (relay, bridge)));
                }
            };
            for event in found.iter().filter(|event| !event.data.is_empty()) {
                let notice =
                    server_message::read(&event.data).is_some_and(|message| message.method.is_some());
                if !notice {
                    return Ok(self.answered(&event.data, (relay, bridge)));
                }
                self.notice(&event.data, (relay, bridge)).await;
            }
        }
    }

    async fn notice(&self, text: &str, (relay, bridge): (&Relay, &Bridge)) {
        let passage = match bridge.notice(text) {
            Passage::Same => relay.judge(&self.state.keys, text),
            other => other,
        };
        match passage {
            Passage::Same => self.tell(text).await,
            Passage::Changed(changed) | Passage::Relayed(_, changed) => self.tell(&changed).await,
            Passage::Drop | Passage::Reply(_) | Passage::Refused(..) => {}
        }
    }

    fn answered(&self, text: &str, (relay, bridge): (&Relay, &Bridge)) -> Round {
        match bridge.input(text) {
            Some(input) => Round::Asked(input),
            None => Round::Over(bridge.answer(&self.state.keys, &relay.published(text.trim()))),
        }
    }

    /// Asks the client everything at once and waits for all answers, as the members of `inputResponses`. The first that
    /// fails ends it: the others could change nothing.
    ///
    /// # Errors
    /// What the server needs and the client cannot or does not give.
    async fn answers(&self, input: &Input, relay: &Relay) -> Result<String, String> {
        if input.questions.len() > MAX_QUESTIONS {
            return Err("more input".to_owned());
        }
        let asked = input.questions.iter().map(async |(key, request)| {
            let answer = self.answer(request, relay).await?;
            Ok::<_, String>(format!("{}:{answer}", quoted(key)))
        });
        let answers: Vec<String> = try_join_all(asked).await?;
        Ok(format!("{{{}}}", answers.join(",")))
    }

    /// Asks one question; the answer is JSON text.
    async fn answer(&self, request: &str, relay: &Relay) -> Result<String, String> {
        let object = Object::read(request).ok_or("more input")?;
        let method = object.string("method").ok_or("more input")?;
        let (asked, kind) = (&self.state.asked, kind(&method));
        let Some(waiting) = Question::new(&self.state) else {
            asked.refused(kind, Answered::Unavailable);
            return Err(method);
        };
        let id = waiting.id();
        let params = with_elicitation_id(object.get("params").unwrap_or("{}"), &method, id);
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":"{MARK}{id}","method":{},"params":{params}}}"#,
            quoted(&method)
        );
        let Passage::Relayed(question, text) = relay.judge(&self.state.keys, &text) else {
            asked.refused(kind, Answered::Denied);
            return Err(method);
        };
        let mut waits = asked.stream();
        waits.note(&question);
        self.tell(&text).await;
        let text = waiting.answered().await.ok_or_else(|| method.clone())?;
        let object = Object::read(&text).unwrap_or_default();
        waits.answered(object.get("result").is_some());
        match object.get("result") {
            Some(result) => Ok(result.to_owned()),
            // A person who is asked may refuse; the server learns that.
            None if method == "elicitation/create" => Ok(r#"{"action":"cancel"}"#.to_owned()),
            None => Err(method),
        }
    }

    /// Makes the call again, with the answers.
    ///
    /// # Errors
    /// What the client gets when the server does not take it.
    async fn again(&self, input: &Input, answers: &str, bridge: &Bridge) -> Result<Reply, String> {
        let outgoing = self.repeated(input, answers);
        let (Some(outgoing), Some(forwarding)) = (outgoing, &self.state.forwarding) else {
            return Err(failed(bridge, &ExchangeError::Malformed));
        };
        let deadline = self.forward.deadline();
        match forwarding.send(&self.forward, outgoing, deadline).await {
            Ok(response) if response.status().is_success() => Ok(Reply { response, deadline }),
            reply => Err(self.refused(reply, bridge).await),
        }
    }

    /// The call with the answers.
    fn repeated(&self, input: &Input, answers: &str) -> Option<Outgoing> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let mut message = Object::read(text)?;
        let mut params = Object::read(message.get("params")?)?;
        params.set("inputResponses", answers.to_owned());
        params.remove("requestState");
        if let Some(state) = &input.state {
            params.set("requestState", quoted(state));
        }
        let params = params.text();
        message.set("params", params);
        message.set("id", format!("\"{MARK}{}\"", Uuid::new_v4()));
        Some(Outgoing {
            method: Method::POST,
            headers: self.headers.clone(),
            body: Bytes::from(message.text()),
        })
    }

    /// What the client gets for a reply that is no success: as for the first one, but on its stream.
    async fn refused(&self, reply: Result<reqwest::Response, ExchangeError>, bridge: &Bridge) -> String {
        let guard = self.forward.edits.guard.as_ref();
        if let Some(context) = guard.and_then(|guard| guard.repair.as_ref()) {
            let replaced = replacement(&self.state, context, &failed_reply(&reply)).await;
            if let Replacement::Answer { body, .. } | Replacement::SessionLost { body, .. } = replaced {
                return body;
            }
        }
        let body = match reply {
            Ok(response) => exchange::body(response, sse::MAX_EVENT).await,
            Err(error) => Err(error),
        };
        let Some((plan, _)) = self.plan() else {
            return failed(bridge, &ExchangeError::Malformed);
        };
        match body {
            Ok(body) => {
                let text = String::from_utf8_lossy(&body);
                plan.answer(&self.state.keys, text.trim()).into_owned()
            }
            Err(error) => failed(bridge, &error),
        }
    }
}

/// The answer to a call that the server does not answer.
fn failed(bridge: &Bridge, error: &ExchangeError) -> String {
    let text = match error {
        ExchangeError::Timeout(_) => "MCP server timed out",
        _ => "MCP server unavailable",
    };
    reply::error(Some(&bridge.id), INTERNAL, text, None)
}

/// Clients with sessions know a visit of a URL by an id (2025-11-25).
fn with_elicitation_id(params: &str, method: &str, id: Uuid) -> String {
    let Some(mut object) = Object::read(params) else {
        return "{}".to_owned();
    };
    if method == "elicitation/create" && object.string("mode").as_deref() == Some("url") {
        object.set("elicitationId", format!("\"{id}\""));
    }
    object.text()
}
