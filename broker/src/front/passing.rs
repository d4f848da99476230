//! The reply of a server on its way to a client (data-plane.md 8.8, 13): streamed as it comes, never gathered; only what
//! a decision planned for it is rewritten.

use super::noting::{Noted, Noting, watch};
use crate::decision::rewrite::{Changed, ReplyPlan, Rewriter};
use crate::decision::{Forward, Head};
use crate::pipeline::facts::{Pipeline, ServerLeg};
use crate::protocol::header;
use crate::sessions::hairpin::forwarded;
use crate::sessions::lease::Lease;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};
use axum::response::Response;
use futures::stream;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Between two pieces of a reply. Envoy's default for an idle stream is the same.
pub(super) const IDLE: Duration = Duration::from_secs(300);

/// Headers of one hop, beside those that `Connection` names.
const HOP: [HeaderName; 6] = [
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

/// Removes what belongs to one hop (RFC 9110 7.6.1).
pub(super) fn drop_hop(headers: &mut HeaderMap) {
    let connection = headers.get_all("connection").iter();
    let named: Vec<HeaderName> = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// The way of one reply.
pub(super) struct Passing {
    pipeline: Arc<Pipeline>,
    token: Option<String>,
    pass_challenge: bool,
    plan: Option<ReplyPlan>,
    leg: Option<ServerLeg>,
    lease: Option<Lease>,
    deadline: Option<Instant>,
    links: Option<Noting>,
}

impl Passing {
    /// The way of the reply to a forwarded request, which has to be over at `deadline`.
    pub(super) fn new(
        pipeline: &Arc<Pipeline>,
        head: &Head,
        (forward, lease): (Forward, Option<Lease>),
        deadline: Option<Instant>,
    ) -> Self {
        let links = forward.links.map(|session| Noting {
            session,
            server: Arc::clone(&forward.server),
        });
        let guard = forward.edits.guard;
        let pass_challenge = guard.as_ref().is_some_and(|guard| guard.pass_challenge);
        let leg = forward.reply.is_some().then(|| ServerLeg {
            headers: forwarded(&head.fields),
            server: forward.server,
            backend: forward.backend,
        });
        Self {
            pipeline: Arc::clone(pipeline),
            token: guard.and_then(|guard| guard.session),
            pass_challenge,
            plan: forward.reply,
            leg,
            lease,
            deadline,
            links,
        }
    }

    /// The response for the client.
    pub(super) fn reply(self, response: reqwest::Response) -> Response {
        let (mut parts, body) = axum::http::Response::<reqwest::Body>::from(response).into_parts();
        drop_hop(&mut parts.headers);
        if !self.pass_challenge {
            parts.headers.remove("www-authenticate");
        }
        parts.headers.remove(header::SESSION);
        if let Some(Ok(token)) = self.token.as_deref().map(HeaderValue::from_str) {
            parts.headers.insert(header::SESSION, token);
        }
        let mut timed = Timed {
            inner: body,
            idle: None,
            deadline: self.deadline,
            lease: self.lease,
        };
        if timed.inner.is_end_stream() {
            timed.is_over();
        }
        let begun = self.plan.and_then(|plan| begun(&parts, plan));
        match (begun, self.leg) {
            (Some((rewriter, changed)), Some(leg)) => {
                if changed.ok {
                    parts.status = StatusCode::OK;
                }
                if changed.json {
                    let json = HeaderValue::from_static("application/json");
                    parts.headers.insert("content-type", json);
                }
                let rewriter = match self.links {
                    Some(_) => rewriter.noting_links(),
                    None => rewriter,
                };
                rewritten(parts, (timed, rewriter), (self.pipeline, leg, self.links))
            }
            _ => match (watch(&parts), self.links) {
                (Some(watch), Some(links)) => {
                    let noted = Noted::new(timed, watch, (self.pipeline, links));
                    Response::from_parts(parts, Body::new(noted))
                }
                _ => Response::from_parts(parts, Body::new(timed)),
            },
        }
    }
}

/// What carries a plan out on this reply.
fn begun(parts: &response::Parts, plan: ReplyPlan) -> Option<(Rewriter, Changed)> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    plan.begin((
        parts.status.as_u16(),
        text("content-type"),
        text("content-encoding"),
    ))
}

fn rewritten(
    mut parts: response::Parts,
    (body, rewriter): (Timed, Rewriter),
    (pipeline, leg, links): (Arc<Pipeline>, ServerLeg, Option<Noting>),
) -> Response {
    parts.headers.remove("content-length");
    let bytes = pipeline.metrics.relays.rewritten(rewriter.word());
    let start = Some((body, rewriter, pipeline.asked.stream()));
    let chunks = stream::unfold(start, move |running| {
        let (pipeline, leg, links) = (Arc::clone(&pipeline), leg.clone(), links.clone());
        let bytes = bytes.clone();
        async move {
            let (mut body, mut rewriter, mut asked) = running?;
            let (chunk, end) = loop {
                match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => break (data, false),
                        Err(_) => continue,
                    },
                    Some(Err(error)) => {
                        return Some((rewriter.broken().map(Bytes::from).ok_or(error), None));
                    }
                    None => break (Bytes::new(), true),
                }
            };
            let mut out = rewriter.push(&pipeline.keys, &chunk, end);
            bytes.inc_by(out.bytes.len() as u64);
            pipeline.relayed(&leg, (&mut out, &mut asked));
            if let Some(links) = links {
                links.note(&pipeline, &out.links).await;
            }
            let next = (!end).then_some((body, rewriter, asked));
            Some((Ok(Bytes::from(out.bytes)), next))
        }
    });
    Response::from_parts(parts, Body::from_stream(chunks))
}

/// A body that ends with an error when the server is silent for too long, or the call takes too long.
struct Timed {
    inner: reqwest::Body,
    /// Runs only while the server is waited for.
    idle: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
    /// Kept for as long as the reply comes.
    lease: Option<Lease>,
}

impl Timed {
    fn is_over(&mut self) {
        self.lease.iter_mut().for_each(Lease::done);
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.idle = None;
            if frame.is_none() || self.inner.is_end_stream() {
                self.is_over();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let idle = self.idle.get_or_insert_with(|| {
            let idle = Instant::now() + IDLE;
            Box::pin(sleep_until(deadline.map_or(idle, |deadline| deadline.min(idle))))
        });
        match idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the MCP server is silent".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
