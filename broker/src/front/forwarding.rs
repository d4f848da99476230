//! Calls of clients, forwarded by the front itself (data-plane.md 13): what the router tells Envoy to do is done here with
//! the same decisions, headers and repairs. How a reply comes back is in `passing`.

use super::FrontState;
use super::mcp::{here, plain, refuse};
use super::outgoing::{Outgoing, header_map, outgoing};
use super::passing::Passing;
use super::questions::returned;
use super::repair::{Replacement, replacement};
use super::rounds;
use super::sent::{Reply, Sent, failed_reply};
use super::slots::{Running, Slots};
use crate::decision::{Edits, Facts, Forward, Head, resume};
use crate::pipeline::batch::MAX_ANSWER;
use crate::pipeline::decide::{BATCH, Settled};
use crate::pipeline::{facts::Pipeline, span};
use crate::protocol::header;
use crate::protocol::message::{self, Message, MessageError, MessageKind};
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::sessions::hairpin::as_client;
use crate::sessions::way::Direct;
use crate::transport::exchange::{ExchangeError, Failure};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Instant as Deadline, timeout_at};

/// Longest wait for the head of a reply when the server's `callTimeout` says nothing.
const LONGEST_CALL: Duration = Duration::from_secs(3600);

/// What forwards.
pub struct Forwarding {
    /// Decides.
    pub pipeline: Arc<Pipeline>,
    /// Reaches the servers.
    pub direct: Arc<Direct>,
    /// Running calls.
    pub slots: Arc<Slots>,
}

/// A message of a client.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// Its headers, as decisions read them.
    pub head: &'a Head,
    /// The message, or why there is none.
    pub read: &'a Result<Message<'a>, MessageError>,
    /// Its bytes.
    pub body: &'a Bytes,
}

impl Forwarding {
    /// Answers a message: here, or by the server that it is for. `headers` are those of the request.
    pub async fn message(
        &self,
        state: &Arc<FrontState>,
        incoming: Incoming<'_>,
        headers: HeaderMap,
    ) -> Response {
        let (started, head) = (Instant::now(), incoming.head);
        if let Some(response) = returned(state, incoming).await {
            return response;
        }
        let mut facts = self.pipeline.first_facts(head);
        if matches!(incoming.read, Err(MessageError::Batch)) {
            return self.batch(state, incoming, facts).await;
        }
        let decided = self.pipeline.decided((head, incoming.read), &mut facts, started);
        let mut forward = match decided.await {
            Settled::Broker(_) => return here(state, head, (incoming.read, incoming.body)).await,
            Settled::Forward(forward) => forward,
            settled => return answered(settled),
        };
        let said = incoming.read.as_ref().ok();
        let carried = said.and_then(|message| {
            let call = (head, message);
            self.pipeline.carrying(call, &facts, &forward, started)
        });
        let (reply, running) = match self.slot(incoming, &facts, &forward) {
            Ok(running) => {
                let (call, server) = ((incoming, &mut facts), Arc::clone(&forward.server));
                let span = span::carrying(&self.pipeline.traces, &mut forward);
                let reply = self.carried_out(state, call, (*forward, headers)).await;
                span::carried(span, reply.status().as_u16());
                let called = (&*server.name, said.map_or("", |message| &*message.method));
                let calls = &self.pipeline.metrics.calls;
                calls.replied(called, reply.status().as_u16(), started.elapsed());
                (reply, running)
            }
            Err(refusal) => {
                // A session that was opened for this call alone ends with it.
                if let Some(mut lease) = self.pipeline.lease(head, &forward) {
                    lease.done();
                }
                (refuse(&refusal, said.and_then(|message| message.id)), None)
            }
        };
        if let Some(carried) = carried {
            carried.replied(reply.status().as_u16());
        }
        match running {
            Some(running) => running.until_over(reply),
            None => reply,
        }
    }

    /// The place of a request among the running ones; nothing else has one.
    fn slot(
        &self,
        incoming: Incoming<'_>,
        facts: &Facts,
        forward: &Forward,
    ) -> Result<Option<Running>, Refusal> {
        let request = |message: &Message<'_>| message.kind == MessageKind::Request;
        if !incoming.read.as_ref().is_ok_and(request) {
            return Ok(None);
        }
        let session = facts.claims.as_ref().map(|claims| claims.jti);
        let running = self.slots.take(session, &forward.server.name);
        running.map(Some).ok_or_else(busy)
    }

    async fn carried_out(
        &self,
        state: &Arc<FrontState>,
        call: (Incoming<'_>, &mut Facts),
        (forward, headers): (Forward, HeaderMap),
    ) -> Response {
        if rounds::is_held(&forward) {
            return self.held(state, call, (forward, headers)).await;
        }
        let request = (headers, call.0.body);
        let deadline = forward.deadline();
        let sent = self
            .sent(call.0.head, &forward, (Method::POST, request), deadline)
            .await;
        self.replied(state, call, (forward, sent)).await
    }

    /// Forwards a call whose client the server may have to be asked through; a bad reply is handled as any other.
    async fn held(
        &self,
        state: &Arc<FrontState>,
        (incoming, facts): (Incoming<'_>, &mut Facts),
        (forward, headers): (Forward, HeaderMap),
    ) -> Response {
        let outgoing = outgoing(&forward, Method::POST, (headers, incoming.body));
        let again = outgoing.clone();
        let session = facts.claims.as_ref().map(|claims| claims.jti).unwrap_or_default();
        let id = incoming.read.as_ref().ok().and_then(|message| message.id);
        let running = state.running.begin(session, id.unwrap_or_default());
        let deadline = forward.deadline();
        let sent = tokio::select! {
            sent = self.send(&forward, outgoing, deadline) => sent,
            // Nobody waits for an answer to what was cancelled.
            () = running.cancelled.cancelled() => return plain(StatusCode::NO_CONTENT, ""),
        };
        match sent {
            Ok(response) if response.status().is_success() => {
                let reply = Reply { response, deadline };
                rounds::Held::start(state, running, (forward, again), reply)
            }
            reply => {
                let sent = Sent {
                    reply,
                    lease: None,
                    deadline,
                };
                self.replied(state, (incoming, facts), (forward, sent)).await
            }
        }
    }

    /// Takes up a stream of a server again; `None` when the request asks for none.
    pub async fn resumption(
        &self,
        state: &Arc<FrontState>,
        head: &Head,
        headers: &HeaderMap,
    ) -> Option<Response> {
        if !resume::is_resumption(head) {
            return None;
        }
        let mut facts = self.pipeline.first_facts(head);
        let otherwise = Edits::default();
        let decided = self
            .pipeline
            .resumption(head, &mut facts, &otherwise, Instant::now());
        match decided.await {
            Settled::Broker(_) => None,
            Settled::Forward(forward) => {
                let session = facts.claims.as_ref().map(|claims| claims.jti);
                let Some(running) = self.slots.take(session, &forward.server.name) else {
                    return Some(refuse(&busy(), None));
                };
                let request = (headers.clone(), &Bytes::new());
                // A stream has no end that could come too late.
                let sent = self.sent(head, &forward, (Method::GET, request), None).await;
                let (reply, _) = self.replied_once(state, head, (*forward, sent)).await;
                Some(running.until_over(reply))
            }
            settled => Some(answered(settled)),
        }
    }

    /// Sends a request with the edits of its decision.
    async fn sent(
        &self,
        head: &Head,
        forward: &Forward,
        (method, request): (Method, (HeaderMap, &Bytes)),
        deadline: Option<Deadline>,
    ) -> Sent {
        // A client may leave before the reply begins.
        let lease = self.pipeline.lease(head, forward);
        let outgoing = outgoing(forward, method, request);
        let reply = self.send(forward, outgoing, deadline).await;
        Sent {
            reply,
            lease,
            deadline,
        }
    }

    pub(super) async fn send(
        &self,
        forward: &Forward,
        outgoing: Outgoing,
        deadline: Option<Deadline>,
    ) -> Result<reqwest::Response, ExchangeError> {
        let clients = self.direct.clients(&forward.server)?;
        let mut request = Request::new(outgoing.body);
        *request.method_mut() = outgoing.method;
        *request.headers_mut() = outgoing.headers;
        let deadline = deadline.unwrap_or_else(|| Deadline::now() + LONGEST_CALL);
        match timeout_at(deadline, clients.calls.send(&forward.server.url, request)).await {
            Err(_) => Err(ExchangeError::Timeout("response headers")),
            Ok(reply) => reply,
        }
    }

    /// The reply for the client; a call whose backend session was lost is sent once more.
    async fn replied(
        &self,
        state: &Arc<FrontState>,
        (incoming, facts): (Incoming<'_>, &mut Facts),
        (forward, sent): (Forward, Sent),
    ) -> Response {
        let (head, deadline) = (incoming.head, sent.deadline);
        let (reply, lost) = self.replied_once(state, head, (forward, sent)).await;
        if !lost {
            return reply;
        }
        match self.pipeline.once_more((head, incoming.read), facts).await {
            Settled::Forward(forward) => {
                let request = (header_map(head), incoming.body);
                let sent = self.sent(head, &forward, (Method::POST, request), deadline).await;
                self.replied_once(state, head, (*forward, sent)).await.0
            }
            Settled::Broker(_) => reply,
            settled => answered(settled),
        }
    }

    /// The reply for the client, and whether it says that the backend session was lost.
    async fn replied_once(
        &self,
        state: &Arc<FrontState>,
        head: &Head,
        (forward, sent): (Forward, Sent),
    ) -> (Response, bool) {
        let Sent {
            reply: sent,
            mut lease,
            deadline,
        } = sent;
        if let (Ok(response), Some(lease)) = (&sent, &mut lease)
            && response.status().as_u16() >= 400
        {
            // The server is done with the call.
            lease.done();
        }
        let guard = forward.edits.guard.as_ref();
        let context = guard.and_then(|guard| guard.repair.as_ref());
        let token = guard.and_then(|guard| guard.session.as_deref());
        let failed = failed_reply(&sent);
        if let Err(error) = &sent {
            let log = &self.pipeline.metrics.refusals;
            log.undelivered(&forward.server.name, error);
        }
        if let (Some(context), true) = (context, failed.status >= 400) {
            match replacement(state, context, &failed).await {
                Replacement::Keep => {}
                Replacement::Answer { status, body } => return (error(status, body, token), false),
                Replacement::SessionLost { status, body } => return (error(status, body, token), true),
            }
        }
        match sent {
            Ok(response) => {
                let passing = Passing::new(&self.pipeline, head, (forward, lease), deadline);
                (passing.reply(response), false)
            }
            Err(_) => (plain(StatusCode::BAD_GATEWAY, "MCP server unavailable"), false),
        }
    }

    /// The messages of a batch are carried out as requests of their own.
    fn batch<'a>(
        &'a self,
        state: &'a Arc<FrontState>,
        incoming: Incoming<'a>,
        facts: Facts,
    ) -> BoxFuture<'a, Response> {
        let part_headers = {
            let mut headers = as_client(&incoming.head.fields);
            headers.insert("accept", HeaderValue::from_static("application/json"));
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            headers
        };
        Box::pin(async move {
            let part_head = super::mcp::head_of(&Method::POST, "/mcp", &part_headers);
            let part_head = Head {
                caller: incoming.head.caller.clone(),
                ..part_head
            };
            let send = async |text: String| {
                let body = Bytes::from(text);
                let read = message::read(&body);
                let part = Incoming {
                    head: &part_head,
                    read: &read,
                    body: &body,
                };
                let answer = self.message(state, part, part_headers.clone()).await;
                axum::body::to_bytes(answer.into_body(), MAX_ANSWER).await.ok()
            };
            let token = incoming.head.get(header::SESSION);
            match self
                .pipeline
                .batch(incoming.head, facts, incoming.body, send)
                .await
            {
                Ok(Some(answers)) => error(200, answers, token),
                Ok(None) => plain(StatusCode::ACCEPTED, ""),
                Err(answer) => {
                    self.pipeline.answered(BATCH, &answer, Instant::now());
                    refuse(&answer.refusal, answer.id.as_deref())
                }
            }
        })
    }
}

/// Refusal of what finds no slot.
fn busy() -> Refusal {
    Refusal::new(429, INTERNAL, "busy", "calls").retry_after(1)
}

/// A JSON answer in place of a server's.
fn error(status: u16, body: String, token: Option<&str>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = super::mcp::json(status, body);
    put_session(&mut response, token);
    response
}

pub(super) fn put_session(response: &mut Response, token: Option<&str>) {
    if let Some(Ok(token)) = token.map(HeaderValue::from_str) {
        response.headers_mut().insert(header::SESSION, token);
    }
}

/// The response to what the gateway answers itself, or a policy for it.
fn answered(settled: Settled) -> Response {
    match settled {
        Settled::Answer(answer) => {
            let mut response = refuse(&answer.refusal, answer.id.as_deref());
            put_session(&mut response, answer.session.as_deref());
            response
        }
        Settled::Policy(failure) => passed(failure),
        // Both are carried out where they are decided.
        Settled::Broker(_) | Settled::Forward(_) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

fn passed(failure: Failure) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Response::new(Body::from(failure.body));
    *response.status_mut() = status;
    if let Ok(content_type) = HeaderValue::from_str(&failure.content_type) {
        response.headers_mut().insert("content-type", content_type);
    }
    response
}
