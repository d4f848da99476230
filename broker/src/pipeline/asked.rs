//! Questions of servers that wait for the answers of clients, counted when they are over (data-plane.md 18.2). The sealed id
//! leads an answer back without this: it may come to another replica, which tells the one that asked.

use crate::decision::relay::Relayed;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::relay_metrics::Answered;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Questions that are counted at once; those past it are not.
const MAX_WAITING: usize = 10_000;
/// Where replicas share a store, the word of an answer that came to another one may arrive after the end of the stream.
const WORD: Duration = Duration::from_secs(2);

/// Those of this process.
pub struct Asked {
    /// What it is and since when it waits, by tag.
    waiting: Mutex<HashMap<u64, (&'static str, Instant)>>,
    metrics: Arc<Metrics>,
    /// Other replicas may take answers.
    shared: bool,
}

/// Those that came on one stream: their waiting ends with it.
pub struct OnStream {
    asked: Arc<Asked>,
    tags: Vec<u64>,
}

impl Asked {
    /// None yet; `shared`: clients may answer to other replicas.
    pub fn new(metrics: Arc<Metrics>, shared: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            metrics,
            shared,
        }
    }

    /// A stream on which questions may come.
    pub fn stream(self: &Arc<Self>) -> OnStream {
        OnStream {
            asked: Arc::clone(self),
            tags: Vec::new(),
        }
    }

    fn take(&self, tag: u64) -> Option<(&'static str, Instant)> {
        self.waiting.lock().ok()?.remove(&tag)
    }

    /// A client answered, with a result or (`good` is false) an error; false when the question does not wait here.
    pub fn answered(&self, tag: u64, good: bool) -> bool {
        let Some((kind, since)) = self.take(tag) else {
            return false;
        };
        self.metrics.relays.answered(kind, good, since.elapsed());
        true
    }

    /// Counts a question that no client was asked.
    pub fn refused(&self, kind: &'static str, why: Answered) {
        self.metrics.relays.asked(kind, why);
    }

    fn all_over(&self, tags: &[u64]) {
        tags.iter().for_each(|tag| self.over(*tag, Answered::Timeout));
    }

    fn over(&self, tag: u64, how: Answered) {
        if let Some((kind, _)) = self.take(tag) {
            self.metrics.relays.asked(kind, how);
        }
    }
}

impl OnStream {
    /// Notes what came on the stream.
    pub fn note(&mut self, relayed: &Relayed) {
        match *relayed {
            Relayed::TakenBack(tag) => self.asked.over(tag, Answered::Cancelled),
            Relayed::Asked { kind, tag } => {
                let Ok(mut waiting) = self.asked.waiting.lock() else {
                    return;
                };
                if self.tags.len() == self.tags.capacity() {
                    // Those that are over go before there must be room for more: a stream may last for days.
                    self.tags.retain(|tag| waiting.contains_key(tag));
                }
                if waiting.len() < MAX_WAITING {
                    waiting.insert(tag, (kind, Instant::now()));
                    self.tags.push(tag);
                }
            }
        }
    }

    /// The last question did not get to the client.
    pub fn unasked(&mut self) {
        if let Some(tag) = self.tags.pop() {
            self.asked.over(tag, Answered::Unavailable);
        }
    }

    /// The client answered all that came on the stream.
    pub fn answered(&mut self, good: bool) {
        for tag in self.tags.drain(..) {
            self.asked.answered(tag, good);
        }
    }
}

impl Drop for OnStream {
    fn drop(&mut self) {
        let (asked, tags) = (Arc::clone(&self.asked), std::mem::take(&mut self.tags));
        if tags.is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if asked.shared => drop(runtime.spawn(async move {
                sleep(WORD).await;
                asked.all_over(&tags);
            })),
            Ok(_) | Err(_) => asked.all_over(&tags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_counted_once_by_what_became_of_it() {
        let metrics = Arc::new(Metrics::default());
        let asked = Arc::new(Asked::new(Arc::clone(&metrics), false));
        let mut stream = asked.stream();
        for tag in 0..4 {
            let kind = "sampling";
            stream.note(&Relayed::Asked { kind, tag });
        }
        assert!(asked.answered(0, true) && asked.answered(1, false));
        assert!(!asked.answered(1, true), "it was answered");
        assert!(!asked.answered(9, true), "another replica's");
        stream.note(&Relayed::TakenBack(2));
        drop(stream);
        asked.refused("roots", Answered::Denied);
        let text = metrics.text();
        for (kind, outcome) in [
            ("sampling", "ok"),
            ("sampling", "client_error"),
            ("sampling", "cancelled"),
            ("sampling", "timeout"),
            ("roots", "denied"),
        ] {
            let line = format!(r#"mcp_relay_requests_total{{kind="{kind}",outcome="{outcome}"}} 1"#);
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(
            text.contains(r#"mcp_relay_wait_seconds_count{kind="sampling"} 2"#),
            "{text}"
        );
        assert!(asked.waiting.lock().unwrap().is_empty());
    }

    #[test]
    fn s23_a_stream_remembers_only_the_questions_that_wait() {
        let asked = Arc::new(Asked::new(Arc::new(Metrics::default()), false));
        let mut stream = asked.stream();
        for tag in 0..1000 {
            let kind = "sampling";
            stream.note(&Relayed::Asked { kind, tag });
            assert!(asked.answered(tag, true));
        }
        assert!(stream.tags.capacity() < 16, "{}", stream.tags.capacity());
    }
}
