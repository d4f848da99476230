//! The phase machine of one HTTP request (data-plane.md 8.2): one state, one small function per transition, exactly one
//! reply per message. A message that does not fit the state ends the stream with 500.

use super::audit::{self, Outcome};
use super::facts::{FactError, RouterState, refused};
use super::reply::{Reply, ReplyStream};
use super::translate;
use crate::decision::head::{self, HeadDecision};
use crate::decision::message::{Request, judge};
use crate::decision::{Answer, Decision, Facts, Forward, Head, resume};
use crate::protocol::header;
use crate::protocol::message::{self, Message, MessageError};
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::sessions::kept::KeptCall;
use crate::transport::exchange::Failure;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpBody, HttpHeaders, ProcessingResponse};
use std::sync::Arc;
use std::time::Instant;

/// A decision asks at most for the session, the caller's own lists, facts about two servers, a token and a backend session.
const MAX_NEEDS: usize = 6;

enum State {
    AwaitHeaders,
    AwaitBody(Box<(Head, Facts)>),
    AwaitReply(Box<Reply>),
    AwaitReplyBody(Box<ReplyStream>),
    Done,
}

/// One request.
pub struct Machine {
    router: Arc<RouterState>,
    state: State,
    started: Instant,
}

impl Machine {
    /// A machine that waits for the request headers.
    pub fn new(router: Arc<RouterState>) -> Self {
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
            (State::AwaitBody(known), Some(Phase::RequestBody(body))) => self.on_body(*known, body).await,
            (State::AwaitReply(reply), Some(Phase::ResponseHeaders(headers))) => {
                self.on_reply(*reply, &headers)
            }
            (State::AwaitReplyBody(stream), Some(Phase::ResponseBody(body))) => {
                self.on_reply_body(stream, &body)
            }
            _ => {
                tracing::warn!(component = "router", "Message out of order from Envoy");
                let fault = Refusal::new(500, INTERNAL, "internal error", "protocol");
                self.answer("none", &refused(fault, None, None))
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
                Err(refusal) => return self.answer(head.method(), &refused(refusal, None, None)),
            }
        }
        let facts = self.router.first_facts(&head);
        match head::judge(&head, &catalog, &self.router.rules, (&hairpin, &facts)) {
            HeadDecision::Ignore => translate::untouched(),
            HeadDecision::Pass(edits) => {
                self.router.metrics.request(head.method(), "pass", "ok");
                translate::headers_pass(&edits)
            }
            HeadDecision::Resume(otherwise) => self.on_resume(head, facts, &otherwise).await,
            HeadDecision::Body { edits, reply } => {
                let answer = translate::headers_then_body(&edits, reply);
                self.state = State::AwaitBody(Box::new((head, facts)));
                answer
            }
            HeadDecision::Refuse(refusal) => {
                // A session header is repeated only when the session is known to be good; here nobody asked.
                self.answer(head.method(), &refused(refusal, None, None))
            }
            HeadDecision::Text(status, text) => {
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
        let catalog = self.router.published.load();
        let decide = |facts: &Facts| resume::judge(&head, &catalog, facts, otherwise);
        match self.settle(&decide, (&head, None), &mut facts).await {
            Ok(Decision::Forward(forward)) => {
                self.count("GET", "forward", "ok");
                let keys = Arc::clone(&self.router.keys);
                let answer = translate::headers_forward(&forward.edits, &keys, forward.reply.is_some());
                self.await_reply(&head, *forward);
                answer
            }
            Ok(Decision::Answer(answer)) => self.answer("GET", &answer),
            // A policy is asked only when a session is opened, which a resumption never does.
            Ok(Decision::Broker(_) | Decision::Need(_)) | Err(_) => translate::headers_pass(otherwise),
        }
    }

    fn on_reply(&mut self, reply: Reply, headers: &HttpHeaders) -> ProcessingResponse {
        match reply.begin(headers) {
            Some((stream, json)) => {
                self.state = State::AwaitReplyBody(Box::new(stream));
                translate::reply_rewrite(json)
            }
            None => translate::reply_pass(),
        }
    }

    fn on_reply_body(&mut self, mut stream: Box<ReplyStream>, body: &HttpBody) -> ProcessingResponse {
        let bytes = stream.push(&self.router, &body.body, body.end_of_stream);
        if !body.end_of_stream {
            self.state = State::AwaitReplyBody(stream);
        }
        translate::reply_chunk(bytes)
    }

    fn await_reply(&mut self, head: &Head, forward: Forward) {
        if let Some(reply) = Reply::new(head, forward) {
            self.state = State::AwaitReply(Box::new(reply));
        }
    }

    async fn on_body(&mut self, (head, mut facts): (Head, Facts), body: HttpBody) -> ProcessingResponse {
        if body.body.len() > self.router.rules.max_body {
            return self.answer("none", &refused(head::too_large(), None, None));
        }
        let read = message::read(&body.body);
        if matches!(read, Err(MessageError::Batch)) {
            return self.on_batch(&head, facts, &body.body).await;
        }
        let method = read.as_ref().map_or("none", |message| message.method.as_ref());
        let request = Request {
            head: &head,
            rules: &self.router.rules,
            keys: &self.router.keys,
            message: &read,
        };
        let catalog = self.router.published.load();
        let id = read.as_ref().ok().and_then(|message| message.id);
        let decide = |facts: &Facts| judge(&request, &catalog, facts);
        let settled = self.settle(&decide, (&head, id), &mut facts).await;
        if let Ok(message) = &read {
            self.audit((&head, message, &facts), &settled);
        }
        match settled {
            Ok(Decision::Broker(edits)) => {
                self.count(method, "broker", "ok");
                translate::body_pass(&edits, &self.router.keys, None)
            }
            Ok(Decision::Forward(forward)) => {
                self.count(method, "forward", "ok");
                self.router.remember(&facts, read.as_ref().ok(), &forward);
                self.forward(*forward, (head, facts), body.body)
            }
            Ok(Decision::Answer(answer)) => self.answer(method, &answer),
            Ok(Decision::Need(_)) => {
                let fault = Refusal::new(500, INTERNAL, "internal error", "needs");
                self.answer(method, &refused(fault, None, None))
            }
            Err(failure) => {
                self.router.metrics.immediate("policy", failure.status);
                translate::policy(&failure)
            }
        }
    }

    /// Sends a request on, and keeps it for as long as it may have to be sent once more.
    fn forward(
        &mut self,
        mut forward: Forward,
        (head, facts): (Head, Facts),
        body: Vec<u8>,
    ) -> ProcessingResponse {
        let number = self.router.will_keep(&head, &facts, (&mut forward, body.len()));
        let answer = translate::body_pass(&forward.edits, &self.router.keys, Some(&body));
        self.await_reply(&head, forward);
        if let (Some(number), Some(claims)) = (number, facts.claims) {
            let call = KeptCall {
                jti: claims.jti,
                host: head.host(),
                fields: head.fields,
                body,
            };
            self.router.kept.keep(number, call);
        }
        answer
    }

    fn audit(
        &self,
        (head, message, facts): (&Head, &Message<'_>, &Facts),
        settled: &Result<Decision, Failure>,
    ) {
        let outcome = match settled {
            Ok(Decision::Forward(forward)) => Outcome::Forwarded(forward),
            Ok(Decision::Answer(answer)) => Outcome::Answered(answer),
            _ => return,
        };
        let call = audit::Call {
            head,
            message,
            facts,
            keys: &self.router.keys,
        };
        audit::record(&call, &outcome, self.started.elapsed());
    }

    async fn on_batch(&mut self, head: &Head, facts: Facts, body: &[u8]) -> ProcessingResponse {
        match self.router.batch(head, facts, body).await {
            Ok(answers) => {
                self.count("batch", "immediate", "ok");
                translate::answers(answers, head.get(header::SESSION))
            }
            Err(answer) => self.answer("batch", &answer),
        }
    }

    /// Decides, fetching what the decision asks for. The error is a policy's answer, which passes as it is.
    async fn settle(
        &self,
        decide: &(dyn Fn(&Facts) -> Decision + Sync),
        (head, id): (&Head, Option<&str>),
        facts: &mut Facts,
    ) -> Result<Decision, Failure> {
        let mut decision = decide(facts);
        for _ in 0..MAX_NEEDS {
            let Decision::Need(need) = decision else { break };
            match self.router.fetch(need, head, facts).await {
                Ok(()) => {}
                Err(FactError::Policy(failure)) => return Err(failure),
                Err(FactError::Refused(refusal)) => {
                    return Ok(Decision::Answer(refused(refusal, id, None)));
                }
            }
            decision = decide(facts);
        }
        Ok(decision)
    }

    fn count(&self, method: &str, route: &'static str, outcome: &'static str) {
        self.router.metrics.request(method, route, outcome);
        self.router.metrics.decided(route, self.started.elapsed());
    }

    fn answer(&self, method: &str, answer: &Answer) -> ProcessingResponse {
        let refusal = &answer.refusal;
        self.router.metrics.immediate(refusal.reason, refusal.status);
        self.count(
            method,
            "immediate",
            if refusal.status >= 500 {
                "server_error"
            } else {
                "client_error"
            },
        );
        tracing::debug!(
            component = "router",
            method,
            reason = refusal.reason,
            status = refusal.status,
            "Request answered"
        );
        translate::answer(answer)
    }
}
