//! What becomes of the messages that a server sends beside its answers (data-plane.md 10): its requests get ids that
//! lead the client's answer back, notices that the gateway answers for end here. Pure: one message in, one passage out.

use super::batch;
use super::repair::fingerprint;
use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use crate::protocol::json::quoted;
use crate::protocol::reply::{INVALID_REQUEST, METHOD_NOT_FOUND, error, result};
use crate::protocol::server_message::{ServerMessage, read, replace};
use crate::protocol::uri_prefix::UriPrefix;
use crate::sessions::store::BackendSession;
use crate::telemetry::relay_metrics::kind;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use uuid::Uuid;

/// Begins every id, token and event id that the gateway makes.
pub const OURS: &str = "g1.";
/// Log levels, the lowest first.
pub const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];
const PURPOSE: &str = "server-request";
/// Longest id or token of a server, bytes: sealed it must fit into an id that a client sends back.
const MAX_ID: usize = 512;

/// Where an answer of a client goes; it travels sealed, in place of the id or progress token of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Server name.
    #[serde(rename = "s")]
    pub server: String,
    /// Fingerprint of the backend session.
    #[serde(rename = "f")]
    pub backend: Option<String>,
    /// The id or token as the server wrote it.
    #[serde(rename = "i")]
    pub original: String,
    /// The client session that was asked.
    #[serde(rename = "j")]
    pub jti: Uuid,
    /// End of that session, Unix seconds.
    #[serde(rename = "e")]
    pub expires: u64,
}

impl Ticket {
    /// The ticket that the gateway sealed into this id or token; `None` for everything else.
    pub fn open(keys: &Keys, text: &str) -> Option<Self> {
        seal::open(keys, PURPOSE, text.strip_prefix(OURS)?)
    }
}

/// On which stream a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The stream of a call.
    Call,
    /// The stream for messages that belong to no call.
    Notices,
}

/// What of one backend session decides about its messages.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Server name.
    pub server: String,
    backend: Option<String>,
    jti: Uuid,
    expires: u64,
    /// Capability letters of the client; none when it cannot be asked.
    capabilities: String,
    place: Place,
    /// The client takes batches.
    batches: bool,
    /// Log level of the session.
    level: Option<String>,
    /// How the server's URIs are published, when not as they are.
    pub uris: Option<UriPrefix>,
    /// The server's own URIs that the session subscribed to; only asked for in [`Place::Notices`].
    pub subscribed: Arc<Vec<String>>,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Passes byte for byte.
    Same,
    /// Passes as this text.
    Changed(String),
    /// A question for the client, or its end, which passes as this text.
    Relayed(Relayed, String),
    /// Ends here.
    Drop,
    /// Ends here, and the server gets this answer.
    Reply(String),
    /// A question of this kind that ends here, because the client cannot be asked it; the server gets this error.
    Refused(&'static str, String),
}

/// A question of a server on its way to the client, as those who count know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relayed {
    /// It is asked.
    Asked {
        /// Kind of the question, as metrics name it.
        kind: &'static str,
        /// Which one.
        tag: u64,
    },
    /// It is taken back.
    TakenBack(u64),
}

/// What stands for the id of a question among those that wait.
pub fn tag(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Relay {
    /// The relay of a session's messages. `may_ask`: the client takes event streams, so that it can be asked.
    pub fn new(
        claims: &SessionClaims,
        (server, backend): (&ServerConfig, &BackendSession),
        place: Place,
        may_ask: bool,
    ) -> Self {
        Self {
            server: server.name.clone(),
            backend: fingerprint(backend),
            jti: claims.jti,
            expires: claims.exp,
            capabilities: if may_ask {
                claims.cap.clone()
            } else {
                String::new()
            },
            place,
            batches: claims.ver == batch::VERSION,
            level: None,
            uris: server.uris.clone(),
            subscribed: Arc::default(),
        }
    }

    /// Drops log messages below this level.
    #[must_use]
    pub fn with_level(mut self, level: Option<String>) -> Self {
        self.level = level;
        self
    }

    /// Decides about one message. What cannot be read ends here: nobody could say what the client reads in it.
    pub fn judge(&self, keys: &Keys, text: &str) -> Passage {
        let Some(message) = read(text) else {
            return self.batch(keys, text).map_or(Passage::Drop, Passage::Changed);
        };
        match (message.method.as_deref(), &message.id) {
            (None, _) if self.place == Place::Call => match self.published(text) {
                Cow::Borrowed(_) => Passage::Same,
                Cow::Owned(published) => Passage::Changed(published),
            },
            (None, _) => Passage::Drop,
            (Some(method), Some(id)) => self.request(keys, (text, &message), method, id),
            (Some(method), None) => self.notification(keys, (text, &message), method),
        }
    }

    /// What of a batch passes on the stream of a call; requests that end here are not answered.
    fn batch(&self, keys: &Keys, text: &str) -> Option<String> {
        if self.place != Place::Call || !self.batches {
            return None;
        }
        let messages = batch::elements(text.as_bytes())?;
        if messages.len() > batch::MAX_MESSAGES {
            return None;
        }
        let messages = messages.into_iter();
        let passing =
            messages.filter_map(
                |message| match read(message).map(|_| self.judge(keys, message))? {
                    Passage::Same => Some(message.to_owned()),
                    Passage::Changed(changed) | Passage::Relayed(_, changed) => Some(changed),
                    Passage::Drop | Passage::Reply(_) | Passage::Refused(..) => None,
                },
            );
        let passing: Vec<String> = passing.collect();
        (!passing.is_empty()).then(|| format!("[{}]", passing.join(",")))
    }

    fn request(
        &self,
        keys: &Keys,
        (text, message): (&str, &ServerMessage<'_>),
        method: &str,
        id: &Range<usize>,
    ) -> Passage {
        let raw = text.get(id.clone()).unwrap_or("null");
        if method == "ping" {
            return Passage::Reply(result(raw, "{}"));
        }
        if !self.declared(method, message) {
            let what = format!("Method not found: {method}");
            return Passage::Refused(kind(method), error(Some(raw), METHOD_NOT_FOUND, &what, None));
        }
        let Some(sealed) = self.sealed(keys, raw) else {
            let refusal = error(Some(raw), INVALID_REQUEST, "id too long", None);
            return Passage::Refused(kind(method), refusal);
        };
        let asked = Relayed::Asked {
            kind: kind(method),
            tag: tag(&sealed),
        };
        let mut edits = vec![(id.clone(), quoted(&sealed))];
        if let Some(token) = &message.progress_token
            && let Some(sealed) = text.get(token.clone()).and_then(|raw| self.sealed(keys, raw))
        {
            edits.push((token.clone(), quoted(&sealed)));
        }
        if method == "elicitation/create"
            && let Some(shown) = &message.message
        {
            let named = quoted(&format!("[{}] {}", self.server, shown.value));
            edits.push((shown.range.clone(), named));
        }
        replace(text, edits).map_or(Passage::Drop, |text| Passage::Relayed(asked, text))
    }

    /// Whether the client said at its `initialize` that it can be asked this.
    fn declared(&self, method: &str, message: &ServerMessage<'_>) -> bool {
        let has = |letter| self.capabilities.contains(letter);
        match method {
            "sampling/createMessage" => has('s') && (!message.tools || has('t')),
            "elicitation/create" if message.mode.as_deref() == Some("url") => has('u'),
            "elicitation/create" => has('e'),
            "roots/list" => has('r'),
            _ => false,
        }
    }

    fn notification(
        &self,
        keys: &Keys,
        (text, message): (&str, &ServerMessage<'_>),
        method: &str,
    ) -> Passage {
        match (method, self.place) {
            (
                "notifications/tools/list_changed"
                | "notifications/prompts/list_changed"
                | "notifications/resources/list_changed",
                _,
            ) => Passage::Drop,
            ("notifications/cancelled", _) => self.cancelled(keys, (text, message)),
            ("notifications/message", _) if self.is_quiet(message) => Passage::Drop,
            ("notifications/message", Place::Notices) => self.named_log(text, message),
            ("notifications/elicitation/complete", _) => Passage::Same,
            ("notifications/resources/updated", Place::Notices) if !self.is_subscribed(message) => {
                Passage::Drop
            }
            ("notifications/resources/updated", _) => self.updated(text, message),
            (_, Place::Call) => Passage::Same,
            (_, Place::Notices) => Passage::Drop,
        }
    }

    /// Whether the session asked to hear of the resource that a notice is about.
    fn is_subscribed(&self, message: &ServerMessage<'_>) -> bool {
        let uri = message.uri.as_ref();
        uri.is_some_and(|uri| self.subscribed.iter().any(|known| *known == uri.value))
    }

    /// The notice of a changed resource, under the URI that the client knows.
    fn updated(&self, text: &str, message: &ServerMessage<'_>) -> Passage {
        let (Some(uris), Some(uri)) = (&self.uris, &message.uri) else {
            return Passage::Same;
        };
        let published = quoted(&uris.published(&uri.value));
        replace(text, vec![(uri.range.clone(), published)]).map_or(Passage::Drop, Passage::Changed)
    }

    /// An answer of the server as far as its URIs are concerned.
    pub fn published<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let changed = self.uris.as_ref().and_then(|uris| uris.in_answer(text));
        changed.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// The server takes a request back: its id is the one that the client knows.
    fn cancelled(&self, keys: &Keys, (text, message): (&str, &ServerMessage<'_>)) -> Passage {
        let taken_back = || {
            let range = message.request_id.clone()?;
            let sealed = self.sealed(keys, text.get(range.clone())?)?;
            let text = replace(text, vec![(range, quoted(&sealed))])?;
            Some(Passage::Relayed(Relayed::TakenBack(tag(&sealed)), text))
        };
        taken_back().unwrap_or(Passage::Drop)
    }

    fn is_quiet(&self, message: &ServerMessage<'_>) -> bool {
        let rank = |level: Option<&str>| LEVELS.iter().position(|known| Some(*known) == level);
        match (rank(message.level.as_deref()), rank(self.level.as_deref())) {
            (Some(level), Some(wanted)) => level < wanted,
            _ => false,
        }
    }

    fn named_log(&self, text: &str, message: &ServerMessage<'_>) -> Passage {
        let edit = match (&message.logger, message.params) {
            (Some(logger), _) => (
                logger.range.clone(),
                quoted(&format!("{}/{}", self.server, logger.value)),
            ),
            (None, Some(start)) if message.level.is_some() => {
                let after = start + 1;
                (after..after, format!(r#""logger":{},"#, quoted(&self.server)))
            }
            _ => return Passage::Same,
        };
        replace(text, vec![edit]).map_or(Passage::Drop, Passage::Changed)
    }

    /// The id or token that the client sees in place of this one. The same one gives the same text.
    fn sealed(&self, keys: &Keys, raw: &str) -> Option<String> {
        let ticket = Ticket {
            server: self.server.clone(),
            backend: self.backend.clone(),
            original: raw.to_owned(),
            jti: self.jti,
            expires: self.expires,
        };
        (raw.len() <= MAX_ID).then(|| format!("{OURS}{}", seal::seal(keys, PURPOSE, &ticket)))
    }
}

#[cfg(test)]
mod tests;
