//! The messages of one client session that belong to no request (data-plane.md 4.6): numbered, kept for a while for a
//! client that lost its stream, and queued for the one stream that is open.

use crate::aggregation::catalog::Catalog;
use crate::aggregation::view::Selection;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

/// Messages kept for `Last-Event-ID`, and queued for a slow reader; past it the stream is closed.
pub const MAX_MESSAGES: usize = 256;
/// Bytes kept, and bytes queued.
pub const MAX_BYTES: usize = 1024 * 1024;
/// How long a message is kept, and a channel that nobody reads.
pub const KEPT: Duration = Duration::from_secs(60);

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Its place in the channel.
    pub sequence: u64,
    /// JSON text.
    pub text: String,
}

/// The reading end of an open stream.
pub struct Inbox {
    receiver: mpsc::Receiver<Arc<Message>>,
    queued: Arc<AtomicUsize>,
    /// Which channel the messages belong to.
    pub channel: Uuid,
    /// Which stream of the channel this is.
    pub generation: u64,
}

struct Outbox {
    generation: u64,
    sender: mpsc::Sender<Arc<Message>>,
    queued: Arc<AtomicUsize>,
}

/// The channel of one session.
pub struct Channel {
    /// Changes when what was kept cannot be continued.
    pub id: Uuid,
    /// Filters of the session's lists.
    pub selection: Selection,
    /// What the client could see when it was told last, or when it came.
    pub seen: Arc<Catalog>,
    /// Identity of the session.
    pub binding: Option<String>,
    next: u64,
    kept: VecDeque<(Instant, Arc<Message>)>,
    kept_bytes: usize,
    live: Option<Outbox>,
    idle_since: Instant,
}

impl Inbox {
    /// The next message; `None` when the stream is over.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        let message = self.receiver.recv().await?;
        self.queued.fetch_sub(message.text.len(), Ordering::Relaxed);
        Some(message)
    }
}

impl Channel {
    /// A channel without a stream.
    pub fn new(selection: Selection, seen: Arc<Catalog>, binding: Option<String>) -> Self {
        Self {
            id: Uuid::new_v4(),
            selection,
            seen,
            binding,
            next: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            live: None,
            idle_since: Instant::now(),
        }
    }

    /// Opens the stream `generation`, which ends the one before. It begins with the messages after `last`.
    pub fn open(&mut self, generation: u64, last: Option<u64>) -> Inbox {
        let (sender, receiver) = mpsc::channel(MAX_MESSAGES);
        let queued = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox {
            generation,
            sender,
            queued: Arc::clone(&queued),
        };
        for (_, message) in &self.kept {
            if last.is_some_and(|last| message.sequence > last) {
                outbox.put(message);
            }
        }
        self.live = Some(outbox);
        Inbox {
            receiver,
            queued,
            channel: self.id,
            generation,
        }
    }

    /// True when the messages after `last` of the channel `id` can be given again.
    pub fn can_continue(&self, id: Uuid, last: u64) -> bool {
        let oldest = self
            .kept
            .front()
            .map_or(self.next, |(_, message)| message.sequence);
        self.id == id && last < self.next && last.saturating_add(1) >= oldest
    }

    /// Sends a message; false when no stream takes it. It is kept either way.
    pub fn send(&mut self, text: String) -> bool {
        if text.len() > MAX_BYTES {
            return false;
        }
        let message = Arc::new(Message {
            sequence: self.next,
            text,
        });
        self.next += 1;
        let sent = self.live.as_ref().is_some_and(|live| live.put(&message));
        if !sent {
            self.close();
        }
        self.keep(message);
        sent
    }

    fn keep(&mut self, message: Arc<Message>) {
        self.kept_bytes += message.text.len();
        self.kept.push_back((Instant::now(), message));
        self.forget(Instant::now());
    }

    /// Forgets what was kept long enough, or is too much.
    pub fn forget(&mut self, now: Instant) {
        while let Some((since, message)) = self.kept.front() {
            let old = now.duration_since(*since) >= KEPT;
            if !old && self.kept.len() <= MAX_MESSAGES && self.kept_bytes <= MAX_BYTES {
                break;
            }
            self.kept_bytes -= message.text.len();
            self.kept.pop_front();
        }
    }

    /// True while a stream is open.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Ends the stream of this generation, if it is still the open one.
    pub fn left(&mut self, generation: u64) -> bool {
        let left = self
            .live
            .as_ref()
            .is_some_and(|live| live.generation == generation);
        if left {
            self.close();
        }
        left
    }

    /// Ends the stream.
    pub fn close(&mut self) {
        if self.live.take().is_some() {
            self.idle_since = Instant::now();
        }
    }

    /// True when nobody came back in time.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        self.live.is_none() && now.duration_since(self.idle_since) >= KEPT
    }
}

impl Outbox {
    fn put(&self, message: &Arc<Message>) -> bool {
        let size = message.text.len();
        let fits = self.queued.fetch_add(size, Ordering::Relaxed) + size <= MAX_BYTES;
        fits && self.sender.try_send(Arc::clone(message)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Channel {
        Channel::new(Selection::default(), Arc::default(), None)
    }

    async fn texts(inbox: &mut Inbox, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(inbox.next().await.unwrap().text.clone());
        }
        found
    }

    #[tokio::test]
    async fn a_stream_that_is_taken_up_again_begins_after_the_last_event() {
        let mut channel = channel();
        let mut first = channel.open(1, None);
        for text in ["a", "b"] {
            assert!(channel.send(text.to_owned()));
        }
        assert_eq!(texts(&mut first, 2).await, ["a", "b"]);
        assert!(channel.left(1) && !channel.left(1));
        assert!(!channel.send("c".to_owned()), "nobody reads");
        assert!(channel.can_continue(channel.id, 0) && !channel.can_continue(Uuid::new_v4(), 0));
        assert!(!channel.can_continue(channel.id, 3), "an event that never was");
        let mut second = channel.open(2, Some(0));
        assert!(channel.send("d".to_owned()));
        assert_eq!(texts(&mut second, 3).await, ["b", "c", "d"]);
    }

    #[tokio::test]
    async fn s23_what_is_kept_and_what_is_queued_is_bounded() {
        let mut channel = channel();
        let mut inbox = channel.open(1, None);
        for number in 0..MAX_MESSAGES {
            assert!(channel.send(number.to_string()));
        }
        assert!(
            !channel.send("one too many".to_owned()),
            "a slow reader's stream ends"
        );
        assert!(!channel.is_live());
        assert_eq!(channel.kept.len(), MAX_MESSAGES);
        assert!(channel.can_continue(channel.id, 0), "0 is forgotten, but known");
        channel.send("nobody reads".to_owned());
        assert!(!channel.can_continue(channel.id, 0), "1 is forgotten too");
        texts(&mut inbox, MAX_MESSAGES).await;
        assert!(inbox.next().await.is_none());
        let _inbox = channel.open(2, None);
        assert!(channel.send("x".repeat(MAX_BYTES)));
        assert_eq!(channel.kept.len(), 1, "the large one pushed the others out");
        assert!(!channel.send("y".to_owned()), "a megabyte waits");
        assert!(!channel.send("z".repeat(MAX_BYTES + 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn d22_what_nobody_fetches_is_gone_after_a_minute() {
        let mut channel = channel();
        let _inbox = channel.open(1, None);
        channel.send("a".to_owned());
        channel.left(1);
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert!(!channel.is_abandoned(Instant::now()) && channel.can_continue(channel.id, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        channel.forget(Instant::now());
        assert_eq!((channel.kept.len(), channel.kept_bytes), (0, 0));
        assert!(channel.is_abandoned(Instant::now()));
    }
}
