//! The phase machine of one HTTP request (data-plane.md 8.2): one state, one small function per transition, exactly one
//! reply per message. A message that does not fit the state ends the stream with 500.

use super::reply::{Reply, ReplyStream};
use super::translate;
use crate::decision::head::{self, HairpinCheck, HeadDecision};
use crate::decision::stateless::era;
use crate::decision::{Answer, Facts, Forward, Head};
use crate::pipeline::batch::MAX_ANSWER;
use crate::pipeline::decide::{BATCH, Counted, Settled};
use crate::pipeline::facts::{Pipeline, refused};
use crate::protocol::header;
use crate::protocol::message::{self, MessageError};
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::protocol::version::Era;
use crate::sessions::hairpin::as_client;
use crate::sessions::kept::KeptCall;
use crate::transport::exchange;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpBody, HttpHeaders, ProcessingResponse};
use std::sync::Arc;
use std::time::Instant;

enum State {
    AwaitHeaders,
    AwaitBody(Box<Awaited>),
    AwaitReply(Box<Reply>),
    AwaitReplyBody(Box<ReplyStream>),
    Done,
}

/// What is known when the body comes.
struct Awaited {
    head: Head,
    facts: Facts,
    /// Envoy shows the reply.
    reply: bool,
}

/// One request.
pub struct Machine {
    router: Arc<Pipeline>,
    state: State,
    started: Instant,
}

impl Machine {
    /// A machine that waits for the request headers.
    pub fn new(router: Arc<Pipeline>) -> Self {
        Self {
            router,
            state: State::AwaitHeaders,
            started: Instant::now(),
        }
    }

    /// True when no further message is wanted: the gRPC stream can be closed.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// One message in, one reply out.
    pub async fn step(&mut self, phase: Option<Phase>) -> ProcessingResponse {
        match (std::mem::replace(&mut self.state, State::Done), phase) {
            (State::AwaitHeaders, Some(Phase::RequestHeaders(headers))) => self.on_headers(headers).await,
            (State::AwaitBody(awaited), Some(Phase::RequestBody(body))) => self.on_body(*awaited, body).await,
            (State::AwaitReply(reply), Some(Phase::ResponseHeaders(headers))) => {
                self.on_reply(*reply, &headers)
            }
            (State::AwaitReplyBody(stream), Some(Phase::ResponseBody(body))) => {
                self.on_reply_body(stream, &body).await
            }
            _ => {
                tracing::warn!(component = "router", "Message out of order from Envoy");
                let fault = Refusal::new(500, INTERNAL, "internal error", "protocol");
                let nobody = Counted {
                    method: "none",
                    era: Era::Legacy,
                };
                self.answer(nobody, &refused(fault, None, None))
            }
        }
    }

    async fn on_headers(&mut self, headers: HttpHeaders) -> ProcessingResponse {
        let mut head = translate::head(headers);
        let catalog = self.router.published.load();
        let hairpin = self.router.hairpin(&head);
        if self.router.authenticator.is_active() && head::is_for_callers(&head, &catalog, &hairpin) {
            match self.router.caller(&head, &catalog).await {
                Ok(caller) => head.caller = caller,
                Err(refusal) => return self.answer(counted(&head), &refused(refusal, None, None)),
            }
        }
        let facts = self.router.first_facts(&head);
        match head::judge(&head, &catalog, &self.router.rules, (&hairpin, &facts)) {
            HeadDecision::Ignore => translate::untouched(),
            HeadDecision::Pass(edits) => {
                self.router
                    .metrics
                    .request((head.method(), era(&head, None, false)), "pass", "ok");
                translate::headers_pass(&edits)
            }
            HeadDecision::Resume(otherwise) => self.on_resume(head, facts, &otherwise).await,
            HeadDecision::Body { edits, reply } => {
                let answer = translate::headers_then_body(&edits, reply);
                self.state = State::AwaitBody(Box::new(Awaited { head, facts, reply }));
                answer
            }
            HeadDecision::Refuse(refusal) => {
                // A session header is repeated only when the session is known to be good; here nobody asked.
                self.answer(counted(&head), &refused(refusal, None, None))
            }
            HeadDecision::Text(status, text) => {
                if matches!(hairpin, HairpinCheck::Invalid) {
                    self.router.metrics.calls.refused("hairpin");
                }
                self.router.metrics.immediate("text", status);
                translate::text(status, text)
            }
        }
    }

    /// A client takes up a stream of a server again.
    async fn on_resume(
        &mut self,
        head: Head,
        mut facts: Facts,
        otherwise: &crate::decision::Edits,
    ) -> ProcessingResponse {
        match self
            .router
            .resumption(&head, &mut facts, otherwise, self.started)
            .await
        {
            Settled::Forward(forward) => {
                let keys = Arc::clone(&self.router.keys);
                let answer = translate::headers_forward(&forward.edits, &keys, forward.reply.is_some());
                self.await_reply(&head, *forward);
                answer
            }
            Settled::Answer(answer) => translate::answer(&answer),
            // A policy is asked only when a session is opened, which a resumption never does.
            Settled::Broker(_) | Settled::Policy(_) => translate::headers_pass(otherwise),
        }
    }

    fn on_reply(&mut self, reply: Reply, headers: &HttpHeaders) -> ProcessingResponse {
        match reply.begin(headers) {
            Some((stream, changed)) => {
                self.state = State::AwaitReplyBody(Box::new(stream));
                translate::reply_rewrite(changed.json, changed.ok)
            }
            None => translate::reply_pass(),
        }
    }

    async fn on_reply_body(&mut self, mut stream: Box<ReplyStream>, body: &HttpBody) -> ProcessingResponse {
        let bytes = stream.push(&self.router, &body.body, body.end_of_stream).await;
        if !body.end_of_stream {
            self.state = State::AwaitReplyBody(stream);
        }
        translate::reply_chunk(bytes)
    }

    fn await_reply(&mut self, head: &Head, forward: Forward) {
        if let Some(reply) = Reply::new(&self.router, head, forward) {
            self.state = State::AwaitReply(Box::new(reply));
        }
    }

    async fn on_body(&mut self, awaited: Awaited, body: HttpBody) -> ProcessingResponse {
        let Awaited {
            head,
            mut facts,
            reply,
        } = awaited;
        if body.body.len() > self.router.rules.max_body {
            return self.answer(counted(&head), &refused(head::too_large(), None, None));
        }
        let read = message::read(&body.body);
        if matches!(read, Err(MessageError::Batch)) {
            return self.on_batch(&head, facts, &body.body).await;
        }
        let router = Arc::clone(&self.router);
        match router.message((&head, &read), &mut facts, self.started).await {
            Settled::Broker(edits) => translate::body_pass(&edits, &router.keys, None),
            // What a reply needs cannot be done to one that is not shown; the catalog has changed meanwhile.
            Settled::Forward(forward) if forward.reply.is_some() && !reply => {
                if let Some(mut lease) = self.router.lease(&head, &forward) {
                    lease.done();
                }
                let fault = Refusal::new(503, INTERNAL, "busy", "changed").retry_after(1);
                let id = read.as_ref().ok().and_then(|message| message.id);
                self.answer(counted(&head), &refused(fault, id, None))
            }
            Settled::Forward(forward) => self.forward(*forward, head, body.body),
            Settled::Answer(answer) => translate::answer(&answer),
            Settled::Policy(failure) => translate::policy(&failure),
        }
    }

    /// Sends a request on, and keeps it for as long as it may have to be sent once more.
    fn forward(&mut self, mut forward: Forward, head: Head, body: Vec<u8>) -> ProcessingResponse {
        let kept = self.router.will_keep(&head, (&mut forward, body.len()));
        let answer = translate::body_pass(&forward.edits, &self.router.keys, Some(&body));
        self.await_reply(&head, forward);
        if let Some((number, jti)) = kept {
            let call = KeptCall {
                jti,
                host: head.host(),
                fields: head.fields,
                body,
            };
            self.router.kept.keep(number, call);
        }
        answer
    }

    async fn on_batch(&mut self, head: &Head, facts: Facts, body: &[u8]) -> ProcessingResponse {
        let (headers, host) = (as_client(&head.fields), head.host());
        let send = async |text| {
            let answer = self
                .router
                .opener
                .again(headers.clone(), &host, text)
                .await
                .ok()?;
            exchange::body(answer, MAX_ANSWER).await.ok()
        };
        match self.router.batch(head, facts, body, send).await {
            Ok(answers) => {
                self.router.count(BATCH, ("immediate", "ok"), self.started);
                translate::answers(answers, head.get(header::SESSION))
            }
            Err(answer) => self.answer(BATCH, &answer),
        }
    }

    fn answer(&self, what: Counted<'_>, answer: &Answer) -> ProcessingResponse {
        self.router.answered(what, answer, self.started);
        translate::answer(answer)
    }
}

/// A request of which no more than the headers is known.
fn counted(head: &Head) -> Counted<'_> {
    Counted {
        method: head.method(),
        era: era(head, None, false),
    }
}
