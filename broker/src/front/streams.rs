//! GET streams of clients (data-plane.md 4.6) and the change notices on them (5.4): after a quiet moment one notice per
//! kind to those sessions whose visible list changed. The messages of one session are its `channel`.

use super::FrontState;
use super::channel::{Channel, Inbox, Message};
use crate::aggregation::catalog::{Catalog, Server};
use crate::aggregation::view::{Selection, View};
use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::auth::session::SessionClaims;
use crate::decision::relay::OURS;
use crate::protocol::{reply, sse};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::relay_metrics::Direction;
use crate::upstreams::items::ItemKind;
use axum::body::{Body, Bytes};
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Channels, most of them with an open stream.
pub const MAX_STREAMS: usize = 20_000;
/// Open streams of one identity.
pub(super) const MAX_PER_IDENTITY: usize = 100;
pub(super) const QUIET: Duration = Duration::from_millis(100);
pub(super) const LONGEST: Duration = Duration::from_secs(1);
/// How often what nobody fetches is looked for.
const SWEEP: Duration = Duration::from_secs(10);
const PURPOSE: &str = "event-id";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

/// An event id, sealed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EventId {
    #[serde(rename = "j")]
    jti: Uuid,
    #[serde(rename = "c")]
    channel: Uuid,
    #[serde(rename = "n")]
    sequence: u64,
}

/// Why a stream is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// Too many streams.
    Busy,
    /// The event id is forged or another session's.
    ForeignEvent,
}

#[derive(Default)]
struct Open {
    generation: u64,
    channels: HashMap<Uuid, Channel>,
    identities: HashMap<String, usize>,
}

/// The channels of sessions with a stream, or with one until a minute ago.
pub struct Streams {
    open: Mutex<Open>,
    limit: usize,
    metrics: Arc<Metrics>,
    /// Ends what has no session: streams of `subscriptions/listen`.
    pub(super) closing: CancellationToken,
}

impl Open {
    fn forget(&mut self, jti: Uuid) {
        if let Some(binding) = self.channels.remove(&jti).and_then(|channel| channel.binding)
            && let Some(count) = self.identities.get_mut(&binding)
        {
            *count -= 1;
            if *count == 0 {
                self.identities.remove(&binding);
            }
        }
    }

    fn channel(
        &mut self,
        claims: &SessionClaims,
        (selection, seen): (Selection, Arc<Catalog>),
        limit: usize,
    ) -> Option<&mut Channel> {
        if !self.channels.contains_key(&claims.jti) {
            let of_identity = |binding| self.identities.get(binding).copied().unwrap_or(0);
            let full = self.channels.len() >= limit
                || claims
                    .bnd
                    .as_ref()
                    .is_some_and(|bnd| of_identity(bnd) >= MAX_PER_IDENTITY);
            if full {
                return None;
            }
            if let Some(binding) = &claims.bnd {
                *self.identities.entry(binding.clone()).or_default() += 1;
            }
        }
        self.generation += 1;
        let new = || Channel::new(selection.clone(), seen, claims.bnd.clone());
        let channel = self.channels.entry(claims.jti).or_insert_with(new);
        channel.selection = selection;
        Some(channel)
    }
}

impl Streams {
    /// Room for so many sessions with a stream.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            open: Mutex::default(),
            limit,
            metrics,
            closing: CancellationToken::new(),
        }
    }

    fn insert(
        &self,
        claims: &SessionClaims,
        last: Option<&EventId>,
        (selection, seen): (Selection, Arc<Catalog>),
    ) -> Option<Inbox> {
        let mut open = self.open.lock().ok()?;
        let generation = open.generation + 1;
        let what = (selection.clone(), Arc::clone(&seen));
        let channel = open.channel(claims, what, self.limit)?;
        let last = last.filter(|last| channel.can_continue(last.channel, last.sequence));
        if last.is_none() {
            // A stream that continues nothing begins anew, also for what the client can see.
            channel.close();
            *channel = Channel::new(selection, seen, claims.bnd.clone());
        }
        Some(channel.open(generation, last.map(|last| last.sequence)))
    }

    fn left(&self, jti: Uuid, generation: u64) {
        if let Ok(mut open) = self.open.lock()
            && let Some(channel) = open.channels.get_mut(&jti)
        {
            channel.left(generation);
        }
    }

    /// Puts a message on the stream of a session; false when it has none here, or one that cannot take it.
    pub fn tell(&self, jti: Uuid, message: String) -> bool {
        self.open.lock().is_ok_and(|mut open| {
            open.channels
                .get_mut(&jti)
                .is_some_and(|channel| channel.is_live() && channel.send(message))
        })
    }

    /// Ends the stream of a session.
    pub fn close(&self, jti: Uuid) {
        if let Ok(mut open) = self.open.lock() {
            open.forget(jti);
        }
    }

    /// The stream of a session, if it is here, shows this scope from now on and is told so.
    pub fn rescope(&self, jti: Uuid, scope: Option<Arc<Vec<String>>>) {
        if let Ok(mut open) = self.open.lock()
            && let Some(channel) = open.channels.get_mut(&jti)
        {
            channel.selection.scope = scope;
            if channel.send(reply::notification(TOOLS_CHANGED)) {
                self.metrics.relays.notices(TOOLS_CHANGED, Direction::ToClient, 1);
            }
        }
    }

    /// True when a session has its stream here.
    pub fn has(&self, jti: Uuid) -> bool {
        self.open
            .lock()
            .is_ok_and(|open| open.channels.contains_key(&jti))
    }

    /// Ends all streams.
    pub fn close_all(&self) {
        self.closing.cancel();
        if let Ok(mut open) = self.open.lock() {
            *open = Open::default();
        }
    }

    /// Forgets what nobody fetched in time.
    fn sweep(&self) {
        let Ok(mut open) = self.open.lock() else { return };
        let now = Instant::now();
        let mut abandoned = Vec::new();
        for (jti, channel) in &mut open.channels {
            channel.forget(now);
            if channel.is_abandoned(now) {
                abandoned.push(*jti);
            }
        }
        for jti in abandoned {
            open.forget(jti);
        }
    }

    /// Tells every session what has changed for it since it was told last.
    fn announce(&self, latest: &Arc<Catalog>) {
        let Ok(mut open) = self.open.lock() else { return };
        let mut known: HashMap<(*const Catalog, Selection), Vec<&'static str>> = HashMap::new();
        let mut sent: HashMap<&'static str, u64> = HashMap::new();
        for channel in open.channels.values_mut() {
            let key = (Arc::as_ptr(&channel.seen), channel.selection.clone());
            let notices = known
                .entry(key)
                .or_insert_with(|| changes(&channel.seen, latest, &channel.selection));
            for method in notices {
                if channel.send(reply::notification(method)) {
                    *sent.entry(method).or_default() += 1;
                }
            }
        }
        // Only now: while the keys above were in use their catalogs had to live.
        for channel in open.channels.values_mut() {
            channel.seen = Arc::clone(latest);
        }
        drop(open);
        for (method, number) in sent {
            self.metrics.relays.notices(method, Direction::ToClient, number);
        }
    }
}

/// The notices that a caller with this selection gets.
pub(super) fn changes(before: &Catalog, after: &Catalog, selection: &Selection) -> Vec<&'static str> {
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
        notices.push(TOOLS_CHANGED);
    }
    if !same(ItemKind::Prompt) {
        notices.push("notifications/prompts/list_changed");
    }
    if !same(ItemKind::Resource) || !same(ItemKind::Template) {
        notices.push("notifications/resources/list_changed");
    }
    notices
}

/// Counts an open stream and leaves its channel when its body is dropped.
struct Reader {
    state: Arc<FrontState>,
    jti: Uuid,
    generation: u64,
    ended: CancellationToken,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ended.cancel();
        self.state.metrics.client_streams.get.dec();
        self.state.streams.left(self.jti, self.generation);
    }
}

/// An open stream: its body, and what tells that it ended.
pub struct Opened {
    /// Body of the response.
    pub body: Body,
    /// Cancelled when the client is gone.
    pub ended: CancellationToken,
}

/// Opens the stream of a session; `last` is the client's `Last-Event-ID`.
///
/// # Errors
/// [`NotOpened`].
pub fn open(
    state: &Arc<FrontState>,
    claims: &SessionClaims,
    selection: Selection,
    last: Option<&str>,
) -> Result<Opened, NotOpened> {
    let last = match last.and_then(|last| last.strip_prefix(OURS)) {
        Some(sealed) => Some(continued(&state.keys, claims, sealed).ok_or(NotOpened::ForeignEvent)?),
        None => None,
    };
    let inbox = state
        .streams
        .insert(claims, last.as_ref(), (selection, state.published.load()))
        .ok_or(NotOpened::Busy)?;
    state.metrics.client_streams.get.inc();
    let ended = CancellationToken::new();
    let reader = Reader {
        state: Arc::clone(state),
        jti: claims.jti,
        generation: inbox.generation,
        ended: ended.clone(),
    };
    let first = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from_static(
        b": connected\n\n",
    ))));
    let rest = stream::unfold((inbox, reader), |(mut inbox, reader)| async move {
        let text = match timeout(KEEP_ALIVE, inbox.next()).await {
            Err(_) => ": keep-alive\n\n".to_owned(),
            Ok(None) => return None,
            Ok(Some(message)) => event(&reader.state.keys, (reader.jti, inbox.channel), &message),
        };
        Some((Ok(Bytes::from(text)), (inbox, reader)))
    });
    Ok(Opened {
        body: Body::from_stream(first.chain(rest)),
        ended,
    })
}

/// The event id that this session got from us.
fn continued(keys: &Keys, claims: &SessionClaims, sealed: &str) -> Option<EventId> {
    seal::open::<EventId>(keys, PURPOSE, sealed).filter(|id| id.jti == claims.jti)
}

fn event(keys: &Keys, (jti, channel): (Uuid, Uuid), message: &Message) -> String {
    let id = EventId {
        jti,
        channel,
        sequence: message.sequence,
    };
    let id = format!("{OURS}{}", seal::seal(keys, PURPOSE, &id));
    sse::encode(Some(&id), &message.text)
}

/// Forgets, again and again, what nobody fetched in time.
pub async fn forget_abandoned(state: Arc<FrontState>) {
    let mut tick = interval(SWEEP);
    loop {
        tick.tick().await;
        state.streams.sweep();
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session::internal;

    #[test]
    fn s23_a_replica_has_twenty_thousand_streams_and_a_session_one_of_them() {
        let (streams, catalog) = (
            Streams::new(MAX_STREAMS, Arc::default()),
            Arc::<Catalog>::default(),
        );
        let session = || internal(Uuid::new_v4(), 1, None);
        let open = |claims: &SessionClaims| {
            let what = (Selection::default(), Arc::clone(&catalog));
            streams.insert(claims, None, what)
        };
        let first = session();
        let mut inboxes = vec![open(&first)];
        inboxes.extend((1..20_000).map(|_| open(&session())));
        assert!(inboxes.iter().all(Option::is_some));
        assert!(open(&session()).is_none());
        assert!(open(&first).is_some(), "the same session again takes no more");
        streams.close(first.jti);
        assert!(open(&session()).is_some());
        assert!(open(&session()).is_none());
    }
}
