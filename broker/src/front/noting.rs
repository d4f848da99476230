//! Links in the reply of a server, noted for the session that gets them (data-plane.md 5.5) before it can follow them. The
//! reply is passed on as it comes.

use crate::config::model::ServerConfig;
use crate::pipeline::facts::Pipeline;
use crate::protocol::header;
use crate::protocol::links::Watch;
use axum::body::{Bytes, HttpBody};
use axum::http::response;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use uuid::Uuid;

/// Whose links in a reply are noted, and whose reply it is.
#[derive(Clone)]
pub(super) struct Noting {
    /// Session and its end, Unix seconds.
    pub session: (Uuid, u64),
    /// Who gave the links.
    pub server: Arc<ServerConfig>,
}

impl Noting {
    /// Notes these links.
    pub(super) async fn note(&self, pipeline: &Pipeline, uris: &[String]) {
        pipeline.note_links(self.session, &self.server.name, uris).await;
    }
}

/// What looks for links in this reply; `None` when it can hold none, or is compressed.
pub(super) fn watch(parts: &response::Parts) -> Option<Watch> {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_plain = text("content-encoding").is_none_or(|coding| coding == "identity");
    let kind = text("content-type").filter(|_| parts.status.is_success() && is_plain)?;
    if header::is_json(kind) {
        return Some(Watch::json());
    }
    header::is_sse(kind).then(Watch::events)
}

/// A body whose links are noted before their frame is handed on.
pub(super) struct Noted<B> {
    inner: B,
    watch: Watch,
    to: (Arc<Pipeline>, Noting),
    /// A frame that waits until its links are noted.
    waiting: Option<(BoxFuture<'static, ()>, Frame<Bytes>)>,
}

impl<B> Noted<B> {
    /// Looks into `inner` with `watch`.
    pub(super) fn new(inner: B, watch: Watch, to: (Arc<Pipeline>, Noting)) -> Self {
        Self {
            inner,
            watch,
            to,
            waiting: None,
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Noted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some((noted, _)) = &mut this.waiting {
                ready!(noted.as_mut().poll(context));
                return Poll::Ready(this.waiting.take().map(|(_, frame)| Ok(frame)));
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let uris = frame
                .data_ref()
                .map(|data| this.watch.push(data))
                .unwrap_or_default();
            if uris.is_empty() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let (pipeline, noting) = this.to.clone();
            let noted = async move { noting.note(&pipeline, &uris).await };
            this.waiting = Some((Box::pin(noted), frame));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.waiting {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
