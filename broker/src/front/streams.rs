//! GET streams of clients (data-plane.md 4.6) and the change notices on them (5.4): after a quiet moment one notice per
//! kind to those sessions whose visible list changed.

use super::FrontState;
use crate::aggregation::catalog::{Catalog, Server};
use crate::aggregation::view::{Selection, View};
use crate::protocol::{reply, sse};
use crate::upstreams::items::ItemKind;
use axum::body::{Body, Bytes};
use futures::stream::{self, StreamExt as _};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
const MAX_STREAMS: usize = 20_000;
/// Messages that wait for a slow reader; past it the stream is closed.
const QUEUE: usize = 256;
const QUIET: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

struct Stream {
    generation: u64,
    sender: mpsc::Sender<String>,
    selection: Selection,
    /// What the client could see when it was told last, or when it came.
    seen: Arc<Catalog>,
}

/// The open streams, at most one per session.
#[derive(Default)]
pub struct Streams {
    open: Mutex<(u64, HashMap<Uuid, Stream>)>,
}

impl Streams {
    fn insert(
        &self,
        jti: Uuid,
        selection: Selection,
        seen: Arc<Catalog>,
    ) -> Option<(u64, mpsc::Receiver<String>)> {
        let mut open = self.open.lock().ok()?;
        let (counter, streams) = &mut *open;
        if streams.len() >= MAX_STREAMS && !streams.contains_key(&jti) {
            return None;
        }
        *counter += 1;
        let (sender, receiver) = mpsc::channel(QUEUE);
        // The former stream of the session ends, because its sender is dropped here.
        streams.insert(
            jti,
            Stream {
                generation: *counter,
                sender,
                selection,
                seen,
            },
        );
        Some((*counter, receiver))
    }

    fn remove(&self, jti: Uuid, generation: u64) {
        if let Ok(mut open) = self.open.lock()
            && open
                .1
                .get(&jti)
                .is_some_and(|stream| stream.generation == generation)
        {
            open.1.remove(&jti);
        }
    }

    /// Ends the stream of a session.
    pub fn close(&self, jti: Uuid) {
        if let Ok(mut open) = self.open.lock() {
            open.1.remove(&jti);
        }
    }

    /// Puts a message on the stream of a session; false when it has none here, or one that cannot take it.
    pub fn tell(&self, jti: Uuid, message: &str) -> bool {
        let Ok(mut open) = self.open.lock() else {
            return false;
        };
        let Some(stream) = open.1.get(&jti) else {
            return false;
        };
        let told = stream.sender.try_send(message.to_owned()).is_ok();
        if !told {
            open.1.remove(&jti);
        }
        told
    }

    /// Ends all streams.
    pub fn close_all(&self) {
        if let Ok(mut open) = self.open.lock() {
            open.1.clear();
        }
    }

    /// Tells every stream what has changed for it since it was told last.
    fn announce(&self, latest: &Arc<Catalog>) {
        let Ok(mut open) = self.open.lock() else { return };
        let mut known: HashMap<(*const Catalog, Selection), Vec<&'static str>> = HashMap::new();
        open.1.retain(|_, stream| {
            let key = (Arc::as_ptr(&stream.seen), stream.selection.clone());
            let notices = known
                .entry(key)
                .or_insert_with(|| changes(&stream.seen, latest, &stream.selection));
            notices
                .iter()
                .all(|method| stream.sender.try_send(reply::notification(method)).is_ok())
        });
        // Only now: while the keys above were in use their catalogs had to live.
        for stream in open.1.values_mut() {
            stream.seen = Arc::clone(latest);
        }
    }
}

/// The notices that a caller with this selection gets.
fn changes(before: &Catalog, after: &Catalog, selection: &Selection) -> Vec<&'static str> {
    let (old, new) = (View::new(before, selection), View::new(after, selection));
    let same = |kind| {
        let bytes = |view: &View<'_>| {
            view.list(kind, None)
                .map(|entry| Arc::clone(&entry.definition))
                .collect::<Vec<_>>()
        };
        bytes(&old) == bytes(&new)
    };
    let mut notices = Vec::new();
    if !same(ItemKind::Tool) {
        notices.push("notifications/tools/list_changed");
    }
    if !same(ItemKind::Prompt) {
        notices.push("notifications/prompts/list_changed");
    }
    if !same(ItemKind::Resource) || !same(ItemKind::Template) {
        notices.push("notifications/resources/list_changed");
    }
    notices
}

/// Counts an open stream and forgets it when its body is dropped.
struct Open {
    state: Arc<FrontState>,
    jti: Uuid,
    generation: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.metrics.client_streams.dec();
        self.state.streams.remove(self.jti, self.generation);
    }
}

/// Opens the stream of a session as a response body; `None` past the bound.
pub fn open(state: &Arc<FrontState>, jti: Uuid, selection: Selection) -> Option<Body> {
    let (generation, receiver) = state.streams.insert(jti, selection, state.published.load())?;
    state.metrics.client_streams.inc();
    let open = Open {
        state: Arc::clone(state),
        jti,
        generation,
    };
    let first = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from_static(
        b": connected\n\n",
    ))));
    let rest = stream::unfold((receiver, open), |(mut receiver, open)| async move {
        let text = match timeout(KEEP_ALIVE, receiver.recv()).await {
            Err(_) => ": keep-alive\n\n".to_owned(),
            Ok(None) => return None,
            Ok(Some(message)) => sse::encode(None, &message),
        };
        Some((Ok(Bytes::from(text)), (receiver, open)))
    });
    Some(Body::from_stream(first.chain(rest)))
}

/// Follows the catalog: metrics at once, notices after a quiet moment.
pub async fn announce_changes(state: Arc<FrontState>) {
    let mut catalogs = state.published.subscribe();
    while catalogs.changed().await.is_ok() {
        let end = Instant::now() + LONGEST;
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                more = timeout(QUIET, catalogs.changed()) => if !matches!(more, Ok(Ok(()))) { break },
            }
        }
        let latest = catalogs.borrow_and_update().clone();
        let gauges: Vec<_> = latest.servers.iter().map(Server::gauges).collect();
        let hash = latest
            .config
            .snapshot
            .as_deref()
            .map(|snapshot| snapshot.hash.as_str())
            .unwrap_or_default();
        state.metrics.follow(&gauges, hash);
        state.streams.announce(&latest);
    }
}
