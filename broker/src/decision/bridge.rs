//! One call between a client and a server of which at least one speaks the stateless revision (data-plane.md 10.6): what is
//! changed in the request, and what becomes of the answer and the notices before it. Pure; both data paths use it.

use super::relay::Passage;
use super::round::Round;
use crate::auth::keys::Keys;
use crate::protocol::json::quoted;
use crate::protocol::message::Message;
use crate::protocol::meta;
use crate::protocol::object::Object;
use crate::protocol::reply::{
    HEADER_MISMATCH, INTERNAL, INVALID_PARAMS, MISSING_CAPABILITY, RESOURCE_NOT_FOUND, UNSUPPORTED_VERSION,
    error, result,
};
use crate::protocol::server_message;
use crate::protocol::version::{self, Era};
use std::ops::Range;

/// Name of the gateway towards clients.
pub const GATEWAY_NAME: &str = "Kuadrant MCP Gateway";
/// JSON-RPC of 2025-11-25: the person has to visit a URL first.
const URL_ELICITATION: i64 = -32042;
/// Largest `requestState` of a server, bytes.
const MAX_STATE: usize = 32 * 1024;

/// The gateway as `serverInfo`, JSON text.
pub fn server_info() -> String {
    format!(
        r#"{{"name":{},"version":{}}}"#,
        quoted(GATEWAY_NAME),
        quoted(crate::VERSION)
    )
}

/// `result` (JSON text of an object) as a complete one of the stateless revision. `cache`: `ttlMs`, and whether it is for
/// this caller alone.
pub fn complete(text: &str, cache: Option<(u64, bool)>) -> String {
    completed(text, cache, false)
}

fn completed(text: &str, cache: Option<(u64, bool)>, own_info: bool) -> String {
    let mut object = Object::read(text).unwrap_or_default();
    if let Some((ttl, private)) = cache {
        let scope = if private { "private" } else { "public" };
        object.set_first("cacheScope", quoted(scope));
        object.set_first("ttlMs", ttl.to_string());
    }
    named(&mut object, "complete", own_info);
    object.text()
}

/// The result that asks the client for input before the call goes on; `requests` is JSON text of an object.
pub fn input_required(requests: &str) -> String {
    let mut object = Object::default();
    object.set("inputRequests", requests.to_owned());
    named(&mut object, "input_required", false);
    object.text()
}

/// Puts in front what every result has; `own_info` keeps the server that is named already.
fn named(object: &mut Object<'_>, kind: &str, own_info: bool) {
    let text = object.get("_meta").unwrap_or("{}").to_owned();
    let mut members = Object::read(&text).unwrap_or_default();
    if !own_info || members.get(meta::SERVER).is_none() {
        members.set(meta::SERVER, server_info());
    }
    object.set_first("_meta", members.text());
    object.set_first("resultType", quoted(kind));
}

/// What a server asks for before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Key and request (JSON text with `method` and `params`).
    pub questions: Vec<(String, String)>,
    /// What comes back with the answers.
    pub state: Option<String>,
}

/// What is kept of a call until its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// How the client speaks.
    pub client: Era,
    /// How the server speaks.
    pub server: Era,
    /// Method of the call.
    pub method: String,
    /// Raw id of the client.
    pub id: String,
    /// Raw progress token of the client, when it gave one.
    pub progress: Option<String>,
    /// What was sent in place of id and progress token; the same JSON string for both.
    pub mapped: Option<String>,
    /// The client asked for log messages.
    pub logs: bool,
    /// What the caller may see depends on who it is.
    pub private: bool,
    /// Where the client's `requestState` stands in the body, and the server's own in its place.
    pub state: Option<(Range<usize>, String)>,
    /// What a `requestState` on the way to the client is bound to.
    pub round: Option<Round>,
    /// Results keep the server's own `serverInfo` (`exposeServerInfo`).
    pub own_info: bool,
}

impl Bridge {
    /// The changes of the request beside the name of what is called.
    pub fn edits(
        &self,
        message: &Message<'_>,
        level: Option<&String>,
        capabilities: &str,
    ) -> Vec<(Range<usize>, String)> {
        match (self.client, self.server) {
            (Era::Legacy, Era::Modern) => dressed(message, level, capabilities).into_iter().collect(),
            (Era::Modern, Era::Legacy) => self.undressed(message),
            _ => {
                let state = self.state.as_ref();
                state
                    .map(|(range, text)| (range.clone(), quoted(text)))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// A request for a session that others of the same caller use too: without the protocol's own members, with an id and
    /// a progress token that are new.
    fn undressed(&self, message: &Message<'_>) -> Vec<(Range<usize>, String)> {
        let Some(mapped) = &self.mapped else {
            return Vec::new();
        };
        let mut edits = Vec::new();
        edits.extend(message.id_range.clone().map(|range| (range, mapped.clone())));
        let Some(range) = &message.meta.range else {
            return edits;
        };
        let text = message.text.get(range.clone()).unwrap_or("{}");
        let mut members = Object::read(text).unwrap_or_default();
        for name in [meta::VERSION, meta::CAPABILITIES, meta::CLIENT, meta::LOG_LEVEL] {
            members.remove(name);
        }
        if message.meta.progress_token.is_some() {
            members.set("progressToken", mapped.clone());
        }
        edits.push((range.clone(), members.text()));
        edits
    }

    /// What becomes of an answer of the server; `text` is a JSON-RPC message without a method.
    pub fn answer(&self, keys: &Keys, text: &str) -> String {
        let failed = |what: &str| error(Some(&self.id), INTERNAL, what, None);
        let Some(message) = Object::read(text) else {
            return failed("MCP server unavailable");
        };
        if let Some(raw) = message.get("error") {
            return self.error(raw);
        }
        let Some(object) = message.get("result").and_then(Object::read) else {
            return failed("MCP server unavailable");
        };
        match self.client {
            Era::Modern => self.to_modern(keys, object),
            Era::Legacy => self.to_legacy(object),
        }
    }

    fn to_modern(&self, keys: &Keys, mut object: Object<'_>) -> String {
        let failed = |what: &str| error(Some(&self.id), INTERNAL, what, None);
        let kind = match (self.server, object.string("resultType")) {
            (Era::Legacy, _) | (_, None) => "complete".to_owned(),
            (Era::Modern, Some(kind)) => kind,
        };
        match kind.as_str() {
            "complete" if self.method == "resources/read" => {
                let ttl = object.get("ttlMs").and_then(|text| text.parse().ok());
                let public = object.string("cacheScope").as_deref() == Some("public");
                let from_server = ttl.filter(|_| self.server == Era::Modern);
                let ttl: u64 = from_server.unwrap_or(0);
                let private = !public || self.private || ttl == 0;
                let whole = completed(&object.text(), Some((ttl, private)), self.own_info);
                return result(&self.id, &whole);
            }
            "complete" => {}
            "input_required" if is_round_trip(&self.method) => {
                if let Some(state) = object.string("requestState") {
                    let sealed = self.round.as_ref().filter(|_| state.len() <= MAX_STATE);
                    let Some(round) = sealed else {
                        return failed("requestState of the MCP server is too large");
                    };
                    object.set("requestState", quoted(&round.seal(keys, state)));
                }
            }
            _ => return failed("MCP server gave a result of an unknown type"),
        }
        named(&mut object, &kind, self.own_info);
        result(&self.id, &object.text())
    }

    fn to_legacy(&self, mut object: Object<'_>) -> String {
        match object.string("resultType").as_deref() {
            None | Some("complete") => {}
            Some("input_required") if is_round_trip(&self.method) => {
                return self.not_answerable(&asked(object.get("inputRequests").unwrap_or("{}")));
            }
            Some(_) => {
                let what = "MCP server gave a result of an unknown type";
                return error(Some(&self.id), INTERNAL, what, None);
            }
        }
        for name in ["resultType", "ttlMs", "cacheScope"] {
            object.remove(name);
        }
        let own = object.get("_meta").unwrap_or("{}").to_owned();
        let mut members = Object::read(&own).unwrap_or_default();
        if !self.own_info {
            members.remove(meta::SERVER);
        }
        object.remove("_meta");
        if !members.is_empty() {
            object.set("_meta", members.text());
        }
        result(&self.id, &object.text())
    }

    /// True when the server may ask for input by its answer, and the client is asked by requests.
    pub fn asks_by_rounds(&self) -> bool {
        self.client == Era::Legacy && self.server == Era::Modern && is_round_trip(&self.method)
    }

    /// What the server asks for in this answer to a call of a client with a session, when it does.
    pub fn input(&self, text: &str) -> Option<Input> {
        let message = Object::read(text).filter(|_| self.asks_by_rounds())?;
        let object = message.get("result").and_then(Object::read)?;
        if object.string("resultType").as_deref() != Some("input_required") {
            return None;
        }
        let requests = object.get("inputRequests").unwrap_or("{}");
        let members = Object::read(requests)?;
        let questions = members.names().zip(members.values());
        Some(Input {
            questions: questions
                .map(|(key, request)| (key.to_owned(), request.to_owned()))
                .collect(),
            state: object.string("requestState"),
        })
    }

    /// The answer to a client that cannot be asked what the server needs; `needed` names it.
    pub fn not_answerable(&self, needed: &str) -> String {
        let text =
            format!("The MCP server needs {needed} from the client, which it cannot be asked for here");
        if self.method != "tools/call" {
            return error(Some(&self.id), INTERNAL, &text, None);
        }
        let text = quoted(&text);
        result(
            &self.id,
            &format!(r#"{{"content":[{{"type":"text","text":{text}}}],"isError":true}}"#),
        )
    }

    fn error(&self, raw: &str) -> String {
        let mut object = Object::read(raw).unwrap_or_default();
        let code = object.get("code").and_then(|text| text.parse::<i64>().ok());
        let code = code.unwrap_or(i64::from(INTERNAL));
        let is = |known: i32| code == i64::from(known);
        let translated = match self.client {
            Era::Modern if is(RESOURCE_NOT_FOUND) => INVALID_PARAMS,
            Era::Modern
                if self.server == Era::Legacy
                    && (code == URL_ELICITATION || (-32099..=-32020).contains(&code)) =>
            {
                INTERNAL
            }
            Era::Legacy if is(MISSING_CAPABILITY) => {
                let needed = object.get("data").and_then(Object::read);
                let needed = needed.as_ref().and_then(|data| data.get("requiredCapabilities"));
                return self.not_answerable(&names(needed.unwrap_or("{}")));
            }
            Era::Legacy if is(HEADER_MISMATCH) || is(UNSUPPORTED_VERSION) => INTERNAL,
            _ => return self.with_error(raw),
        };
        object.set_first("code", translated.to_string());
        self.with_error(&object.text())
    }

    fn with_error(&self, raw: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{},"error":{raw}}}"#, self.id)
    }

    /// What becomes of a notice on the stream of the call; [`Passage::Same`] leaves it to the relay.
    pub fn notice(&self, text: &str) -> Passage {
        let Some(message) = server_message::read(text) else {
            return Passage::Drop;
        };
        match message.method.as_deref() {
            Some("notifications/message") if !self.logs => Passage::Drop,
            Some("notifications/elicitation/complete" | "notifications/cancelled")
                if self.client == Era::Modern =>
            {
                Passage::Drop
            }
            Some("notifications/progress") => self.progress(text, message.param_token.as_ref()),
            // A server of this revision asks by its result, never by a request.
            Some(_) if message.id.is_some() && self.server == Era::Modern => Passage::Drop,
            _ => Passage::Same,
        }
    }

    fn progress(&self, text: &str, token: Option<&Range<usize>>) -> Passage {
        let (Some(client), Some(token)) = (&self.progress, token) else {
            return Passage::Drop;
        };
        let Some(mapped) = &self.mapped else {
            return Passage::Same;
        };
        if text.get(token.clone()) != Some(mapped.as_str()) {
            return Passage::Drop;
        }
        let changed = server_message::replace(text, vec![(token.clone(), client.clone())]);
        changed.map_or(Passage::Drop, Passage::Changed)
    }
}

/// Methods whose answer may ask for more.
pub fn is_round_trip(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// Which kinds of input are asked for, for people.
fn asked(requests: &str) -> String {
    let object = Object::read(requests).unwrap_or_default();
    let values = object.values().filter_map(Object::read);
    let mut kinds: Vec<String> = values.filter_map(|request| request.string("method")).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() {
        "more input".to_owned()
    } else {
        kinds.join(", ")
    }
}

fn names(capabilities: &str) -> String {
    let object = Object::read(capabilities).unwrap_or_default();
    let names: Vec<&str> = object.names().collect();
    if names.is_empty() {
        "a capability".to_owned()
    } else {
        names.join(", ")
    }
}

/// Adds to a request of a session what every request of the stateless revision says.
fn dressed(
    message: &Message<'_>,
    level: Option<&String>,
    capabilities: &str,
) -> Option<(Range<usize>, String)> {
    let params = message.params_range.clone()?;
    let (range, text) = match &message.meta.range {
        Some(range) => (range.clone(), message.text.get(range.clone())?),
        None => (params.start + 1..params.start + 1, "{}"),
    };
    let mut members = Object::read(text)?;
    members.set(meta::VERSION, quoted(version::MODERN));
    members.set(meta::CAPABILITIES, capabilities.to_owned());
    members.set(meta::CLIENT, meta::client_info());
    if let Some(level) = level {
        members.set(meta::LOG_LEVEL, quoted(level));
    }
    let text = members.text();
    if message.meta.range.is_some() {
        return Some((range, text));
    }
    let rest = message
        .params
        .map(|params| params.trim_start_matches('{').trim_start())?;
    let comma = if rest.starts_with('}') { "" } else { "," };
    Some((range, format!(r#""_meta":{text}{comma}"#)))
}

#[cfg(test)]
mod tests;
