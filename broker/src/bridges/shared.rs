//! One child for all sessions of a server (`isolation: shared`, data-plane.md 13). Each session has a link of its own into it
//! (`Shared::join`); the child sees one client that can do nothing but call. Ids and progress tokens are ours on its side, so
//! that nothing which it says to one session reaches another (S20, S26). What is decided is in [`Sharing`], without effects.

use super::link::{Link, LinkError, QUEUE};
use crate::protocol::meta::client_info;
use crate::protocol::reply::{self, METHOD_NOT_FOUND, error};
use crate::protocol::server_message::{self, ServerMessage, replace};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A child that does not read for so long is stuck.
const WRITE: Duration = Duration::from_secs(30);
/// Messages that wait for a child which does not read, of its own doing.
const MAX_PENDING: usize = 4 * QUEUE;
/// What one session could set for all: nobody may.
const NOT_SHARED: [&str; 3] = ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
/// Id of our own `initialize`; those of calls begin above it.
const OPEN: u64 = 0;

/// A session's number.
type Session = u64;
/// What sessions are told by.
type Sessions = HashMap<Session, mpsc::Sender<String>>;

/// A child with the sessions that share it.
pub(super) struct Shared {
    inbox: mpsc::Sender<Arrival>,
    end: CancellationToken,
    next: AtomicU64,
}

enum Arrival {
    Joined(Session, mpsc::Sender<String>),
    Said(Session, String),
    Left(Session),
}

impl Shared {
    /// Takes the link to a child over.
    pub(super) fn start(child: Link) -> Self {
        let (inbox, arrivals) = mpsc::channel(QUEUE);
        let end = child.end.clone();
        tokio::spawn(run(child, arrivals));
        Self {
            inbox,
            end,
            next: AtomicU64::new(0),
        }
    }

    /// True once the child has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_cancelled()
    }

    /// A link for one more session; it ends with the child, and its end does not end the child.
    pub(super) fn join(&self) -> Result<Link, LinkError> {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let (outgoing, said) = mpsc::channel(QUEUE);
        let (to, incoming) = mpsc::channel(QUEUE);
        let joined = self.inbox.try_send(Arrival::Joined(session, to));
        joined.map_err(|_| LinkError::Busy)?;
        let end = self.end.child_token();
        tokio::spawn(pump(session, said, (self.inbox.clone(), end.clone())));
        Ok(Link {
            outgoing,
            incoming,
            end,
        })
    }
}

/// Passes on what one session says, and that it is gone.
async fn pump(
    session: Session,
    mut said: mpsc::Receiver<String>,
    (inbox, end): (mpsc::Sender<Arrival>, CancellationToken),
) {
    loop {
        let text = tokio::select! {
            () = end.cancelled() => None,
            text = said.recv() => text,
        };
        let arrival = text.map_or(Arrival::Left(session), |text| Arrival::Said(session, text));
        let last = matches!(arrival, Arrival::Left(_));
        if inbox.send(arrival).await.is_err() || last {
            return;
        }
    }
}

/// The task of one child.
async fn run(mut child: Link, mut arrivals: mpsc::Receiver<Arrival>) {
    let (mut sharing, mut sessions) = (Sharing::default(), Sessions::new());
    let mut pending = VecDeque::new();
    let mut moved = Instant::now();
    loop {
        let outs = tokio::select! {
            () = child.end.cancelled() => break,
            () = sleep_until(moved + WRITE), if !pending.is_empty() => break,
            place = child.outgoing.reserve(), if !pending.is_empty() => {
                let Ok(place) = place else { break };
                if let Some(text) = pending.pop_front() {
                    place.send(text);
                }
                moved = Instant::now();
                continue;
            }
            arrival = arrivals.recv(), if pending.len() < QUEUE => match arrival {
                Some(Arrival::Joined(session, to)) => {
                    sessions.insert(session, to);
                    continue;
                }
                Some(Arrival::Said(session, text)) => sharing.said_by(session, &text),
                Some(Arrival::Left(session)) => {
                    sessions.remove(&session);
                    sharing.left(session)
                }
                None => break,
            },
            text = child.incoming.recv() => match text {
                Some(text) => sharing.said_by_child(&text),
                None => break,
            },
        };
        if pending.is_empty() {
            moved = Instant::now();
        }
        deliver(outs, &mut sessions, &mut pending);
        if pending.len() > MAX_PENDING {
            break;
        }
    }
    child.end.cancel();
}

/// A session that does not keep up is told no more: its link ends, and with it its calls.
fn deliver(outs: Vec<Out>, sessions: &mut Sessions, pending: &mut VecDeque<String>) {
    for out in outs {
        match out {
            Out::Child(text) => pending.push_back(text),
            Out::Session(session, text) => {
                if sessions
                    .get(&session)
                    .is_some_and(|to| to.try_send(text).is_err())
                {
                    sessions.remove(&session);
                }
            }
            Out::All(text) => sessions.retain(|_, to| to.try_send(text.clone()).is_ok()),
        }
    }
}

/// Where a message goes.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Child(String),
    Session(Session, String),
    All(String),
}

struct Call {
    session: Session,
    /// Its id in the session, raw.
    id: String,
    /// The progress token of the session, raw.
    token: Option<String>,
}

#[derive(Default)]
enum Opened {
    #[default]
    No,
    /// These wait, each with the id of its `initialize`.
    Asked(Vec<(Session, String)>),
    /// With this result, JSON text.
    Yes(String),
}

/// Who waits for what.
#[derive(Default)]
struct Sharing {
    last: u64,
    calls: HashMap<u64, Call>,
    opened: Opened,
}

impl Sharing {
    fn said_by(&mut self, session: Session, text: &str) -> Vec<Out> {
        let Some(message) = server_message::read(text) else {
            return Vec::new();
        };
        let id = message.id.clone().and_then(|id| text.get(id)).map(str::to_owned);
        match (message.method.as_deref(), id) {
            (Some("initialize"), Some(id)) => self.initialize((session, id), text),
            (Some(method), Some(id)) if NOT_SHARED.contains(&method) => {
                let refusal = error(Some(&id), METHOD_NOT_FOUND, "not for a shared process", None);
                vec![Out::Session(session, refusal)]
            }
            (Some(_), Some(id)) => self.call((session, id), text, message),
            (Some("notifications/cancelled"), None) => self.cancelled(session, text, message),
            // The child knows one client, which has said all of this already or answers nothing.
            _ => Vec::new(),
        }
    }

    fn initialize(&mut self, (session, id): (Session, String), text: &str) -> Vec<Out> {
        match &mut self.opened {
            Opened::Yes(result) => vec![Out::Session(session, reply::result(&id, result))],
            Opened::Asked(waiting) => {
                waiting.push((session, id));
                Vec::new()
            }
            Opened::No => {
                self.opened = Opened::Asked(vec![(session, id)]);
                let request: Value = serde_json::from_str(text).unwrap_or_default();
                let version = request
                    .pointer("/params/protocolVersion")
                    .cloned()
                    .unwrap_or_default();
                let client = client_info();
                vec![Out::Child(format!(
                    r#"{{"jsonrpc":"2.0","id":{OPEN},"method":"initialize","params":{{"protocolVersion":{version},"capabilities":{{}},"clientInfo":{client}}}}}"#
                ))]
            }
        }
    }

    fn call(&mut self, (session, id): (Session, String), text: &str, message: ServerMessage<'_>) -> Vec<Out> {
        self.last += 1;
        let number = self.last;
        let mut edits = vec![(message.id.unwrap_or_default(), number.to_string())];
        let token = message.progress_token.map(|range| {
            let token = text.get(range.clone()).unwrap_or_default().to_owned();
            edits.push((range, number.to_string()));
            token
        });
        let Some(mapped) = replace(text, edits) else {
            return Vec::new();
        };
        self.calls.insert(number, Call { session, id, token });
        vec![Out::Child(mapped)]
    }

    fn cancelled(&self, session: Session, text: &str, message: ServerMessage<'_>) -> Vec<Out> {
        let mapped = message.request_id.and_then(|range| {
            let id = text.get(range.clone())?;
            let own = |call: &Call| call.session == session && call.id == id;
            let (number, _) = self.calls.iter().find(|(_, call)| own(call))?;
            replace(text, vec![(range, number.to_string())])
        });
        mapped.map(Out::Child).into_iter().collect()
    }

    /// Nobody waits for what a session that is gone asked for.
    fn left(&mut self, session: Session) -> Vec<Out> {
        if let Opened::Asked(waiting) = &mut self.opened {
            waiting.retain(|(waits, _)| *waits != session);
        }
        let running = self.calls.extract_if(|_, call| call.session == session);
        let cancel = |(number, _)| {
            Out::Child(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#
            ))
        };
        running.map(cancel).collect()
    }

    fn said_by_child(&mut self, text: &str) -> Vec<Out> {
        let Some(message) = server_message::read(text) else {
            return Vec::new();
        };
        let id = message.id.clone().and_then(|id| text.get(id));
        match (message.method.as_deref(), id) {
            (Some("ping"), Some(id)) => vec![Out::Child(reply::result(id, "{}"))],
            (Some(_), Some(id)) => {
                let refusal = error(Some(id), METHOD_NOT_FOUND, "the client cannot do this", None);
                vec![Out::Child(refusal)]
            }
            (Some("notifications/progress"), None) => self.progress(text, message),
            (Some(method), None) if method.ends_with("/list_changed") => vec![Out::All(text.to_owned())],
            // Log lines and updates belong to nobody.
            (Some(_), None) | (None, None) => Vec::new(),
            (None, Some(id)) => match id.parse() {
                Ok(OPEN) => self.opened(text),
                Ok(number) => self.answered(number, text, message),
                Err(_) => Vec::new(),
            },
        }
    }

    fn progress(&self, text: &str, message: ServerMessage<'_>) -> Vec<Out> {
        let told = message.param_token.and_then(|range| {
            let call = self.calls.get(&text.get(range.clone())?.parse().ok()?)?;
            let told = replace(text, vec![(range, call.token.clone()?)])?;
            Some(Out::Session(call.session, told))
        });
        told.into_iter().collect()
    }

    fn answered(&mut self, number: u64, text: &str, message: ServerMessage<'_>) -> Vec<Out> {
        let answer = self.calls.remove(&number).and_then(|call| {
            let answer = replace(text, vec![(message.id?, call.id)])?;
            Some(Out::Session(call.session, answer))
        });
        answer.into_iter().collect()
    }

    /// The answer to our `initialize`, for everybody who waits for one.
    fn opened(&mut self, text: &str) -> Vec<Out> {
        let Opened::Asked(waiting) = std::mem::take(&mut self.opened) else {
            return Vec::new();
        };
        let mut answer: Value = serde_json::from_str(text).unwrap_or_default();
        let Some(result) = answer.get_mut("result") else {
            let error = answer.get("error").cloned().unwrap_or_default();
            let told = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
            let told = waiting
                .into_iter()
                .map(|(session, id)| Out::Session(session, told(id)));
            return told.collect();
        };
        if let Some(Value::Object(capabilities)) = result.get_mut("capabilities") {
            capabilities.remove("logging");
            if let Some(Value::Object(resources)) = capabilities.get_mut("resources") {
                resources.remove("subscribe");
            }
        }
        let result = result.to_string();
        let answers = waiting
            .into_iter()
            .map(|(session, id)| Out::Session(session, reply::result(&id, &result)));
        let initialized = Out::Child(reply::notification("notifications/initialized"));
        let outs = std::iter::once(initialized).chain(answers).collect();
        self.opened = Opened::Yes(result);
        outs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"theirs","version":"1"}}}"#;
    const ANSWERS: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"capabilities":{"logging":{},"resources":{"subscribe":true},"tools":{}},"protocolVersion":"2025-06-18"}}"#;

    fn request(id: &str, token: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
        )
    }

    fn progress(token: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token}}}}}"#
        )
    }

    fn opened() -> Sharing {
        let mut sharing = Sharing::default();
        sharing.said_by(1, ASKS);
        sharing.said_by_child(ANSWERS);
        sharing
    }

    #[test]
    fn s26_a_shared_process_is_opened_once_and_without_what_a_client_can_do() {
        let mut sharing = Sharing::default();
        let asked = sharing.said_by(1, ASKS);
        let [Out::Child(asked)] = asked.as_slice() else {
            panic!("{asked:?}")
        };
        assert!(
            asked.contains(r#""capabilities":{}"#) && asked.contains(r#""protocolVersion":"2025-06-18""#)
        );
        assert!(
            !asked.contains("theirs") && !asked.contains("sampling"),
            "{asked}"
        );
        assert_eq!(sharing.said_by(2, ASKS), []);
        let told = |session| {
            let result = r#"{"capabilities":{"resources":{},"tools":{}},"protocolVersion":"2025-06-18"}"#;
            Out::Session(session, reply::result("1", result))
        };
        let initialized = Out::Child(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned());
        assert_eq!(sharing.said_by_child(ANSWERS), [initialized, told(1), told(2)]);
        assert_eq!(sharing.said_by(3, ASKS), [told(3)]);
        assert_eq!(
            sharing.said_by(3, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            []
        );
    }

    #[test]
    fn an_answer_that_opens_nothing_is_told_and_the_next_session_asks_again() {
        let mut sharing = Sharing::default();
        sharing.said_by(1, ASKS);
        let failed = sharing.said_by_child(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-1,"message":"no"}}"#);
        let told = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#.to_owned();
        assert_eq!(failed, [Out::Session(1, told)]);
        assert!(matches!(sharing.said_by(2, ASKS).as_slice(), [Out::Child(_)]));
    }

    #[test]
    fn s20_sessions_with_equal_ids_and_tokens_get_what_is_theirs() {
        let mut sharing = opened();
        assert_eq!(
            sharing.said_by(1, &request("7", "\"t\"")),
            [Out::Child(request("1", "1"))]
        );
        assert_eq!(
            sharing.said_by(2, &request("7", "\"t\"")),
            [Out::Child(request("2", "2"))]
        );
        assert_eq!(
            sharing.said_by_child(&progress("2")),
            [Out::Session(2, progress("\"t\""))]
        );
        assert_eq!(sharing.said_by_child(&progress("\"t\"")), []);
        let answer = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        assert_eq!(sharing.said_by_child(&answer(2)), [Out::Session(2, answer(7))]);
        assert_eq!(sharing.said_by_child(&answer(2)), [], "it was answered");
        let cancelled = |id| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
        };
        assert_eq!(sharing.said_by(2, &cancelled(7)), [], "the other's call runs on");
        assert_eq!(sharing.said_by(1, &cancelled(7)), [Out::Child(cancelled(1))]);
        assert_eq!(sharing.left(1), [Out::Child(cancelled(1))]);
        assert_eq!(sharing.said_by_child(&answer(1)), []);
    }

    #[test]
    fn s20_what_the_process_says_to_nobody_reaches_nobody() {
        let mut sharing = opened();
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#,
            "no message",
        ] {
            assert_eq!(sharing.said_by_child(text), []);
        }
        let changed = reply::notification("notifications/tools/list_changed");
        assert_eq!(sharing.said_by_child(&changed), [Out::All(changed)]);
        let asks = r#"{"jsonrpc":"2.0","id":"s","method":"sampling/createMessage","params":{}}"#;
        let refused = sharing.said_by_child(asks);
        assert!(
            matches!(refused.as_slice(), [Out::Child(text)] if text.contains("-32601") && text.contains(r#""id":"s""#)),
            "{refused:?}"
        );
        let subscribes = r#"{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a:b"}}"#;
        let refused = sharing.said_by(1, subscribes);
        assert!(
            matches!(refused.as_slice(), [Out::Session(1, text)] if text.contains("-32601")),
            "{refused:?}"
        );
    }
}
