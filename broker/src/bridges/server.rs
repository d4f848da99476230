//! The HTTP side of a bridge: streamable HTTP of 2025-03-26 and later, for the gateway's own clients only.

use super::link::{Link, LinkError};
use super::session::{Call, NotSent, Said, Session};
use super::shared::Shared;
use super::stdio::{Named, Starts};
use super::{Paths, sse, stdio};
use crate::config::model::{ChildCommand, ServerConfig, Transport};
use crate::protocol::server_message;
use crate::protocol::{header, sse as events};
use crate::transport::address::AddressPolicy;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::serve::ListenerExt as _;
use futures::stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Comments on an idle stream, so that its reader knows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest wait for the first thing that a server says in a call.
const SILENCE: Duration = Duration::from_secs(3600);
/// The front has its own limit, which is never larger.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Sessions of one bridge.
const MAX_SESSIONS: usize = 10_000;

/// One bridge.
pub(super) struct Bridge {
    config: Arc<ServerConfig>,
    bundle: String,
    named: Named,
    addresses: AddressPolicy,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    starts: Starts,
    /// The child of all sessions, where there is one.
    shared: Mutex<Option<Shared>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Bridge {
    pub(super) fn new(
        config: Arc<ServerConfig>,
        (bundle, named): (&str, Named),
        addresses: AddressPolicy,
        (stop, tasks): (CancellationToken, TaskTracker),
    ) -> Self {
        Self {
            config,
            bundle: bundle.to_owned(),
            named,
            addresses,
            sessions: Mutex::default(),
            starts: Starts::default(),
            shared: Mutex::default(),
            stop,
            tasks,
        }
    }

    async fn open(&self, headers: &HeaderMap) -> Result<Link, LinkError> {
        let stop = self.stop.child_token();
        match (self.config.transport, &self.config.command) {
            (Transport::Sse, _) => {
                let bundles = [self.bundle.as_str(), self.config.ca.pem()];
                sse::open(&self.config, (&bundles, self.addresses), headers, stop).await
            }
            (_, Some(command)) if self.config.shared => self.join(command, stop),
            (_, Some(command)) => self.child(command, stop),
            (_, None) => Err(LinkError::Stream("nothing to start".to_owned())),
        }
    }

    fn child(&self, command: &ChildCommand, stop: CancellationToken) -> Result<Link, LinkError> {
        let server = (self.config.as_ref(), &self.named);
        stdio::open(server, command, &self.starts, (stop, &self.tasks))
    }

    /// A link into the child that all sessions share; the first one starts it.
    fn join(&self, command: &ChildCommand, stop: CancellationToken) -> Result<Link, LinkError> {
        let mut kept = self.shared.lock().map_err(|_| LinkError::Busy)?;
        if let Some(shared) = kept.as_ref().filter(|shared| !shared.has_ended()) {
            return shared.join();
        }
        let shared = Shared::start(self.child(command, stop)?);
        kept.insert(shared).join()
    }

    fn session(&self, headers: &HeaderMap) -> Option<Arc<Session>> {
        let id = headers.get(header::SESSION)?.to_str().ok()?;
        let session = self.sessions.lock().ok()?.get(id).cloned();
        session.filter(|session| !session.has_ended())
    }

    async fn post(&self, headers: &HeaderMap, body: &Bytes) -> Response {
        let Ok(text) = std::str::from_utf8(body) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let Some(message) = server_message::read(text) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        if message.method.as_deref() == Some("initialize") {
            return self.initialize(headers, text).await;
        }
        let Some(session) = self.session(headers) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        if message.method.is_none() || message.id.is_none() {
            return match session.tell(text).await {
                Ok(()) => StatusCode::ACCEPTED.into_response(),
                Err(error) => refused(error),
            };
        }
        match session.call(text).await {
            Ok(call) => answered(call).await.0,
            Err(error) => refused(error),
        }
    }

    async fn initialize(&self, headers: &HeaderMap, text: &str) -> Response {
        let link = match self.open(headers).await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(component = "front", server = self.config.name, %error, "Server not started");
                // What made the last one fail says more than that it is waited.
                if !matches!(error, LinkError::Backoff) {
                    self.config.trouble.set(error.to_string());
                }
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        };
        self.config.trouble.clear();
        let (session, id) = (Session::start(link), Uuid::new_v4().to_string());
        // Nobody learns the id of a session whose opening fails, or is not waited for.
        let unopened = session.ended().drop_guard();
        if let Ok(mut sessions) = self.sessions.lock() {
            sessions.retain(|_, session| !session.has_ended());
            if sessions.len() >= MAX_SESSIONS {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            sessions.insert(id.clone(), Arc::clone(&session));
        }
        let (mut response, good) = match session.call(text).await {
            Ok(call) => answered(call).await,
            Err(error) => return refused(error),
        };
        if let (true, Ok(id)) = (good, HeaderValue::from_str(&id)) {
            response.headers_mut().insert(header::SESSION, id);
            unopened.disarm();
        }
        response
    }

    fn delete(&self, headers: &HeaderMap) -> Response {
        let Some(session) = self.session(headers) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        session.end();
        if let Ok(mut sessions) = self.sessions.lock() {
            sessions.retain(|_, session| !session.has_ended());
        }
        StatusCode::OK.into_response()
    }

    fn listen(&self, headers: &HeaderMap) -> Response {
        let Some(session) = self.session(headers) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let start = (session.stream(), session.ended());
        let chunks = stream::unfold(start, |(mut stream, ended)| async move {
            let said = tokio::select! {
                () = ended.cancelled() => return None,
                said = timeout(KEEP_ALIVE, stream.recv()) => said,
            };
            let chunk = match said {
                Ok(Some(text)) => events::encode(None, &text),
                Ok(None) => return None,
                Err(_) => ": keep-alive\n\n".to_owned(),
            };
            Some((Ok::<_, std::convert::Infallible>(chunk), (stream, ended)))
        });
        with_type("text/event-stream", Body::from_stream(chunks))
    }
}

fn refused(error: NotSent) -> Response {
    match error {
        NotSent::Ended => StatusCode::NOT_FOUND,
        NotSent::Busy => StatusCode::SERVICE_UNAVAILABLE,
        NotSent::Unreadable => StatusCode::BAD_REQUEST,
    }
    .into_response()
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(content_type));
    response
}

/// An answer that may be an error.
#[derive(Deserialize)]
struct Answered {
    error: Option<IgnoredAny>,
}

/// JSON when the answer comes first, else an event stream that ends with it; and whether it is known to be no error, or yet
/// to come.
async fn answered(mut call: Call) -> (Response, bool) {
    let first = match timeout(SILENCE, call.recv()).await {
        Ok(Some(Said::Answer(text))) => {
            let good = serde_json::from_str::<Answered>(&text).is_ok_and(|answer| answer.error.is_none());
            return (with_type("application/json", Body::from(text)), good);
        }
        Ok(Some(Said::Aside(text))) => text,
        Ok(None) | Err(_) => return (StatusCode::BAD_GATEWAY.into_response(), false),
    };
    let aside = events::encode(None, &first);
    let chunks = stream::unfold(Some((Some(aside), call)), |running| async move {
        let (first, mut call) = running?;
        let (text, goes_on) = match first {
            Some(first) => (first, true),
            None => next(&mut call).await?,
        };
        let rest = goes_on.then_some((None, call));
        Some((Ok::<_, std::convert::Infallible>(text), rest))
    });
    (with_type("text/event-stream", Body::from_stream(chunks)), true)
}

/// What comes next on the stream of a call, and whether more follows. A server that is silent for long is still at work.
async fn next(call: &mut Call) -> Option<(String, bool)> {
    Some(match timeout(KEEP_ALIVE, call.recv()).await {
        Ok(Some(Said::Answer(text))) => (events::encode(None, &text), false),
        Ok(Some(Said::Aside(text))) => (events::encode(None, &text), true),
        Ok(None) => return None,
        Err(_) => (": keep-alive\n\n".to_owned(), true),
    })
}

/// Serves all bridges until `stop`.
pub(super) async fn serve(listener: TcpListener, paths: Paths, stop: CancellationToken) {
    let app = Router::new()
        .route("/{path}", any(handle))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(paths);
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(component = "front", %error, "Bridges ended");
    }
}

async fn handle(
    State(paths): State<Paths>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bridge = paths.load().get(&path).cloned();
    let Some(bridge) = bridge else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match method {
        Method::POST => bridge.post(&headers, &body).await,
        Method::GET => bridge.listen(&headers),
        Method::DELETE => bridge.delete(&headers),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_server_is_silent_for_minutes_is_kept_alive() {
        let (says, call) = mpsc::channel(1);
        says.send(Said::Aside("{\"a\":1}".to_owned())).await.unwrap();
        let (response, _) = answered(call).await;
        let mut body = response.into_body();
        let mut chunk = async || {
            let frame = body.frame().await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        let started = Instant::now();
        assert_eq!(chunk().await, events::encode(None, "{\"a\":1}"));
        while started.elapsed() < Duration::from_secs(600) {
            assert_eq!(chunk().await, ": keep-alive\n\n");
        }
        says.send(Said::Answer("{}".to_owned())).await.unwrap();
        assert_eq!(chunk().await, events::encode(None, "{}"));
        assert!(body.frame().await.is_none());
    }
}
