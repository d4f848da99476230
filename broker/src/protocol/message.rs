//! One JSON-RPC message of a client, classified in a single pass over its bytes (data-plane.md 4.2). Only the members
//! that decide where a message goes are kept, as ranges; everything else is validated and left where it is.

use super::json::{JsonError, Kind, Reader};
use super::member::{Seen, is_disguised, is_flawed};
use super::meta::Meta;
use std::borrow::Cow;
use std::ops::Range;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, not UTF-8, a byte-order mark, or nested too deep: -32700.
    #[error("parse error")]
    Parse,
    /// JSON, but no JSON-RPC message, or an ambiguous one: -32600. The id is given when it could be read.
    #[error("invalid request")]
    Invalid(Option<String>),
    /// An array: batches belong to 2025-03-26 only.
    #[error("batch")]
    Batch,
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
    match reader.kind() {
        Ok(Kind::Object) => {}
        Ok(Kind::Array) => {
            let valid = reader.value().is_ok() && reader.at_end();
            return Err(if valid {
                MessageError::Batch
            } else {
                MessageError::Parse
            });
        }
        Ok(_) => {
            let valid = reader.value().is_ok() && reader.at_end();
            return Err(if valid {
                MessageError::Invalid(None)
            } else {
                MessageError::Parse
            });
        }
        Err(_) => return Err(MessageError::Parse),
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
    flawed: bool,
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
    flawed: bool,
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
    fn member(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        if self.seen.len() >= TOP_LEVEL_LIMIT || self.seen.add(name) || is_disguised(&TOP_LEVEL, name) {
            self.flawed = true;
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
                    self.flawed = true;
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
        let mut flawed = false;
        let inner = &mut self.inner;
        reader.members(&mut |reader, name| {
            if is_flawed(&PARAMS_ROUTED, &mut inner.seen, &name) {
                flawed = true;
                return reader.value().map(drop);
            }
            inner.member(reader, &name)
        })?;
        self.flawed |= flawed;
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
        let invalid = || MessageError::Invalid(id_text.map(str::to_owned));
        let params_ok = self
            .params
            .as_ref()
            .is_none_or(|(_, _, kind)| matches!(kind, Kind::Object));
        if self.flawed
            || self.inner.flawed
            || !self.version_ok
            || !params_ok
            || (self.id.is_some() && id_text.is_none())
        {
            return Err(invalid());
        }
        let kind = match (&self.method, self.result, id_text) {
            (Some(_), false, Some(_)) => MessageKind::Request,
            (Some(_), false, None) => MessageKind::Notification,
            (None, true, Some(_)) => MessageKind::Response,
            _ => return Err(invalid()),
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
                self.flawed |= self.meta.read(reader)?;
                Ok(())
            }
            _ => reader.value().map(drop),
        }
    }
}

impl<'a> Params<'a> {
    fn reference(&mut self, reader: &mut Reader<'a>) -> Result<(), JsonError> {
        let (mut reference, mut seen) = (Reference::default(), Seen::default());
        let flawed = &mut self.flawed;
        reader.members(&mut |reader, name| {
            *flawed |= is_flawed(&["type", "name", "uri"], &mut seen, &name);
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
