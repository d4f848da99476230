//! The reply of a server on its way through the router, when a decision planned something for it.

use crate::decision::rewrite::{Changed, ReplyPlan, Rewriter};
use crate::decision::{Forward, Head};
use crate::pipeline::asked::OnStream;
use crate::pipeline::facts::{Pipeline, ServerLeg};
use crate::router::translate;
use crate::sessions::hairpin::forwarded;
use crate::sessions::lease::Lease;
use envoy_types::pb::envoy::service::ext_proc::v3::HttpHeaders;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use uuid::Uuid;

/// A reply whose headers are awaited.
pub struct Reply {
    plan: ReplyPlan,
    bytes: Counter,
    asked: OnStream,
    leg: ServerLeg,
    lease: Option<Lease>,
    links: Option<(Uuid, u64)>,
}

/// A reply that is rewritten.
pub struct ReplyStream {
    rewriter: Rewriter,
    bytes: Counter,
    asked: OnStream,
    leg: ServerLeg,
    links: Option<(Uuid, u64)>,
    lease: Option<Lease>,
}

impl Reply {
    /// The reply to a forwarded request; `None` when nothing is planned for it.
    pub fn new(pipeline: &Pipeline, head: &Head, forward: Forward) -> Option<Self> {
        let (lease, links) = (pipeline.lease(head, &forward), forward.links);
        let plan = forward.reply?;
        let leg = ServerLeg {
            server: forward.server,
            backend: forward.backend,
            headers: forwarded(&head.fields),
        };
        Some(Self {
            bytes: pipeline.metrics.relays.rewritten(plan.word()),
            asked: pipeline.asked.stream(),
            plan,
            leg,
            lease,
            links,
        })
    }

    /// The stream when the reply is one that the plan is for, and how its headers change.
    pub fn begin(mut self, headers: &HttpHeaders) -> Option<(ReplyStream, Changed)> {
        let head = translate::head(headers.clone());
        let status = head.get(":status").and_then(|status| status.parse().ok())?;
        if headers.end_of_stream || status >= 400 {
            // The server is done with the call.
            self.lease.iter_mut().for_each(Lease::done);
        }
        if headers.end_of_stream {
            return None;
        }
        let (rewriter, changed) =
            self.plan
                .begin((status, head.get("content-type"), head.get("content-encoding")))?;
        let stream = ReplyStream {
            rewriter: match self.links {
                Some(_) => rewriter.noting_links(),
                None => rewriter,
            },
            bytes: self.bytes,
            asked: self.asked,
            leg: self.leg,
            links: self.links,
            lease: self.lease,
        };
        Some((stream, changed))
    }
}

impl ReplyStream {
    /// What a chunk becomes. Requests of the server that the gateway answers are answered on the side.
    pub async fn push(&mut self, router: &Arc<Pipeline>, chunk: &[u8], end: bool) -> Vec<u8> {
        let mut rewritten = self.rewriter.push(&router.keys, chunk, end);
        self.bytes.inc_by(rewritten.bytes.len() as u64);
        router.relayed(&self.leg, (&mut rewritten, &mut self.asked));
        if let Some(session) = self.links {
            let server = &self.leg.server.name;
            router.note_links(session, server, &rewritten.links).await;
        }
        if let (true, Some(lease)) = (end, &mut self.lease) {
            lease.done();
        }
        rewritten.bytes
    }
}
