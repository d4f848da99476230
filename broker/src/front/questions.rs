//! Questions of servers without sessions that wait for the answers of clients (data-plane.md 10.6). An answer may come to
//! another replica, which puts it into the store.

use super::FrontState;
use super::forwarding::Incoming;
use super::mcp::{caller_of, plain, refuse};
use crate::decision::head::too_large;
use crate::decision::relay::{OURS, Ticket};
use crate::protocol::message::MessageKind;
use crate::protocol::reply::{INTERNAL, INVALID_REQUEST, Refusal};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, timeout_at};
use uuid::Uuid;

/// Questions of this process that wait for an answer.
const MAX_WAITING: usize = 10_000;
/// Longest answer that is kept for another replica, bytes.
const MAX_KEPT: usize = 256 * 1024;
/// How often it is looked for an answer that came to another replica.
const ELSEWHERE: Duration = Duration::from_millis(500);
/// The one member of what is kept of an answer: no entry of the token page looks like that.
const ANSWER: &str = "answer";
/// Begins the ids under which questions wait.
pub(super) const MARK: &str = "round-";

/// Questions that wait for an answer.
pub struct Questions {
    wait: Duration,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<String>>>,
}

/// One of them; it is forgotten when this is dropped.
pub(super) struct Question<'a> {
    state: &'a FrontState,
    id: Uuid,
    answer: oneshot::Receiver<String>,
}

impl Questions {
    /// None yet; each waits this long.
    pub fn new(wait: Duration) -> Self {
        Self {
            wait,
            waiting: Mutex::default(),
        }
    }

    fn take(&self, id: Uuid) -> Option<oneshot::Sender<String>> {
        self.waiting.lock().ok()?.remove(&id)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.state.questions.take(self.id);
    }
}

impl<'a> Question<'a> {
    /// A question that begins to wait; `None` when too many do.
    pub(super) fn new(state: &'a FrontState) -> Option<Self> {
        let (id, (sender, answer)) = (Uuid::new_v4(), oneshot::channel());
        let mut waiting = state.questions.waiting.lock().ok()?;
        (waiting.len() < MAX_WAITING).then(|| waiting.insert(id, sender))?;
        Some(Self { state, id, answer })
    }

    /// Under which it waits; its request has the id [`MARK`] and this.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    /// The client's message that answers it, whether it comes to this replica or to another; `None` when none comes in time.
    pub(super) async fn answered(mut self) -> Option<String> {
        let end = Instant::now() + self.state.questions.wait;
        let (state, id) = (self.state, self.id);
        let arrived = async {
            tokio::select! {
                text = &mut self.answer => text.ok(),
                text = elsewhere(state, id) => Some(text),
            }
        };
        timeout_at(end, arrived).await.ok().flatten()
    }
}

async fn elsewhere(state: &FrontState, id: Uuid) -> String {
    let mut tick = interval(ELSEWHERE);
    loop {
        tick.tick().await;
        if let Ok(Some(kept)) = state.store.elicitation(id, true).await
            && let Ok(mut kept) = serde_json::from_str::<HashMap<String, String>>(&kept)
            && let Some(answer) = kept.remove(ANSWER)
        {
            return answer;
        }
    }
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
    if !state.store.is_shared() {
        // Nobody waits here, and there is nowhere else.
        return Some(refused(400));
    }
    if answer.len() > MAX_KEPT {
        return Some(refuse(&too_large(), message.id));
    }
    let kept = json!({ANSWER: answer}).to_string();
    Some(match state.store.put_elicitation(question, kept).await {
        Ok(()) => plain(StatusCode::ACCEPTED, ""),
        Err(_) => refuse(
            &Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1),
            message.id,
        ),
    })
}
