//! Updates of single resources on a stream of `subscriptions/listen` (data-plane.md 4.7, 10.5). Each server that owns one of them
//! has a stream of its own, which nothing but this listener uses and which ends with it. An update says that something is to be
//! read again: several of one resource that nobody has fetched yet are one.

use super::FrontState;
use super::unsolicited::{FIRST_PAUSE, IDLE, LASTING, LONGEST_PAUSE, MAX_MESSAGE};
use crate::aggregation::view::View;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::decision::relay::{Passage, Place, Relay};
use crate::protocol::header;
use crate::protocol::sse_blocks::{Blocks, Piece, event};
use crate::protocol::version::Era;
use crate::sessions::opener::Opener;
use crate::sessions::store::BackendSession;
use crate::telemetry::relay_metrics::Answered;
use axum::body::Bytes;
use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use http::HeaderMap;
use reqwest::Response;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Resources that one stream may name.
pub(super) const MAX_URIS: usize = 100;
/// Longest wait for a server before the client is told what it will hear of.
const ATTACH: Duration = Duration::from_secs(5);
/// Servers that are listened to for updates at once, for all listeners.
pub const MAX_SOURCES: usize = 2000;
/// Subscriptions at one server that are made at once.
const SUBSCRIBING: usize = 8;
const UPDATED: &str = "notifications/resources/updated";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// The resources of one server that a client asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    server: Arc<ServerConfig>,
    era: Era,
    /// The server's own URIs, each with the one that the client knows.
    uris: BTreeMap<String, String>,
}

/// What the caller may hear of, by server. A server that needs a token of the person is left out: it is kept with sessions.
pub(super) fn wanted(view: &View<'_>, uris: &[String], token_pages: bool) -> Vec<Wanted> {
    let mut servers: BTreeMap<&str, Wanted> = BTreeMap::new();
    for uri in uris {
        let Some(permit) = view.permit_uri(uri) else {
            continue;
        };
        let server = permit.server();
        if token_pages && server.config.token_url_elicitation.is_some() {
            continue;
        }
        let of_server = servers.entry(&server.config.name).or_insert_with(|| Wanted {
            server: Arc::clone(&server.config),
            era: server.snapshot.era(),
            uris: BTreeMap::new(),
        });
        of_server.uris.insert(permit.target().to_owned(), uri.clone());
    }
    servers.into_values().collect()
}

/// Published URIs that were updated since the listener looked last.
#[derive(Default)]
struct Pending {
    uris: Mutex<BTreeSet<String>>,
    more: Notify,
}

impl Pending {
    fn add(&self, uris: impl IntoIterator<Item = String>) {
        if let Ok(mut pending) = self.uris.lock() {
            pending.extend(uris);
        }
        self.more.notify_one();
    }
}

/// The updates of one listener. What was opened for them is closed when this value is dropped.
pub(super) struct Updates {
    pending: Arc<Pending>,
    taken: Vec<oneshot::Receiver<Vec<String>>>,
    _gone: DropGuard,
}

impl Updates {
    /// Begins to subscribe at the servers. `headers` are those of the client that a hairpin carries.
    pub(super) fn open(
        state: &Arc<FrontState>,
        (claims, headers): (&SessionClaims, &HeaderMap),
        wanted: Vec<Wanted>,
    ) -> Self {
        let (pending, gone) = (Arc::new(Pending::default()), CancellationToken::new());
        let mut taken = Vec::new();
        for wanted in wanted {
            let Some(opener) = state.opener.clone() else { break };
            let source = Source {
                state: Arc::clone(state),
                opener,
                claims: claims.clone(),
                headers: headers.clone(),
                wanted,
                pending: Arc::clone(&pending),
                gone: gone.clone(),
            };
            let (first, answer) = oneshot::channel();
            tokio::spawn(source.run(first));
            taken.push(answer);
        }
        Self {
            pending,
            taken,
            _gone: gone.drop_guard(),
        }
    }

    /// The published URIs that servers will speak of.
    pub(super) async fn taken(&mut self) -> BTreeSet<String> {
        let answers = self.taken.drain(..).map(|answer| timeout(ATTACH, answer));
        let answers = join_all(answers).await.into_iter();
        answers.filter_map(|answer| answer.ok()?.ok()).flatten().collect()
    }

    /// Waits for updates; the published URIs.
    pub(super) async fn next(&self) -> BTreeSet<String> {
        self.pending.more.notified().await;
        let pending = self.pending.uris.lock();
        pending
            .map(|mut uris| std::mem::take(&mut *uris))
            .unwrap_or_default()
    }
}

/// One server's part.
struct Source {
    state: Arc<FrontState>,
    opener: Arc<Opener>,
    claims: SessionClaims,
    headers: HeaderMap,
    wanted: Wanted,
    pending: Arc<Pending>,
    gone: CancellationToken,
}

/// An open stream of a server.
struct Attached {
    messages: Messages,
    /// Where the server has sessions.
    backend: Option<BackendSession>,
    /// The server's own URIs that it took.
    taken: BTreeSet<String>,
}

impl Source {
    /// Keeps the stream open until the listener is gone. A server that takes nothing at first is not asked again; the client
    /// knows from the acknowledgement that it will not hear of it.
    async fn run(self, first: oneshot::Sender<Vec<String>>) {
        let Ok(_permit) = Arc::clone(&self.state.updates).try_acquire_owned() else {
            self.state.metrics.stream_overflows.inc();
            return;
        };
        let Some(mut attached) = self.attach().await else {
            return;
        };
        let acknowledged = attached.taken.clone();
        if first.send(self.published(&acknowledged)).is_err() {
            // The listener is gone, or was told by now that it will not hear of this.
            self.close(attached).await;
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = Instant::now();
            let gone = tokio::select! {
                () = self.gone.cancelled() => true,
                () = self.read(&mut attached, &acknowledged) => false,
            };
            self.close(attached).await;
            if gone {
                return;
            }
            if opened.elapsed() > LASTING {
                pause = FIRST_PAUSE;
            }
            attached = loop {
                tokio::select! {
                    () = self.gone.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                if let Some(attached) = self.attach().await {
                    break attached;
                }
            };
            // Something may have been updated while nobody listened.
            self.pending.add(self.published(&acknowledged));
        }
    }

    fn published(&self, uris: &BTreeSet<String>) -> Vec<String> {
        let known = uris.iter().filter_map(|uri| self.wanted.uris.get(uri));
        known.cloned().collect()
    }

    /// Every step has a deadline of its own: a session that was opened is always closed again.
    async fn attach(&self) -> Option<Attached> {
        match self.wanted.era {
            Era::Legacy => self.in_session().await,
            Era::Modern => timeout(ATTACH, self.without_session()).await.ok().flatten(),
        }
    }

    async fn in_session(&self) -> Option<Attached> {
        let server = &self.wanted.server;
        let opening = self.opener.open_apart(&self.claims, server, self.headers.clone());
        let backend = opening.await.ok()?;
        let Some((messages, taken)) = self.subscribed(&backend).await else {
            self.opener.close(server, &backend).await;
            return None;
        };
        self.state.metrics.sessions.backends.opened(&server.name);
        Some(Attached {
            messages,
            backend: Some(backend),
            taken,
        })
    }

    /// The stream first: an update that follows the subscription at once has somewhere to go.
    async fn subscribed(&self, backend: &BackendSession) -> Option<(Messages, BTreeSet<String>)> {
        let to = (self.wanted.server.as_ref(), backend);
        let response = self.opener.listen(to, self.headers.clone(), None).await.ok()?;
        let messages = Messages::of(response)?;
        let (uris, mut taken) = (self.wanted.uris.keys().collect::<Vec<_>>(), BTreeSet::new());
        for some in uris.chunks(SUBSCRIBING) {
            let subscribing = some
                .iter()
                .map(|uri| self.opener.subscribe(to, self.headers.clone(), uri));
            let answers = join_all(subscribing).await;
            let subscribed = some.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
            taken.extend(subscribed.map(|(uri, _)| String::clone(uri)));
        }
        (!taken.is_empty()).then_some((messages, taken))
    }

    async fn without_session(&self) -> Option<Attached> {
        let uris: Vec<&String> = self.wanted.uris.keys().collect();
        let asking = self
            .opener
            .listen_for(&self.wanted.server, self.headers.clone(), &uris);
        let mut messages = Messages::of(asking.await.ok()?)?;
        let first: Value = serde_json::from_str(&messages.next().await?).ok()?;
        let honoured = first.pointer("/params/notifications/resourceSubscriptions")?;
        let honoured = honoured.as_array().filter(|_| method(&first) == ACKNOWLEDGED)?;
        let asked = |uri: &&str| self.wanted.uris.contains_key(*uri);
        let taken = honoured.iter().filter_map(Value::as_str).filter(asked);
        let taken: BTreeSet<String> = taken.map(str::to_owned).collect();
        (!taken.is_empty()).then_some(Attached {
            messages,
            backend: None,
            taken,
        })
    }

    /// Reads to the end of the stream.
    async fn read(&self, attached: &mut Attached, acknowledged: &BTreeSet<String>) {
        while let Some(text) = attached.messages.next().await {
            if let Some(backend) = &attached.backend {
                self.answer(backend, &text).await;
            }
            let Ok(message) = serde_json::from_str::<Value>(&text) else {
                continue;
            };
            let uri = message.pointer("/params/uri").and_then(Value::as_str);
            if let Some(uri) = uri.filter(|uri| method(&message) == UPDATED && acknowledged.contains(*uri)) {
                self.pending.add(self.wanted.uris.get(uri).cloned());
            }
        }
    }

    /// Answers what the server asks: `ping`, and that there is nobody for anything else.
    async fn answer(&self, backend: &BackendSession, text: &str) {
        let to = (self.wanted.server.as_ref(), backend);
        let relay = Relay::new(&self.claims, to, Place::Notices, false);
        let body = match relay.judge(&self.state.keys, text) {
            Passage::Reply(body) => body,
            Passage::Refused(kind, body) => {
                self.state.asked.refused(kind, Answered::Denied);
                body
            }
            Passage::Same | Passage::Changed(_) | Passage::Relayed(..) | Passage::Drop => return,
        };
        let message = ("response", body);
        self.opener.relay(to, self.headers.clone(), message).await;
    }

    async fn close(&self, attached: Attached) {
        if let Some(backend) = &attached.backend {
            let server = &self.wanted.server;
            self.state.metrics.sessions.backends.closed(&server.name);
            self.opener.close(server, backend).await;
        }
    }
}

fn method(message: &Value) -> &str {
    message.get("method").and_then(Value::as_str).unwrap_or_default()
}

/// The messages of an event stream.
struct Messages {
    stream: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    blocks: Blocks,
    ready: VecDeque<String>,
}

impl Messages {
    /// Those of a response that is an event stream.
    fn of(response: Response) -> Option<Self> {
        let content_type = response.headers().get("content-type")?.to_str().ok()?;
        let good = response.status().is_success() && header::is_sse(content_type);
        good.then(|| Self {
            stream: Box::pin(response.bytes_stream()),
            blocks: Blocks::new(MAX_MESSAGE),
            ready: VecDeque::new(),
        })
    }

    /// The next message; `None` when the stream is over or silent for too long.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Some(text);
            }
            let chunk = timeout(IDLE, self.stream.next()).await.ok()??.ok()?;
            for piece in self.blocks.push(&chunk, false) {
                if let Piece::Whole(block) = piece {
                    self.ready.extend(event(&block).map(|event| event.data));
                }
            }
        }
    }
}
