//! The work queue: one entry for each item, bursts coalesced, failures backed off with jitter, never two runs of one
//! item at once (operator.md 4.7). Each item remembers how many changes of the world there were when it was queued.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use mcp_gateway_api::object_key::ObjectKey;
use rand::Rng;
use tokio::{sync::Notify, time::Instant};

use crate::cache::Version;

/// How long a burst of changes of one object is gathered.
const COALESCE: Duration = Duration::from_millis(100);
/// First wait after a failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const BACKOFF_LAST: Duration = Duration::from_secs(300);

/// One thing to evaluate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WorkItem {
    /// An extension: its children and status.
    Extension(ObjectKey),
    /// A registration's status.
    Registration(ObjectKey),
    /// A virtual server's status.
    VirtualServer(ObjectKey),
    /// A policy's status.
    AuthPolicy(ObjectKey),
    /// Our conditions in a Gateway's listeners.
    ListenerStatus(ObjectKey),
    /// Our entries in an HTTPRoute's parents.
    RouteStatus(ObjectKey),
    /// The brokers of a namespace: ask them what they serve.
    Brokers(String),
    /// The exclusivity claims.
    Claims,
    /// Certificate and configurations of the admission webhook.
    WebhookCertificates,
    /// The webhook configurations beside those that OLM makes.
    SupplementaryWebhooks,
    /// What OLM is told about upgrades.
    Upgradeable,
}

impl WorkItem {
    /// Kind of the item, for logs and metrics.
    #[must_use]
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Extension(_) => "Extension",
            Self::Registration(_) => "Registration",
            Self::VirtualServer(_) => "VirtualServer",
            Self::AuthPolicy(_) => "AuthPolicy",
            Self::ListenerStatus(_) => "ListenerStatus",
            Self::RouteStatus(_) => "RouteStatus",
            Self::Brokers(_) => "Brokers",
            Self::Claims => "Claims",
            Self::WebhookCertificates => "WebhookCertificates",
            Self::SupplementaryWebhooks => "SupplementaryWebhooks",
            Self::Upgradeable => "Upgradeable",
        }
    }

    /// Name of the item, for logs.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Extension(key)
            | Self::Registration(key)
            | Self::VirtualServer(key)
            | Self::AuthPolicy(key)
            | Self::ListenerStatus(key)
            | Self::RouteStatus(key) => key.to_string(),
            Self::Brokers(namespace) => namespace.clone(),
            Self::Claims | Self::WebhookCertificates | Self::SupplementaryWebhooks | Self::Upgradeable => {
                String::new()
            }
        }
    }
}

/// What came of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing left to do until something changes.
    Done,
    /// Look again after this time, unless something changes before.
    After(Duration),
    /// Failed: try again later.
    Failed,
}

#[derive(Clone, Copy)]
struct Due {
    time: Instant,
    version: u64,
}

#[derive(Default)]
struct State {
    due: BTreeMap<WorkItem, Due>,
    running: BTreeSet<WorkItem>,
    failures: BTreeMap<WorkItem, Failures>,
}

/// Failures in a row, and until when the last one is waited for.
#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    until: Instant,
}

/// The queue. Bounded by the number of objects, because every item is in it at most once.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    version: Version,
}

impl Queue {
    /// A queue that reads the count of changes from `version`.
    pub(crate) fn following(version: Version) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

    /// Asks for a run of each item soon.
    pub(crate) fn add(&self, items: impl IntoIterator<Item = WorkItem>) {
        self.add_at(items, Instant::now() + COALESCE);
    }

    /// Takes the next item that is due, with the count of changes that it has to be evaluated over at least; waits for
    /// it. Every item taken is given back with [`Queue::finish`].
    pub(crate) async fn take(&self) -> (WorkItem, u64) {
        loop {
            let changed = self.changed.notified();
            let wait = match self.lock().next(Instant::now()) {
                Next::Item(item, version) => return (item, version),
                Next::At(time) => Some(time),
                Next::Nothing => None,
            };
            match wait {
                Some(time) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(time) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Gives an item back.
    pub(crate) fn finish(&self, item: &WorkItem, outcome: Outcome) {
        let mut state = self.lock();
        state.running.remove(item);
        let wait = match outcome {
            Outcome::Failed => Some(state.failed(item, rand::rng().random_range(0.8..1.2))),
            Outcome::Done => None,
            Outcome::After(wait) => Some(wait),
        };
        if outcome != Outcome::Failed {
            state.failures.remove(item);
        }
        if let Some(wait) = wait {
            let time = Instant::now() + wait;
            state.put(item.clone(), Due { time, version: 0 });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// True when nothing failed, runs or is due soon, beside what OLM is told: only looks at a later time are left.
    pub(crate) fn is_settled(&self) -> bool {
        let soon = Instant::now() + COALESCE;
        let state = self.lock();
        let mut due = state
            .due
            .iter()
            .filter(|(_, due)| due.time <= soon)
            .map(|(item, _)| item);
        let counts = |item: &WorkItem| *item != WorkItem::Upgradeable;
        let busy = due.any(counts) || state.running.iter().any(counts);
        !busy && !state.failures.keys().any(counts)
    }

    /// Forgets everything: this replica leads no more, and no run is under way.
    pub(crate) fn clear(&self) {
        *self.lock() = State::default();
    }

    fn add_at(&self, items: impl IntoIterator<Item = WorkItem>, time: Instant) {
        let version = self.version.load(Ordering::SeqCst);
        let mut state = self.lock();
        for item in items {
            state.put(item, Due { time, version });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Item(WorkItem, u64),
    At(Instant),
    Nothing,
}

impl State {
    /// The earlier of two wishes counts: a burst is gathered from its first change on. So does the later version.
    fn put(&mut self, item: WorkItem, wish: Due) {
        let due = self.due.entry(item).or_insert(wish);
        due.time = due.time.min(wish.time);
        due.version = due.version.max(wish.version);
    }

    /// Counts a failure and says how long to wait. A run that a change asked for before the wait was over does not make
    /// the wait longer: many changes while few calls fail would else end in minutes of silence.
    fn failed(&mut self, item: &WorkItem, jitter: f64) -> Duration {
        let now = Instant::now();
        let count = match self.failures.get(item) {
            Some(former) if now < former.until => former.count,
            Some(former) => former.count.saturating_add(1),
            None => 1,
        };
        let wait = backoff(count, jitter);
        let until = now + wait;
        self.failures.insert(item.clone(), Failures { count, until });
        wait
    }

    fn next(&mut self, now: Instant) -> Next {
        let waiting = self.due.iter().filter(|(item, _)| !self.running.contains(*item));
        let Some((item, due)) = waiting
            .min_by_key(|(_, due)| due.time)
            .map(|(item, due)| (item.clone(), *due))
        else {
            return Next::Nothing;
        };
        if due.time > now {
            return Next::At(due.time);
        }
        self.due.remove(&item);
        self.running.insert(item.clone());
        Next::Item(item, due.version)
    }
}

/// Wait after the `failures`-th failure in a row; `jitter` is a factor around 1.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    BACKOFF_FIRST
        .saturating_mul(factor)
        .min(BACKOFF_LAST)
        .mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str) -> WorkItem {
        WorkItem::Extension(ObjectKey::new("ns", name))
    }

    #[test]
    fn failures_back_off_from_one_second_to_five_minutes() {
        assert_eq!(backoff(1, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(4, 1.0), Duration::from_secs(8));
        assert_eq!(backoff(99, 1.0), Duration::from_secs(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_run_and_a_change_during_a_run_is_a_second_one() {
        let queue = Queue::default();
        queue.add([item("a"), item("a")]);
        queue.add([item("a")]);
        let (taken, _) = queue.take().await;
        assert_eq!(taken, item("a"));
        queue.add([item("a")]);
        let early = tokio::time::timeout(Duration::from_secs(5), queue.take()).await;
        assert!(early.is_err(), "never two runs of one item at once");
        queue.finish(&taken, Outcome::Done);
        assert_eq!(queue.take().await.0, item("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_whose_run_was_broken_off_runs_again_after_a_new_start() {
        let queue = Queue::default();
        queue.add([item("a")]);
        queue.take().await;
        queue.clear();
        queue.add([item("a")]);
        assert_eq!(queue.take().await.0, item("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_for_later_gives_way_to_a_change() {
        let queue = Queue::default();
        queue.add([item("a")]);
        let (taken, _) = queue.take().await;
        queue.finish(&taken, Outcome::After(Duration::from_secs(600)));
        queue.add([item("a")]);
        let start = Instant::now();
        queue.take().await;
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_is_evaluated_over_every_change_before_its_last_wish() {
        let version = Version::default();
        let queue = Queue::following(Version::clone(&version));
        version.store(3, Ordering::SeqCst);
        queue.add([item("a")]);
        version.store(5, Ordering::SeqCst);
        queue.add([item("a"), item("b")]);
        version.store(9, Ordering::SeqCst);
        let (taken, needed) = queue.take().await;
        assert_eq!((taken.clone(), needed), (item("a"), 5));
        queue.finish(&taken, Outcome::After(Duration::from_secs(1)));
        assert_eq!(queue.take().await, (item("b"), 5));
        assert_eq!(
            queue.take().await,
            (item("a"), 0),
            "nothing that concerns it has changed"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_changes_asked_for_do_not_lengthen_the_wait() {
        let queue = Queue::default();
        for _ in 0..20 {
            queue.add([item("a")]);
            let (taken, _) = queue.take().await;
            queue.finish(&taken, Outcome::Failed);
        }
        let begun = Instant::now();
        let (taken, _) = queue.take().await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        queue.finish(&taken, Outcome::Failed);
        let begun = Instant::now();
        queue.take().await;
        assert!(
            begun.elapsed() > Duration::from_millis(1500),
            "{:?}",
            begun.elapsed()
        );
    }
}
