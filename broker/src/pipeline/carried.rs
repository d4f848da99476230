//! A call that the gateway carries to a server itself: it is audited and counted when the head of the reply is there, or
//! when its client has left before (data-plane.md 18.5).

use super::audit::{self, Carried, Outcome};
use super::facts::Pipeline;
use crate::config::model::ServerConfig;
use crate::decision::{Facts, Forward, Head};
use crate::protocol::message::Message;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// A call under way. Dropped without a status it is one that was taken back.
pub struct CarriedCall<'a> {
    pipeline: &'a Pipeline,
    head: &'a Head,
    message: &'a Message<'a>,
    session: Option<Uuid>,
    server: Arc<ServerConfig>,
    carried: Carried,
    started: Instant,
    status: Option<u16>,
}

impl Pipeline {
    /// The call that this decision lets pass, when it is one that is audited.
    pub fn carrying<'a>(
        &'a self,
        (head, message): (&'a Head, &'a Message<'a>),
        facts: &Facts,
        forward: &Forward,
        started: Instant,
    ) -> Option<CarriedCall<'a>> {
        audit::audited(&message.method)?;
        Some(CarriedCall {
            pipeline: self,
            head,
            message,
            session: facts.claims.as_ref().map(|claims| claims.jti),
            server: Arc::clone(&forward.server),
            carried: Carried::of(forward),
            started,
            status: None,
        })
    }
}

impl CarriedCall<'_> {
    /// The client gets a reply with this status.
    pub fn replied(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for CarriedCall<'_> {
    fn drop(&mut self) {
        let outcome = Outcome::Carried(&self.carried, self.status);
        let call = audit::Call {
            head: self.head,
            message: self.message,
            session: self.session,
            keys: &self.pipeline.keys,
        };
        audit::record(&call, &outcome, self.started.elapsed());
        if self.message.method == "tools/call" {
            let calls = &self.pipeline.metrics.calls;
            calls.tool(&self.server.name, self.carried.target(), outcome.word());
        }
    }
}
