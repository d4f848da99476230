//! Replies over HTTP/2 whose reader has stalled (data-plane.md 15.1): hyper asks no body for more while its stream has no
//! window, so what a body holds is let go by a clock outside of it. HTTP/1 needs none: there the writing itself waits.

use super::patience::STALLED;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// A body, and since when its reader has not asked for more.
struct Held {
    body: Body,
    /// `None` while the reader waits for the body.
    stalled: Option<Instant>,
}

/// What is left of a reply; nothing when its reader stalled for too long.
type Shared = Arc<Mutex<Option<Held>>>;

/// The response, which ends when its reader asks for nothing in five minutes.
pub(super) fn watched(response: Response) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| {
        let stalled = Some(Instant::now());
        let shared = Arc::new(Mutex::new(Some(Held { body, stalled })));
        let watch = tokio::spawn(watch(Arc::clone(&shared)));
        Body::new(Watched {
            shared,
            _watch: AbortOnDropHandle::new(watch),
        })
    })
}

async fn watch(shared: Shared) {
    loop {
        let left = {
            let Ok(mut held) = shared.lock() else { return };
            let waits = held.as_ref().map(|held| held.stalled);
            match waits {
                None => return,
                Some(None) => STALLED,
                Some(Some(since)) => {
                    let left = STALLED.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        *held = None;
                        return;
                    }
                    left
                }
            }
        };
        sleep(left).await;
    }
}

struct Watched {
    shared: Shared,
    _watch: AbortOnDropHandle<()>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut shared = self.shared.lock().ok();
        let Some(held) = shared.as_mut().and_then(|shared| shared.as_mut()) else {
            return Poll::Ready(Some(Err(axum::Error::new("the reader stalled"))));
        };
        let frame = Pin::new(&mut held.body).poll_frame(context);
        held.stalled = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        let ended = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.body.is_end_stream());
        self.shared.lock().is_ok_and(|shared| ended(&shared))
    }

    fn size_hint(&self) -> SizeHint {
        let hint = |held: &Held| held.body.size_hint();
        let shared = self.shared.lock().ok();
        shared
            .as_ref()
            .and_then(|shared| shared.as_ref().map(hint))
            .unwrap_or_default()
    }
}
