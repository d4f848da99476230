//! One JSON-RPC message of a client, classified in a single pass over its bytes (data-plane.md 4.2). Only the members
//! that decide where a message goes are kept, as ranges; everything else is validated and left where it is.

use super::json::{JsonError, Kind, Reader};
use super::member::{Flaw, Seen, disguised, flaw};
use super::meta::Meta;
use super::reply::{INVALID_REQUEST, PARSE_ERROR, Refusal};
use std::borrow::Cow;
use std::ops::Range;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, not UTF-8, a byte-order mark, or nested too deep: -32700.
    #[error("parse error")]
    Parse,
    /// JSON, but no JSON-RPC message, or an ambiguous one: -32600.
    #[error("invalid request")]
    Invalid {
        /// Raw id, when it could be read.
        id: Option<String>,
        /// The member that makes it so, when it is one.
        flaw: Option<Flaw>,
    },
    /// An array: batches belong to 2025-03-26 only.
    #[error("batch")]
    Batch,
}

impl MessageError {
    /// Raw id of the refused message, when it could be read.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Invalid { id, .. } => id.as_deref(),
            Self::Parse | Self::Batch => None,
        }
    }

    /// The answer to the client.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Parse => Refusal::new(400, PARSE_ERROR, "parse error", "parse"),
            Self::Invalid { flaw, .. } => {
                let refusal = Refusal::new(400, INVALID_REQUEST, "invalid request", "invalid");
                match flaw {
                    Some(flaw) => refusal.with_data(flaw.data()),
                    None => refusal,
                }
            }
            Self::Batch => Refusal::new(400, INVALID_REQUEST, "batch requests are not supported", "batch"),
        }
    }
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
}

/// A string member that decides where the message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'a> {
    /// Its token in the body, with the quotes.
    pub range: Range<usize>,
    /// Its meaning.
    pub value: Cow<'a, str>,
}

/// What a completion is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reference<'a> {
    /// `type`.
    pub kind: Option<Cow<'a, str>>,
    /// `name`, of a prompt.
    pub name: Option<Routed<'a>>,
    /// `uri`, of a resource template.
    pub uri: Option<Routed<'a>>,
}

/// A classified message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Kind.
    pub kind: MessageKind,
    /// The id's bytes as received; absent for notifications.
    pub id: Option<&'a str>,
    /// Where they stand in the body.
    pub id_range: Option<Range<usize>>,
    /// `method`; empty for responses.
    pub method: Cow<'a, str>,
    /// `params` as received.
    pub params: Option<&'a str>,
    /// `params.name`.
    pub name: Option<Routed<'a>>,
    /// `params.uri`.
    pub uri: Option<Routed<'a>>,
    /// `params.ref`.
    pub reference: Option<Reference<'a>>,
    /// `params.progressToken` when it is a string.
    pub progress_token: Option<Routed<'a>>,
    /// `params.arguments` as received.
    pub arguments: Option<&'a str>,
    /// `params.requestState` when it is a string.
    pub request_state: Option<Routed<'a>>,
    /// What `params._meta` says of the protocol.
    pub meta: Meta<'a>,
    /// The whole body.
    pub text: &'a str,
    /// Where `params` stands in the body, when it is an object.
    pub params_range: Option<Range<usize>>,
}

impl Message<'_> {
    /// One replacement in the body that makes all of `edits`; they must not overlap. `None` without any.
    pub fn joined(&self, mut edits: Vec<(Range<usize>, String)>) -> Option<(Range<usize>, String)> {
        edits.sort_by_key(|(range, _)| range.start);
        let (start, end) = (edits.first()?.0.start, edits.last()?.0.end);
        let (mut text, mut at) = (String::new(), start);
        for (range, with) in edits {
            text.push_str(self.text.get(at..range.start)?);
            text.push_str(&with);
            at = range.end;
        }
        Some((start..end, text))
    }
}

/// Reads one message.
///
/// # Errors
/// [`MessageError`], which is also the answer to the client.
pub fn read(body: &[u8]) -> Result<Message<'_>, MessageError> {
    let text = std::str::from_utf8(body).map_err(|_| MessageError::Parse)?;
    let mut reader = Reader::new(text);
    let other = match reader.kind() {
        Ok(Kind::Object) => None,
        Ok(Kind::Array) => Some(MessageError::Batch),
        Ok(_) => Some(MessageError::Invalid { id: None, flaw: None }),
        Err(_) => Some(MessageError::Parse),
    };
    if let Some(other) = other {
        let is_json = reader.value().is_ok() && reader.at_end();
        return Err(if is_json { other } else { MessageError::Parse });
    }
    let mut draft = Draft::default();
    let read = reader.members(&mut |reader, name| draft.member(reader, &name));
    if read.is_err() || !reader.at_end() {
        return Err(MessageError::Parse);
    }
    draft.finish(text)
}

#[derive(Default)]
struct Draft<'a> {
    seen: Seen,
    flaw: Option<Flaw>,
    version_ok: bool,
    id: Option<(Range<usize>, &'a str, Kind)>,
    method: Option<Cow<'a, str>>,
    result: bool,
    params: Option<(Range<usize>, &'a str, Kind)>,
    inner: Params<'a>,
}

#[derive(Default)]
struct Params<'a> {
    seen: Seen,
    name: Option<Routed<'a>>,
    uri: Option<Routed<'a>>,
    reference: Option<Reference<'a>>,
    progress_token: Option<Routed<'a>>,
    flaw: Option<Flaw>,
    arguments: Option<&'a str>,
    request_state: Option<Routed<'a>>,
    meta: Meta<'a>,
}

const TOP_LEVEL: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS_ROUTED: [&str; 7] = [
    "name",
    "uri",
    "ref",
    "progressToken",
    "_meta",
    "arguments",
    "requestState",
];
/// Longest id of a client's request, bytes: it travels in sealed strings.
const MAX_ID: usize = 1024;
/// Longest id of an answer, bytes: it is a sealed string.
const MAX_ANSWER_ID: usize = 4096;
const TOP_LEVEL_LIMIT: usize = 64;

impl<'a> Draft<'a> {
    /// What is wrong with a member of this name here; of the message itself every member may occur once.
    fn flaw_of(&mut self, name: &str) -> Option<Flaw> {
        if self.seen.len() >= TOP_LEVEL_LIMIT {
            return Some(Flaw::new("", name, "is one member too many"));
        }
        let twice = |seen: &mut Seen| seen.add(name).then(|| Flaw::twice("", name));
        disguised("", &TOP_LEVEL, name).or_else(|| twice(&mut self.seen))
    }

    fn member(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        if let Some(flaw) = self.flaw_of(name) {
            self.flaw.get_or_insert(flaw);
            return reader.value().map(drop);
        }
        let kind = reader.kind()?;
        match name {
            "jsonrpc" => {
                let range = reader.value()?;
                self.version_ok = kind == Kind::String && reader.unescaped(range)? == "2.0";
            }
            "id" => {
                let range = reader.value()?;
                self.id = Some((range.clone(), reader.slice(range), kind));
            }
            "method" => {
                let range = reader.value()?;
                if kind == Kind::String {
                    self.method = Some(reader.unescaped(range)?);
                } else {
                    self.flaw.get_or_insert(Flaw::new("", name, "must be a string"));
                }
            }
            "params" => self.params(reader, kind)?,
            "result" | "error" => {
                self.result = true;
                reader.value()?;
            }
            _ => {
                reader.value()?;
            }
        }
        Ok(())
    }

    fn params(&mut self, reader: &mut Reader<'a>, kind: Kind) -> Result<(), JsonError> {
        if kind != Kind::Object {
            let range = reader.value()?;
            self.params = Some((range.clone(), reader.slice(range), kind));
            return Ok(());
        }
        let start = reader.position();
        let inner = &mut self.inner;
        reader.members(&mut |reader, name| {
            if let Some(flaw) = flaw("params.", &PARAMS_ROUTED, &mut inner.seen, &name) {
                inner.flaw.get_or_insert(flaw);
                return reader.value().map(drop);
            }
            inner.member(reader, &name)
        })?;
        let range = start..reader.position();
        self.params = Some((range.clone(), reader.slice(range), kind));
        Ok(())
    }

    fn finish(self, text: &'a str) -> Result<Message<'a>, MessageError> {
        let longest = if self.result { MAX_ANSWER_ID } else { MAX_ID };
        let id = self.id.clone().filter(|(_, text, kind)| match kind {
            _ if text.len() > longest => false,
            Kind::String => true,
            Kind::Number => !text.contains(['.', 'e', 'E']),
            _ => false,
        });
        let id_text = id.as_ref().map(|(_, text, _)| *text);
        let invalid = |flaw: Flaw| MessageError::Invalid {
            id: id_text.map(str::to_owned),
            flaw: Some(flaw),
        };
        let is_object = |(_, _, kind): &(_, _, Kind)| *kind == Kind::Object;
        let rules = [
            (self.version_ok, "jsonrpc", "must be \"2.0\""),
            (
                self.params.as_ref().is_none_or(is_object),
                "params",
                "must be an object",
            ),
            (
                self.id.is_none() || id_text.is_some(),
                "id",
                "must be an integer or a string, and not long",
            ),
        ];
        let broken = rules.iter().find(|(holds, ..)| !holds);
        let broken = broken.map(|(_, name, problem)| Flaw::new("", name, problem));
        if let Some(flaw) = self.flaw.or(self.inner.flaw).or(broken) {
            return Err(invalid(flaw));
        }
        let kind = match (&self.method, self.result, id_text) {
            (Some(_), false, Some(_)) => MessageKind::Request,
            (Some(_), false, None) => MessageKind::Notification,
            (None, true, Some(_)) => MessageKind::Response,
            (Some(_), true, _) => return Err(invalid(Flaw::new("", "method", "stands beside an answer"))),
            (None, true, None) => return Err(invalid(Flaw::new("", "id", "is missing"))),
            (None, false, _) => return Err(invalid(Flaw::new("", "method", "is missing"))),
        };
        Ok(Message {
            kind,
            id: id_text,
            id_range: id.map(|(range, ..)| range),
            method: self.method.unwrap_or_default(),
            params: self.params.as_ref().map(|(_, text, _)| *text),
            params_range: self.params.map(|(range, ..)| range),
            name: self.inner.name,
            uri: self.inner.uri,
            reference: self.inner.reference,
            progress_token: self.inner.progress_token,
            arguments: self.inner.arguments,
            request_state: self.inner.request_state,
            meta: self.inner.meta,
            text,
        })
    }
}

impl<'a> Params<'a> {
    fn member(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        let kind = reader.kind()?;
        match name {
            "name" | "uri" | "progressToken" | "requestState" if kind == Kind::String => {
                let range = reader.value()?;
                let value = reader.unescaped(range.clone())?;
                let slot = match name {
                    "name" => &mut self.name,
                    "uri" => &mut self.uri,
                    "requestState" => &mut self.request_state,
                    _ => &mut self.progress_token,
                };
                *slot = Some(Routed { range, value });
                Ok(())
            }
            "ref" if kind == Kind::Object => self.reference(reader),
            "arguments" => {
                let range = reader.value()?;
                self.arguments = Some(reader.slice(range));
                Ok(())
            }
            "_meta" if kind == Kind::Object => {
                let flaw = self.meta.read(reader)?;
                self.flaw = self.flaw.take().or(flaw);
                Ok(())
            }
            _ => reader.value().map(drop),
        }
    }

    fn reference(&mut self, reader: &mut Reader<'a>) -> Result<(), JsonError> {
        let (mut reference, mut seen) = (Reference::default(), Seen::default());
        let found = &mut self.flaw;
        reader.members(&mut |reader, name| {
            let flaw = flaw("params.ref.", &["type", "name", "uri"], &mut seen, &name);
            *found = found.take().or(flaw);
            let kind = reader.kind()?;
            let range = reader.value()?;
            if kind != Kind::String {
                return Ok(());
            }
            let value = reader.unescaped(range.clone())?;
            match name.as_ref() {
                "type" => reference.kind = Some(value),
                "name" => reference.name = Some(Routed { range, value }),
                "uri" => reference.uri = Some(Routed { range, value }),
                _ => {}
            }
            Ok(())
        })?;
        self.reference = Some(reference);
        Ok(())
    }
}

/// Replaces one range of the body; everything else stays byte for byte.
pub fn splice(body: &[u8], range: &Range<usize>, replacement: &str) -> Option<Vec<u8>> {
    let (before, after) = (body.get(..range.start)?, body.get(range.end..)?);
    let mut spliced = Vec::with_capacity(before.len() + replacement.len() + after.len());
    spliced.extend_from_slice(before);
    spliced.extend_from_slice(replacement.as_bytes());
    spliced.extend_from_slice(after);
    Some(spliced)
}

#[cfg(test)]
mod tests;
