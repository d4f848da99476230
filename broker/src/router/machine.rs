//! The phase machine of one HTTP request (data-plane.md 8.2): one state, one small function per transition, exactly one
//! reply per message. A message that does not fit the state ends the stream with 500.

use super::facts::{FactError, RouterState, refused};
use super::translate;
use crate::decision::head::{self, HeadDecision};
use crate::decision::message::{Request, judge};
use crate::decision::{Answer, Decision, Head};
use crate::protocol::message;
use crate::protocol::reply::{INTERNAL, Refusal};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpBody, HttpHeaders, ProcessingResponse};
use std::sync::Arc;
use std::time::Instant;

/// A decision asks at most for the store's facts and for a backend session.
const MAX_NEEDS: usize = 3;

enum State {
    AwaitHeaders,
    AwaitBody(Box<Head>),
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
            (State::AwaitHeaders, Some(Phase::RequestHeaders(headers))) => self.on_headers(headers),
            (State::AwaitBody(head), Some(Phase::RequestBody(body))) => self.on_body(&head, body).await,
            _ => {
                tracing::warn!(component = "router", "Message out of order from Envoy");
                let fault = Refusal::new(500, INTERNAL, "internal error", "protocol");
                self.answer("none", &refused(fault, None, None))
            }
        }
    }

    fn on_headers(&mut self, headers: HttpHeaders) -> ProcessingResponse {
        let head = translate::head(headers);
        let catalog = self.router.published.load();
        let hairpin = self.router.hairpin(&head);
        match head::judge(&head, &catalog, &self.router.rules, &hairpin) {
            HeadDecision::Ignore => translate::untouched(),
            HeadDecision::Pass(edits) => {
                self.router.metrics.request(head.method(), "pass", "ok");
                translate::headers_pass(&edits)
            }
            HeadDecision::Body(edits) => {
                let reply = translate::headers_then_body(&edits);
                self.state = State::AwaitBody(Box::new(head));
                reply
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

    async fn on_body(&mut self, head: &Head, body: HttpBody) -> ProcessingResponse {
        if body.body.len() > self.router.rules.max_body {
            return self.answer("none", &refused(head::too_large(), None, None));
        }
        let read = message::read(&body.body);
        let method = read.as_ref().map_or("none", |message| message.method.as_ref());
        let request = Request {
            head,
            rules: &self.router.rules,
            message: &read,
        };
        let mut facts = self.router.first_facts(head);
        let catalog = self.router.published.load();
        for _ in 0..MAX_NEEDS {
            match judge(&request, &catalog, &facts) {
                Decision::Broker(edits) => {
                    self.count(method, "broker", "ok");
                    return translate::body_pass(&edits, &self.router.keys, None);
                }
                Decision::Forward(server, edits) => {
                    self.count(method, "forward", "ok");
                    tracing::debug!(
                        component = "router",
                        method,
                        server = server.name,
                        "Call forwarded"
                    );
                    return translate::body_pass(&edits, &self.router.keys, Some(&body.body));
                }
                Decision::Answer(answer) => return self.answer(method, &answer),
                Decision::Need(need) => match self.router.fetch(need, head, &mut facts).await {
                    Ok(()) => {}
                    Err(FactError::Policy(failure)) => {
                        self.router.metrics.immediate("policy", failure.status);
                        return translate::policy(&failure);
                    }
                    Err(FactError::Refused(refusal)) => {
                        let id = read.as_ref().ok().and_then(|message| message.id);
                        return self.answer(method, &refused(refusal, id, None));
                    }
                },
            }
        }
        self.answer(
            method,
            &refused(Refusal::new(500, INTERNAL, "internal error", "needs"), None, None),
        )
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
