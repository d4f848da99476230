//! How long a connection may take to send the head of a request (data-plane.md 15.1): counted from the head's first
//! byte, so that a kept-alive connection may idle. A server that closes idle connections races with Envoy's pool, and
//! the call that loses the race fails. HTTP/2 connections are left to their own rules.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

const HEAD: Duration = Duration::from_secs(5);
const HTTP2_PREFACE: &[u8] = b"PRI";

/// A connection whose reader loses patience.
pub struct Patient<S> {
    inner: S,
    /// A request is being served: what is read now is no head.
    busy: Arc<AtomicBool>,
    deadline: Option<Pin<Box<Sleep>>>,
    http2: Option<bool>,
}

impl<S> Patient<S> {
    /// Wraps a connection; `busy` is set from the end of a head to the answer.
    pub fn new(inner: S, busy: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            busy,
            deadline: None,
            http2: None,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let http2 = *self.http2.get_or_insert_with(|| bytes.starts_with(HTTP2_PREFACE));
        if self.deadline.is_none() && !http2 && !self.busy.load(Ordering::Acquire) {
            self.deadline = Some(Box::pin(sleep(HEAD)));
        }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.busy.load(Ordering::Acquire) {
            self.deadline = None;
        }
        self.deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.received(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_and_a_slow_head_ends_it() {
        let (mut client, server) = tokio::io::duplex(64);
        let busy = Arc::new(AtomicBool::new(false));
        let mut patient = Patient::new(server, Arc::clone(&busy));
        let mut buffer = [0; 16];
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err(),
            "idle"
        );
        client.write_all(b"GET").await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), 3);
        busy.store(true, Ordering::Release);
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err(),
            "served"
        );
        busy.store(false, Ordering::Release);
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err(),
            "idle again"
        );
        client.write_all(b"G").await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), 1);
        let start = Instant::now();
        assert_eq!(
            patient.read(&mut buffer).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_has_its_own_rules() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Arc::default());
        let mut buffer = [0; 16];
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), 14);
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err()
        );
    }
}
