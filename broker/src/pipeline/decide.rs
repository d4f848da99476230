//! Decides, fetching what the decision asks for (data-plane.md 7): `Need` is asked a bounded number of times, refusals are
//! counted and logged where they are decided.

use super::audit::{self, Outcome};
use super::facts::{FactError, Pipeline, refused};
use super::span::{self, fetching};
use crate::decision::message::{Request, judge};
use crate::decision::stateless::era;
use crate::decision::{Answer, Decision, Edits, Facts, Forward, Head, resume};
use crate::protocol::message::{Message, MessageError, MessageKind};
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::protocol::version::Era;
use crate::telemetry::traces::{Fields, RequestSpan};
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
    /// Decides about a message, counts and audits it, for somebody who does not see the reply of a server.
    pub async fn message(
        self: &Arc<Self>,
        (head, read): (&Head, &Result<Message<'_>, MessageError>),
        facts: &mut Facts,
        started: Instant,
    ) -> Settled {
        let settled = self.decided((head, read), facts, started).await;
        if let (Ok(message), Settled::Forward(forward)) = (read, &settled) {
            let outcome = Outcome::Forwarded(forward);
            self.audited((head, message, facts), &outcome, started);
        }
        settled
    }

    /// As [`message`](Self::message), but what goes to a server is audited by who carries it.
    pub async fn decided(
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
        let mut settled = self.judged((head, read), facts, tracing.as_ref()).await;
        let outcome = match &settled {
            Settled::Forward(forward) => {
                self.ruled(&forward.rule, true);
                None
            }
            Settled::Answer(answer) => {
                self.ruled(&answer.rule, false);
                Some(Outcome::Answered(answer))
            }
            Settled::Broker(edits) => Some(Outcome::Own(edits)),
            Settled::Policy(failure) => Some(Outcome::Policy(failure.status)),
        };
        if let (Ok(message), Some(outcome)) = (read, outcome) {
            self.audited((head, message, facts), &outcome, started);
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
        let settled = self.settle(&decide, (head, None), facts, None).await;
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
        let replay = self
            .traces
            .begin("mcp-router.replay", &Fields(&|name| head.get(name)));
        self.judged((head, read), facts, replay.as_ref()).await
    }

    async fn judged(
        &self,
        (head, read): (&Head, &Result<Message<'_>, MessageError>),
        facts: &mut Facts,
        span: Option<&RequestSpan>,
    ) -> Settled {
        let _deciding = span.map(|span| span.part("mcp-router.route-decision"));
        let request = Request {
            head,
            rules: &self.rules,
            keys: &self.keys,
            message: read,
        };
        let catalog = self.published.load();
        let id = read.as_ref().ok().and_then(|message| message.id);
        let decide = |facts: &Facts| judge(&request, &catalog, facts);
        self.settle(&decide, (head, id), facts, span).await
    }

    async fn settle(
        &self,
        decide: &(dyn Fn(&Facts) -> Decision + Sync),
        (head, id): (&Head, Option<&str>),
        facts: &mut Facts,
        span: Option<&RequestSpan>,
    ) -> Settled {
        let mut decision = decide(facts);
        for _ in 0..MAX_NEEDS {
            let Decision::Need(need) = decision else { break };
            let _fetching = span.map(|span| span.part(fetching(&need)));
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

    /// Audits a call, and counts it by its tool: one that is not in the catalog has no series of its own.
    fn audited(
        &self,
        (head, message, facts): (&Head, &Message<'_>, &Facts),
        outcome: &Outcome<'_>,
        started: Instant,
    ) {
        let call = audit::Call {
            head,
            message,
            session: facts.claims.as_ref().map(|claims| claims.jti),
            keys: &self.keys,
        };
        audit::record(&call, outcome, started.elapsed());
        if message.method != "tools/call" {
            return;
        }
        let calls = &self.metrics.calls;
        match outcome {
            Outcome::Forwarded(forward) => {
                let mut named = forward.edits.metadata.text.iter();
                let tool = named.find(|(name, _)| *name == "tool");
                let tool = tool.map(|(_, tool)| tool.as_str()).unwrap_or_default();
                calls.tool(&forward.server.name, tool, outcome.word());
            }
            Outcome::Answered(_) | Outcome::Policy(_) => calls.unnamed(outcome.word()),
            Outcome::Own(_) | Outcome::Carried(..) => {}
        }
    }

    /// Counts an item that a policy's rule allowed or denied.
    fn ruled(&self, rule: &str, allowed: bool) {
        if !rule.is_empty() {
            self.metrics.calls.ruled(allowed);
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
