//! How long a connection may take (data-plane.md 15.1). Its first byte; then the head of a request, counted from the first
//! byte of that, so that a kept-alive connection may idle: a server that closes idle connections races with Envoy's pool, and
//! the call that loses the race fails. A reply: as long as its reader may take to read it. HTTP/2 has rules of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Until the first byte of a connection.
const FIRST: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(5);
/// Longest wait for the reader of a stream to take what there is.
pub(super) const STALLED: Duration = Duration::from_secs(300);
const HTTP2_PREFACE: &[u8] = b"PRI";

/// What a connection is doing.
#[derive(Default)]
pub struct Doing {
    /// A request is being served: what is read now is no head.
    pub busy: AtomicBool,
    /// Its reply is a stream.
    pub streaming: AtomicBool,
}

/// A connection whose reader and writer lose patience.
pub struct Patient<S> {
    inner: S,
    doing: Arc<Doing>,
    /// For a whole reply that is no stream; zero leaves it to [`STALLED`].
    write_timeout: Duration,
    /// Runs until there is a first byte, and while a head comes.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the other side does not take what is to be written.
    reply: Option<Pin<Box<Sleep>>>,
    http2: Option<bool>,
}

impl<S> Patient<S> {
    /// Wraps a connection; `doing.busy` is set from the end of a head to the answer.
    pub fn new(inner: S, doing: Arc<Doing>, write_timeout: Duration) -> Self {
        Self {
            inner,
            doing,
            write_timeout,
            head: Some(Box::pin(sleep(FIRST))),
            reply: None,
            http2: None,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        if self.http2.is_none() {
            self.head = None;
        }
        let http2 = *self.http2.get_or_insert_with(|| bytes.starts_with(HTTP2_PREFACE));
        if self.head.is_none() && !http2 && !self.doing.busy.load(Ordering::Acquire) {
            self.head = Some(Box::pin(sleep(HEAD)));
        }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.doing.busy.load(Ordering::Acquire) {
            self.head = None;
        }
        self.head
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }

    fn limit(&self) -> Duration {
        let plain = self.http2 != Some(true) && !self.doing.streaming.load(Ordering::Acquire);
        if plain && !self.write_timeout.is_zero() {
            self.write_timeout
        } else {
            STALLED
        }
    }

    /// What becomes of a write: one that waits for too long fails.
    fn written<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            return done;
        }
        let limit = self.limit();
        let deadline = self.reply.get_or_insert_with(|| Box::pin(sleep(limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
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
        let done = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(context);
        if done.is_ready() {
            // Everything that there was is taken.
            self.reply = None;
        }
        self.written(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.written(context, done)
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
        let doing = Arc::<Doing>::default();
        let mut patient = Patient::new(server, Arc::clone(&doing), Duration::ZERO);
        let mut buffer = [0; 16];
        client.write_all(b"GET").await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), 3);
        doing.busy.store(true, Ordering::Release);
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err(),
            "served"
        );
        doing.busy.store(false, Ordering::Release);
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
    async fn a_connection_that_never_says_anything_ends() {
        let (_client, server) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Arc::default(), Duration::ZERO);
        let start = Instant::now();
        let error = patient.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_has_its_own_rules() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Arc::default(), Duration::ZERO);
        let mut buffer = [0; 16];
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        assert_eq!(patient.read(&mut buffer).await.unwrap(), 14);
        assert!(
            timeout(Duration::from_secs(600), patient.read(&mut buffer))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn s23_a_reader_who_is_slow_ends_its_reply_in_the_time_of_the_flag_and_its_stream_later() {
        for (streaming, limit, after) in [(false, 10, 10), (true, 10, 300), (false, 0, 300)] {
            let (mut client, server) = tokio::io::duplex(64);
            let doing = Arc::<Doing>::default();
            doing.streaming.store(streaming, Ordering::Release);
            let mut patient = Patient::new(server, doing, Duration::from_secs(limit));
            patient.write_all(&[0; 64]).await.unwrap();
            patient.flush().await.unwrap();
            let started = Instant::now();
            let reads = tokio::spawn(async move {
                // One byte now and then does not help a reply, and nothing is read of it later.
                tokio::time::sleep(Duration::from_secs(5)).await;
                let mut byte = [0];
                client.read_exact(&mut byte).await.unwrap();
                std::future::pending::<()>().await;
            });
            let error = patient.write_all(&[0; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(started.elapsed().as_secs(), after, "{streaming} {limit}");
            reads.abort();
        }
    }
}
