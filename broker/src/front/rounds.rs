//! Questions of a server without sessions to a client with one (data-plane.md 10.6): the call is held open, each question
//! becomes a request on its stream, and the call is made again with the answers. Only where the front carries calls out.

use super::FrontState;
use super::forwarding::{Forwarding, Incoming, put_session};
use super::mcp::{caller_of, event_stream, plain, refuse};
use super::outgoing::Outgoing;
use super::passing::IDLE;
use super::running::RunningCall;
use crate::decision::Forward;
use crate::decision::bridge::{Bridge, Input};
use crate::decision::relay::{OURS, Passage, Relay, Ticket};
use crate::decision::rewrite::{Form, ReplyPlan};
use crate::protocol::json::quoted;
use crate::protocol::message::MessageKind;
use crate::protocol::object::Object;
use crate::protocol::reply::{INTERNAL, INVALID_REQUEST, Refusal, error};
use crate::protocol::{header, server_message, sse};
use crate::transport::exchange::{self, ExchangeError};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::json;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

/// Rounds of one call.
const MAX_ROUNDS: usize = 8;
/// Questions of one round.
const MAX_QUESTIONS: usize = 16;
/// Questions of this process that wait for an answer.
const MAX_WAITING: usize = 10_000;
/// Messages for a client that does not read.
const QUEUE: usize = 64;
/// How often it is looked for an answer that came to another replica.
const ELSEWHERE: Duration = Duration::from_millis(500);
/// The one member of what is kept of an answer: no entry of the token page looks like that.
const ANSWER: &str = "answer";
/// Begins the ids under which questions wait.
const MARK: &str = "round-";

/// Questions that wait for an answer.
pub struct Questions {
    wait: Duration,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<String>>>,
}

impl Questions {
    /// None yet; each waits this long.
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            waiting: Mutex::default(),
        }
    }

    fn ask(&self, id: Uuid) -> Option<oneshot::Receiver<String>> {
        let mut waiting = self.waiting.lock().ok()?;
        let (sender, receiver) = oneshot::channel();
        (waiting.len() < MAX_WAITING).then(|| waiting.insert(id, sender))?;
        Some(receiver)
    }

    fn take(&self, id: Uuid) -> Option<oneshot::Sender<String>> {
        self.waiting.lock().ok()?.remove(&id)
    }
}

/// Forgets a question when nobody waits for its answer any more.
struct Waiting<'a>(&'a Questions, Uuid);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.take(self.1);
    }
}

/// True for calls to servers that may answer with a question; they are held, so that they can also be cancelled.
pub(super) fn is_held(forward: &Forward) -> bool {
    let plan = forward.reply.as_ref().filter(|plan| plan.form == Form::Events);
    plan.and_then(|plan| plan.bridge.as_ref())
        .is_some_and(Bridge::asks_by_rounds)
}

/// The response to a message that answers one of our questions; `None` when it does not.
pub(super) async fn returned(state: &Arc<FrontState>, incoming: Incoming<'_>) -> Option<Response> {
    let message = incoming.read.as_ref().ok()?;
    let id: String =
        serde_json::from_str(message.id.filter(|_| message.kind == MessageKind::Response)?).ok()?;
    let ticket = Ticket::open(&state.keys, id.starts_with(OURS).then_some(&id)?)?;
    let original: String = serde_json::from_str(&ticket.original).ok()?;
    let question: Uuid = original.strip_prefix(MARK)?.parse().ok()?;
    let refused = |status| {
        refuse(
            &Refusal::new(status, INVALID_REQUEST, "unknown request id", "response"),
            message.id,
        )
    };
    let caller = match caller_of(state, incoming.head).await {
        Ok(caller) => caller,
        Err(refusal) => return Some(refuse(&refusal, message.id)),
    };
    if caller.claims.jti != ticket.jti {
        return Some(refused(403));
    }
    let answer = message.text.to_owned();
    let elsewhere = match state.questions.take(question) {
        Some(waiting) => waiting.send(answer).err(),
        None => Some(answer),
    };
    let Some(answer) = elsewhere else {
        return Some(plain(StatusCode::ACCEPTED, ""));
    };
    let kept = json!({ANSWER: answer}).to_string();
    Some(match state.store.put_elicitation(question, kept).await {
        Ok(()) => plain(StatusCode::ACCEPTED, ""),
        Err(_) => refuse(
            &Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1),
            message.id,
        ),
    })
}

/// A call that is held open.
pub(super) struct Held {
    state: Arc<FrontState>,
    forward: Forward,
    /// Headers of the request as the server gets it.
    headers: HeaderMap,
    /// Its body as the server gets it.
    body: Bytes,
    out: mpsc::Sender<Bytes>,
}

/// How a round ended.
enum Round {
    /// The client has its answer, or is gone.
    Over,
    /// The server asks.
    Asked(Input),
}

impl Held {
    /// Holds the call whose first reply is `response`, a good one, and answers its client with an event stream.
    pub(super) fn start(
        state: &Arc<FrontState>,
        running: RunningCall,
        (forward, outgoing): (Forward, Outgoing),
        response: reqwest::Response,
    ) -> Response {
        let (out, queue) = mpsc::channel(QUEUE);
        let session = forward
            .edits
            .guard
            .as_ref()
            .and_then(|guard| guard.session.clone());
        let held = Self {
            state: Arc::clone(state),
            forward,
            headers: outgoing.headers,
            body: outgoing.body,
            out,
        };
        tokio::spawn(async move {
            // Ending it ends the server's stream, which the server takes as the end of the call.
            tokio::select! {
                () = running.cancelled.cancelled() => {}
                () = held.run(response) => {}
            }
        });
        let stream = ReceiverStream::new(queue).map(Ok::<_, Infallible>);
        let mut reply = event_stream(Body::from_stream(stream));
        put_session(&mut reply, session.as_deref());
        reply
    }

    async fn run(&self, first: reqwest::Response) {
        let Some((ReplyPlan { relay, .. }, bridge)) = self.plan() else {
            return;
        };
        let mut response = first;
        for _ in 0..MAX_ROUNDS {
            let round = tokio::select! {
                () = self.out.closed() => return,
                round = self.round(response, (relay, bridge)) => round,
            };
            let input = match round {
                Ok(Round::Over) => return,
                Ok(Round::Asked(input)) => input,
                Err(_) => return self.failed(bridge).await,
            };
            let answers = tokio::select! {
                () = self.out.closed() => return,
                answers = self.answers(&input, relay) => answers,
            };
            let answers = match answers {
                Ok(answers) => answers,
                Err(needed) => return self.tell(&bridge.not_answerable(&needed)).await,
            };
            response = match self.again(&input, &answers).await {
                Some(Ok(response)) if response.status().is_success() => response,
                _ => return self.failed(bridge).await,
            };
        }
        self.tell(&bridge.not_answerable("more rounds of input")).await;
    }

    fn plan(&self) -> Option<(&ReplyPlan, &Bridge)> {
        let plan = self.forward.reply.as_ref()?;
        Some((plan, plan.bridge.as_ref()?))
    }

    async fn tell(&self, text: &str) {
        // A client that is gone needs nothing.
        let _ = self.out.send(Bytes::from(sse::encode(None, text))).await;
    }

    async fn failed(&self, bridge: &Bridge) {
        let text = error(Some(&bridge.id), INTERNAL, "MCP server unavailable", None);
        self.tell(&text).await;
    }

    /// Passes on what a reply brings until its answer.
    async fn round(
        &self,
        response: reqwest::Response,
        (relay, bridge): (&Relay, &Bridge),
    ) -> Result<Round, ExchangeError> {
        let kind = response.headers().get("content-type");
        let events = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(header::is_sse);
        if !events {
            let body = exchange::body(response, sse::MAX_EVENT).await?;
            let text = std::str::from_utf8(&body).map_err(|_| ExchangeError::Malformed)?;
            return Ok(self.answered(text, bridge).await);
        }
        let (mut stream, mut decoder) = (response.bytes_stream(), sse::Decoder::default());
        loop {
            let piece = timeout(IDLE, stream.next()).await;
            let piece = piece.map_err(|_| ExchangeError::Timeout("response body"))?;
            let found = match piece {
                Some(Ok(piece)) => decoder.push(&piece).map_err(|_| ExchangeError::Malformed)?,
                Some(Err(_)) => return Err(ExchangeError::Broken),
                None => {
                    let last = decoder.finish().ok().flatten().ok_or(ExchangeError::Broken)?;
                    return Ok(self.answered(&last.data, bridge).await);
                }
            };
            for event in found.iter().filter(|event| !event.data.is_empty()) {
                let notice =
                    server_message::read(&event.data).is_some_and(|message| message.method.is_some());
                if !notice {
                    return Ok(self.answered(&event.data, bridge).await);
                }
                self.notice(&event.data, (relay, bridge)).await;
            }
        }
    }

    async fn notice(&self, text: &str, (relay, bridge): (&Relay, &Bridge)) {
        let passage = match bridge.notice(text) {
            Passage::Same => relay.judge(&self.state.keys, text),
            other => other,
        };
        match passage {
            Passage::Same => self.tell(text).await,
            Passage::Changed(changed) => self.tell(&changed).await,
            Passage::Drop | Passage::Reply(_) => {}
        }
    }

    async fn answered(&self, text: &str, bridge: &Bridge) -> Round {
        match bridge.input(text) {
            Some(input) => Round::Asked(input),
            None => {
                self.tell(&bridge.answer(&self.state.keys, text.trim())).await;
                Round::Over
            }
        }
    }

    /// Asks the client everything at once and waits for all answers, as the members of `inputResponses`.
    ///
    /// # Errors
    /// What the server needs and the client cannot or does not give.
    async fn answers(&self, input: &Input, relay: &Relay) -> Result<String, String> {
        if input.questions.len() > MAX_QUESTIONS {
            return Err("more input".to_owned());
        }
        let asked = input.questions.iter().map(async |(key, request)| {
            let answer = self.answer(request, relay).await?;
            Ok::<_, String>(format!("{}:{answer}", quoted(key)))
        });
        let answers: Result<Vec<String>, String> = join_all(asked).await.into_iter().collect();
        Ok(format!("{{{}}}", answers?.join(",")))
    }

    /// Asks one question; the answer is JSON text.
    async fn answer(&self, request: &str, relay: &Relay) -> Result<String, String> {
        let object = Object::read(request).ok_or("more input")?;
        let method = object.string("method").ok_or("more input")?;
        let id = Uuid::new_v4();
        let params = with_elicitation_id(object.get("params").unwrap_or("{}"), &method, id);
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":"{MARK}{id}","method":{},"params":{params}}}"#,
            quoted(&method)
        );
        let Passage::Changed(question) = relay.judge(&self.state.keys, &text) else {
            return Err(method);
        };
        let answer = self.state.questions.ask(id).ok_or_else(|| method.clone())?;
        let _waiting = Waiting(&self.state.questions, id);
        self.tell(&question).await;
        let end = Instant::now() + self.state.questions.wait;
        let text = timeout_at(end, self.arrived(id, answer)).await;
        let text = text.ok().flatten().ok_or_else(|| method.clone())?;
        let object = Object::read(&text).unwrap_or_default();
        match object.get("result") {
            Some(result) => Ok(result.to_owned()),
            // A person who is asked may refuse; the server learns that.
            None if method == "elicitation/create" => Ok(r#"{"action":"cancel"}"#.to_owned()),
            None => Err(method),
        }
    }

    /// The answer, whether it comes to this replica or to another.
    async fn arrived(&self, id: Uuid, answer: oneshot::Receiver<String>) -> Option<String> {
        let elsewhere = async {
            let mut tick = interval(ELSEWHERE);
            loop {
                tick.tick().await;
                if let Ok(Some(kept)) = self.state.store.elicitation(id, true).await
                    && let Ok(mut kept) = serde_json::from_str::<HashMap<String, String>>(&kept)
                    && let Some(answer) = kept.remove(ANSWER)
                {
                    return answer;
                }
            }
        };
        tokio::select! {
            text = answer => text.ok(),
            text = elsewhere => Some(text),
        }
    }

    /// Makes the call again, with the answers.
    async fn again(&self, input: &Input, answers: &str) -> Option<Result<reqwest::Response, ExchangeError>> {
        let forwarding: &Forwarding = self.state.forwarding.as_ref()?;
        let text = std::str::from_utf8(&self.body).ok()?;
        let mut message = Object::read(text)?;
        let mut params = Object::read(message.get("params")?)?;
        params.set("inputResponses", answers.to_owned());
        params.remove("requestState");
        if let Some(state) = &input.state {
            params.set("requestState", quoted(state));
        }
        let params = params.text();
        message.set("params", params);
        message.set("id", format!("\"{MARK}{}\"", Uuid::new_v4()));
        let outgoing = Outgoing {
            method: Method::POST,
            headers: self.headers.clone(),
            body: Bytes::from(message.text()),
        };
        Some(forwarding.send(&self.forward, outgoing).await)
    }
}

/// Clients with sessions know a visit of a URL by an id (2025-11-25).
fn with_elicitation_id(params: &str, method: &str, id: Uuid) -> String {
    let Some(mut object) = Object::read(params) else {
        return "{}".to_owned();
    };
    if method == "elicitation/create" && object.string("mode").as_deref() == Some("url") {
        object.set("elicitationId", format!("\"{id}\""));
    }
    object.text()
}
