//! Decides, fetching what the decision asks for (data-plane.md 7): `Need` is asked a bounded number of times, refusals are
//! counted and logged where they are decided.

use super::audit::{self, Outcome};
use super::facts::{FactError, Pipeline, refused};
use super::span;
use crate::decision::message::{Request, judge};
use crate::decision::stateless::era;
use crate::decision::{Answer, Decision, Edits, Facts, Forward, Head, resume};
use crate::protocol::message::{Message, MessageError, MessageKind};
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::protocol::version::Era;
use crate::transport::exchange::Failure;
use std::sync::Arc;
use std::time::Instant;

/// A decision asks at most for the session, the caller's own lists, a link, facts about two servers, a token and a backend
/// session.
const MAX_NEEDS: usize = 7;

/// What a decision was about, for those who count it.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Method of the message, or of HTTP where there is none.
    pub method: &'a str,
    /// How the client speaks.
    pub era: Era,
}

/// A stream that is taken up again: only clients with sessions do.
const STREAM: Counted<'_> = Counted {
    method: "GET",
    era: Era::Legacy,
};

/// A batch, which only sessions of one revision have.
pub const BATCH: Counted<'_> = Counted {
    method: "batch",
    era: Era::Legacy,
};

/// What is to be done with a request; nothing more needs to be fetched.
pub enum Settled {
    /// The broker answers it.
    Broker(Edits),
    /// It goes to an MCP server.
    Forward(Box<Forward>),
    /// This is its answer.
    Answer(Answer),
    /// A policy refused to open the session with the server; its answer passes as it is.
    Policy(Failure),
}

impl Pipeline {
    /// Decides about a message, counts and audits it.
    pub async fn message(
        self: &Arc<Self>,
        (head, read): (&Head, &Result<Message<'_>, MessageError>),
        facts: &mut Facts,
        started: Instant,
    ) -> Settled {
        let tracing = span::begin(&self.traces, head);
        let said = read.as_ref().ok();
        let what = Counted {
            method: said.map_or("none", |message| message.method.as_ref()),
            era: era(head, said, facts.claims.is_some()),
        };
        let mut settled = self.judged((head, read), facts).await;
        if let Ok(message) = read {
            self.audited((head, message, facts), &settled, started);
        }
        match &settled {
            Settled::Broker(_) => self.count(what, ("broker", "ok"), started),
            Settled::Forward(forward) => {
                self.count(what, ("forward", "ok"), started);
                self.remember(facts, said, forward);
                if let Some(answer) = said.filter(|said| said.kind == MessageKind::Response) {
                    self.client_answered(answer);
                }
            }
            Settled::Answer(answer) => self.answered(what, answer, started),
            Settled::Policy(failure) => self.metrics.immediate("policy", failure.status),
        }
        if let Some(tracing) = tracing {
            span::end(tracing, read, &mut settled);
        }
        settled
    }

    /// Decides about a stream that is taken up again; `otherwise` are the edits when it can be led to no server.
    pub async fn resumption(
        self: &Arc<Self>,
        head: &Head,
        facts: &mut Facts,
        otherwise: &Edits,
        started: Instant,
    ) -> Settled {
        let catalog = self.published.load();
        let decide = |facts: &Facts| resume::judge(head, &catalog, facts, otherwise);
        let settled = self.settle(&decide, (head, None), facts).await;
        match &settled {
            Settled::Forward(_) => self.count(STREAM, ("forward", "ok"), started),
            Settled::Answer(answer) => self.answered(STREAM, answer, started),
            Settled::Broker(_) | Settled::Policy(_) => {}
        }
        settled
    }

    /// Decides anew about a call whose backend session the server has lost; it was counted and audited before.
    pub async fn once_more(
        &self,
        (head, read): (&Head, &Result<Message<'_>, MessageError>),
        facts: &mut Facts,
    ) -> Settled {
        (facts.asked, facts.backend) = (None, None);
        self.judged((head, read), facts).await
    }

    async fn judged(
        &self,
        (head, read): (&Head, &Result<Message<'_>, MessageError>),
        facts: &mut Facts,
    ) -> Settled {
        let request = Request {
            head,
            rules: &self.rules,
            keys: &self.keys,
            message: read,
        };
        let catalog = self.published.load();
        let id = read.as_ref().ok().and_then(|message| message.id);
        self.settle(&|facts| judge(&request, &catalog, facts), (head, id), facts)
            .await
    }

    async fn settle(
        &self,
        decide: &(dyn Fn(&Facts) -> Decision + Sync),
        (head, id): (&Head, Option<&str>),
        facts: &mut Facts,
    ) -> Settled {
        let mut decision = decide(facts);
        for _ in 0..MAX_NEEDS {
            let Decision::Need(need) = decision else { break };
            match self.fetch(need, head, facts).await {
                Ok(()) => {}
                Err(FactError::Policy(failure)) => return Settled::Policy(failure),
                Err(FactError::Refused(refusal)) => return Settled::Answer(refused(refusal, id, None)),
            }
            decision = decide(facts);
        }
        match decision {
            Decision::Broker(edits) => Settled::Broker(edits),
            Decision::Forward(forward) => Settled::Forward(forward),
            Decision::Answer(answer) => Settled::Answer(answer),
            Decision::Need(_) => {
                let fault = Refusal::new(500, INTERNAL, "internal error", "needs");
                Settled::Answer(refused(fault, id, None))
            }
        }
    }

    fn audited(
        &self,
        (head, message, facts): (&Head, &Message<'_>, &Facts),
        settled: &Settled,
        started: Instant,
    ) {
        let outcome = match settled {
            Settled::Forward(forward) => Outcome::Forwarded(forward),
            Settled::Answer(answer) => Outcome::Answered(answer),
            Settled::Broker(_) | Settled::Policy(_) => return,
        };
        let call = audit::Call {
            head,
            message,
            facts,
            keys: &self.keys,
        };
        audit::record(&call, &outcome, started.elapsed());
        self.count_call(message, &outcome);
    }

    /// Counts a call by tool, and what a rule decided; a tool that is not in the catalog has no series of its own.
    fn count_call(&self, message: &Message<'_>, outcome: &Outcome<'_>) {
        let calls = &self.metrics.calls;
        let rule = match outcome {
            Outcome::Forwarded(forward) => &forward.rule,
            Outcome::Answered(answer) => &answer.rule,
        };
        if !rule.is_empty() {
            calls.ruled(matches!(outcome, Outcome::Forwarded(_)));
        }
        if message.method != "tools/call" {
            return;
        }
        match outcome {
            Outcome::Forwarded(forward) => {
                let mut named = forward.edits.metadata.text.iter();
                let tool = named.find(|(name, _)| *name == "tool");
                let tool = tool.map(|(_, tool)| tool.as_str()).unwrap_or_default();
                calls.tool(&forward.server.name, tool, "forwarded");
            }
            Outcome::Answered(answer) => calls.unnamed(audit::word(answer.refusal.reason)),
        }
    }

    /// Counts a decision: what about, its route and its outcome.
    pub fn count(&self, what: Counted<'_>, (route, outcome): (&'static str, &'static str), started: Instant) {
        self.metrics.request((what.method, what.era), route, outcome);
        self.metrics.decided(route, started.elapsed());
    }

    /// Counts and logs an answer of the gateway itself.
    pub fn answered(&self, what: Counted<'_>, answer: &Answer, started: Instant) {
        let refusal = &answer.refusal;
        self.metrics.immediate(refusal.reason, refusal.status);
        let outcome = if refusal.status >= 500 {
            "server_error"
        } else {
            "client_error"
        };
        self.count(what, ("immediate", outcome), started);
        let (reason, status) = (refusal.reason, refusal.status);
        self.metrics.refusals.refused(what.method, reason, status);
    }
}
