//! Who waits for what at a child that several sessions share: messages in, messages for the child and the sessions out. Without
//! effects; `shared` carries them out.

use crate::protocol::meta::client_info;
use crate::protocol::reply::{self, INTERNAL, METHOD_NOT_FOUND, error};
use crate::protocol::server_message::{self, ServerMessage, replace};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// A child that owes an answer is asked for a sign of life when it was silent for so long.
const SILENT: Duration = Duration::from_secs(30);
/// Calls that wait for the child at once (data-plane.md 15.1), and sessions for its opening.
const MAX_CALLS: usize = 1024;
/// What one session could set for all: nobody may.
const NOT_SHARED: [&str; 3] = ["logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
/// Id of our own `initialize`; those of calls begin above it.
const OPEN: u64 = 0;

/// A session's number.
pub(super) type Session = u64;

/// Where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
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
    /// The child need not answer any more.
    cancelled: bool,
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
pub(super) struct Sharing {
    last: u64,
    calls: HashMap<u64, Call>,
    opened: Opened,
    /// Our own ping that the child has not answered.
    ping: Option<u64>,
}

impl Sharing {
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.opened, Opened::Asked(_))
    }

    /// Whether the child has something to answer.
    pub(super) fn is_owed(&self) -> bool {
        self.is_opening() || self.calls.values().any(|call| !call.cancelled)
    }

    /// Asks a child that owes an answer, and was silent for this long, whether it lives.
    pub(super) fn probe(&mut self, silent: Duration) -> Vec<Out> {
        if silent < SILENT || self.is_opening() || self.ping.is_some() {
            return Vec::new();
        }
        self.last += 1;
        self.ping = Some(self.last);
        let ping = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"ping"}}"#, self.last);
        vec![Out::Child(ping)]
    }

    pub(super) fn said_by(&mut self, session: Session, text: &str) -> Vec<Out> {
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
            Opened::Asked(waiting) if waiting.len() >= MAX_CALLS => busy(session, &id),
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
        if self.calls.len() >= MAX_CALLS {
            self.calls.retain(|_, call| !call.cancelled);
        }
        if self.calls.len() >= MAX_CALLS {
            return busy(session, &id);
        }
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
        let cancelled = false;
        self.calls.insert(
            number,
            Call {
                session,
                id,
                token,
                cancelled,
            },
        );
        vec![Out::Child(mapped)]
    }

    fn cancelled(&mut self, session: Session, text: &str, message: ServerMessage<'_>) -> Vec<Out> {
        let mapped = message.request_id.and_then(|range| {
            let id = text.get(range.clone())?;
            let own = |call: &Call| call.session == session && call.id == id;
            let (number, call) = self.calls.iter_mut().find(|(_, call)| own(call))?;
            call.cancelled = true;
            replace(text, vec![(range, number.to_string())])
        });
        mapped.map(Out::Child).into_iter().collect()
    }

    /// Nobody waits for what a session that is gone asked for.
    pub(super) fn left(&mut self, session: Session) -> Vec<Out> {
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

    pub(super) fn said_by_child(&mut self, text: &str) -> Vec<Out> {
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
        if self.ping == Some(number) {
            self.ping = None;
        }
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

fn busy(session: Session, id: &str) -> Vec<Out> {
    vec![Out::Session(session, error(Some(id), INTERNAL, "busy", None))]
}

#[cfg(test)]
pub(super) mod tests;
