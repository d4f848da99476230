//! The reply of a server on its way through the router, when a decision planned something for it.

use crate::decision::rewrite::{Form, ReplyPlan, Rewriter};
use crate::decision::{Forward, Head};
use crate::pipeline::facts::{Pipeline, ServerLeg};
use crate::protocol::header;
use crate::router::translate;
use crate::sessions::hairpin::forwarded;
use envoy_types::pb::envoy::service::ext_proc::v3::HttpHeaders;
use std::sync::Arc;

/// A reply whose headers are awaited.
pub struct Reply {
    plan: ReplyPlan,
    leg: ServerLeg,
}

/// An event stream that is rewritten.
pub struct ReplyStream {
    rewriter: Rewriter,
    leg: ServerLeg,
}

impl Reply {
    /// The reply to a forwarded request; `None` when nothing is planned for it.
    pub fn new(head: &Head, forward: Forward) -> Option<Self> {
        let plan = forward.reply?;
        let leg = ServerLeg {
            server: forward.server,
            backend: forward.backend,
            headers: forwarded(&head.fields),
        };
        Some(Self { plan, leg })
    }

    /// The stream when the reply is one that the plan is for, and whether it becomes JSON. A compressed one cannot be read.
    pub fn begin(self, headers: &HttpHeaders) -> Option<(ReplyStream, bool)> {
        let head = translate::head(headers.clone());
        let is = |name: &str, check: &dyn Fn(&str) -> bool| head.get(name).is_some_and(check);
        let readable = is(":status", &|status| status.starts_with('2'))
            && is("content-type", &header::is_sse)
            && !is("content-encoding", &|coding| coding != "identity");
        if headers.end_of_stream || !readable {
            return None;
        }
        let json = matches!(self.plan.form, Form::Json(_));
        let stream = ReplyStream {
            rewriter: Rewriter::new(self.plan),
            leg: self.leg,
        };
        Some((stream, json))
    }
}

impl ReplyStream {
    /// What a chunk becomes. Requests of the server that the gateway answers are answered on the side.
    pub fn push(&mut self, router: &Arc<Pipeline>, chunk: &[u8], end: bool) -> Vec<u8> {
        let rewritten = self.rewriter.push(&router.keys, chunk, end);
        for body in rewritten.replies {
            router.answer_server(&self.leg, body);
        }
        rewritten.bytes
    }
}
