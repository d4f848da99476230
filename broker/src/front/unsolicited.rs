//! What servers say outside of calls (data-plane.md 10.1, 10.4, 10.5): while a client's GET stream is open, the streams of its
//! backend sessions are kept open by hairpin, and their messages pass the relay to the client's stream.

use super::FrontState;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::decision::Head;
use crate::decision::forward::can_be_asked;
use crate::decision::relay::{Passage, Place, Relay};
use crate::decision::repair::fingerprint;
use crate::pipeline::asked::OnStream;
use crate::protocol::header;
use crate::protocol::reply::{METHOD_NOT_FOUND, error};
use crate::protocol::server_message;
use crate::protocol::sse_blocks::{Blocks, Piece, event};
use crate::sessions::hairpin::forwarded;
use crate::sessions::opener::Opener;
use crate::sessions::store::{BackendSession, Record};
use crate::telemetry::relay_metrics::{Answered, Direction};
use arc_swap::ArcSwap;
use futures::StreamExt as _;
use http::HeaderMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Streams of backend sessions in this process (data-plane.md 15.1).
pub const MAX_STREAMS: usize = 2000;
/// Backend sessions that other replicas opened are found in this time.
const LOOK: Duration = Duration::from_secs(30);
/// A stream without a byte, not even a comment, is lost.
pub(super) const IDLE: Duration = Duration::from_secs(90);
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A stream that lasted longer was a good one.
pub(super) const LASTING: Duration = Duration::from_secs(10);
/// Largest message that is passed on.
pub(super) const MAX_MESSAGE: usize = super::channel::MAX_BYTES;

struct Session {
    state: Arc<FrontState>,
    opener: Arc<Opener>,
    claims: SessionClaims,
    headers: HeaderMap,
}

/// One backend session that is listened to.
struct Leg {
    session: Arc<Session>,
    server: Arc<ServerConfig>,
    backend: BackendSession,
    wishes: Arc<ArcSwap<Wishes>>,
}

/// What the client wants to hear of one server.
#[derive(Default)]
struct Wishes {
    level: Option<String>,
    subscribed: Arc<Vec<String>>,
}

/// A running listener. Wishes change under way: some servers refuse a second stream while the first one is closing.
struct Listener {
    backend: Option<String>,
    wishes: Arc<ArcSwap<Wishes>>,
    _task: AbortOnDropHandle<()>,
}

type Listeners = HashMap<String, Listener>;

/// Listens for a client until its stream has `ended`.
pub fn follow(state: &Arc<FrontState>, claims: SessionClaims, head: &Head, ended: CancellationToken) {
    let Some(opener) = state.opener.clone() else {
        return;
    };
    let session = Arc::new(Session {
        state: Arc::clone(state),
        opener,
        claims,
        headers: forwarded(&head.fields),
    });
    tokio::spawn(async move {
        let watch = session.opener.watchers.watch(session.claims.jti);
        let mut tick = interval(LOOK);
        let mut listeners = Listeners::new();
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = watch.changed() => {}
                _ = tick.tick() => {}
            }
            if let Ok(known) = session.state.store.record(session.claims.jti).await {
                renew(&session, &mut listeners, &known);
            }
        }
    });
}

/// Starts the listeners that are wanted and ends the others.
fn renew(session: &Arc<Session>, listeners: &mut Listeners, known: &Record) {
    let wanted =
        can_be_asked(&session.claims.cap) || known.level.is_some() || !known.subscriptions.is_empty();
    let catalog = session.state.published.load();
    let mut kept = Listeners::new();
    for (name, backend) in known.backends.iter().filter(|_| wanted) {
        let Some(server) = catalog.server(name) else {
            continue;
        };
        let of_server = known.subscriptions.iter().filter(|(server, _)| server == name);
        let wishes = Arc::new(Wishes {
            level: known.level.clone(),
            subscribed: Arc::new(of_server.map(|(_, uri)| uri.clone()).collect()),
        });
        let same = |listener: &Listener| listener.backend == fingerprint(backend);
        let listener = match listeners.remove(name).filter(same) {
            Some(running) => {
                running.wishes.store(wishes);
                running
            }
            None => started(session, &server.config, backend.clone(), wishes),
        };
        kept.insert(name.clone(), listener);
    }
    *listeners = kept;
}

fn started(
    session: &Arc<Session>,
    server: &Arc<ServerConfig>,
    backend: BackendSession,
    wishes: Arc<Wishes>,
) -> Listener {
    let wishes = Arc::new(ArcSwap::new(wishes));
    let leg = Leg {
        session: Arc::clone(session),
        server: Arc::clone(server),
        backend,
        wishes: Arc::clone(&wishes),
    };
    Listener {
        backend: fingerprint(&leg.backend),
        wishes,
        _task: AbortOnDropHandle::new(tokio::spawn(leg.listen())),
    }
}

impl Leg {
    /// Keeps the stream open; ends when the server has none, which is final for this backend session.
    async fn listen(self) {
        let Ok(_permit) = Arc::clone(&self.session.state.unsolicited).try_acquire_owned() else {
            self.session.state.metrics.stream_overflows.inc();
            return;
        };
        let (mut pause, mut last_event) = (FIRST_PAUSE, None);
        loop {
            let opened = Instant::now();
            let asked = self.session.opener.listen(
                (&self.server, &self.backend),
                self.session.headers.clone(),
                last_event.as_deref(),
            );
            if let Ok(response) = asked.await {
                let content_type = response.headers().get("content-type");
                let content_type = content_type
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                let status = response.status();
                if matches!(status.as_u16(), 404 | 405 | 501)
                    || (status.is_success() && !header::is_sse(content_type))
                {
                    return;
                }
                if status.is_success() {
                    self.read(response, &mut last_event).await;
                }
            }
            pause = if opened.elapsed() > LASTING {
                FIRST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(pause).await;
        }
    }

    async fn read(&self, response: reqwest::Response, last_event: &mut Option<String>) {
        let (mut stream, mut blocks) = (response.bytes_stream(), Blocks::new(MAX_MESSAGE));
        let mut asked = self.session.state.asked.stream();
        while let Ok(Some(Ok(chunk))) = timeout(IDLE, stream.next()).await {
            for piece in blocks.push(&chunk, false) {
                let Piece::Whole(block) = piece else { continue };
                let Some(event) = event(&block) else { continue };
                if event.id.is_some() {
                    last_event.clone_from(&event.id);
                }
                self.pass(event.data, &mut asked).await;
            }
        }
    }

    async fn pass(&self, data: String, asked: &mut OnStream) {
        let (state, message) = (&self.session.state, server_message::read(&data));
        let notice = message.as_ref().filter(|message| message.id.is_none());
        let notice = notice.and_then(|message| message.method.as_deref());
        if let Some(method) = notice {
            state.metrics.relays.notices(method, Direction::FromServer, 1);
        }
        let (to, wishes) = ((self.server.as_ref(), &self.backend), self.wishes.load());
        let relay = Relay::new(&self.session.claims, to, Place::Notices, true);
        let mut relay = relay.with_level(wishes.level.clone());
        relay.subscribed = Arc::clone(&wishes.subscribed);
        let text = match relay.judge(&state.keys, &data) {
            Passage::Same => data.clone(),
            Passage::Changed(text) => text,
            Passage::Relayed(relayed, text) => {
                asked.note(&relayed);
                text
            }
            Passage::Drop => return,
            Passage::Reply(body) => return self.answer(body).await,
            Passage::Refused(kind, body) => {
                state.asked.refused(kind, Answered::Denied);
                return self.answer(body).await;
            }
        };
        let told = state.streams.tell(self.session.claims.jti, text);
        match (notice, told) {
            (Some(method), true) => state.metrics.relays.notices(method, Direction::ToClient, 1),
            (None, false) => {
                // Nobody is there to be asked.
                asked.unasked();
                if let Some(id) = message.and_then(|message| data.get(message.id?)) {
                    let body = error(Some(id), METHOD_NOT_FOUND, "the client has no open stream", None);
                    self.answer(body).await;
                }
            }
            (Some(_), false) | (None, true) => {}
        }
    }

    async fn answer(&self, body: String) {
        let to = (self.server.as_ref(), &self.backend);
        let headers = self.session.headers.clone();
        self.session.opener.relay(to, headers, ("response", body)).await;
    }
}
