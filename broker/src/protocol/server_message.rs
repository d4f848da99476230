//! One JSON-RPC message of a server, read for its relay (data-plane.md 10): only the members that a relay looks at or
//! replaces are kept, as ranges. Unlike a client's message it is not refused for flaws that do not hide what it is.

use super::json::{JsonError, Kind, Reader};
use super::message::Routed;
use std::borrow::Cow;
use std::ops::Range;

/// A server's message.
#[derive(Debug, Default)]
pub struct ServerMessage<'a> {
    /// Token of `id`, a string or a number.
    pub id: Option<Range<usize>>,
    /// `method`; absent in answers.
    pub method: Option<Cow<'a, str>>,
    /// Start of the `params` object.
    pub params: Option<usize>,
    /// `params.message`, of an elicitation.
    pub message: Option<Routed<'a>>,
    /// `params.mode`, of an elicitation.
    pub mode: Option<Cow<'a, str>>,
    /// `params.tools` is there, in a sampling request.
    pub tools: bool,
    /// `params.logger`, of a log message.
    pub logger: Option<Routed<'a>>,
    /// `params.level`, of a log message.
    pub level: Option<Cow<'a, str>>,
    /// `params.uri`, of a resource's change.
    pub uri: Option<Routed<'a>>,
    /// Token of `params.requestId`, of a cancellation.
    pub request_id: Option<Range<usize>>,
    /// Token of `params._meta.progressToken`.
    pub progress_token: Option<Range<usize>>,
    /// Token of `params.progressToken`, of a progress notice.
    pub param_token: Option<Range<usize>>,
}

/// Reads a message; `None` when it is no JSON object.
pub fn read(text: &str) -> Option<ServerMessage<'_>> {
    let mut reader = Reader::new(text);
    if reader.kind() != Ok(Kind::Object) {
        return None;
    }
    let mut message = ServerMessage::default();
    reader
        .members(&mut |reader, name| message.member(reader, &name))
        .ok()?;
    reader.at_end().then_some(message)
}

impl<'a> ServerMessage<'a> {
    fn member(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        let kind = reader.kind()?;
        match (name, kind) {
            ("id", Kind::String | Kind::Number) => self.id = Some(reader.value()?),
            ("method", Kind::String) => self.method = Some(routed(reader)?.value),
            ("params", Kind::Object) => {
                self.params = Some(reader.position());
                reader.members(&mut |reader, name| self.param(reader, &name))?;
            }
            _ => {
                reader.value()?;
            }
        }
        Ok(())
    }

    fn param(&mut self, reader: &mut Reader<'a>, name: &str) -> Result<(), JsonError> {
        let kind = reader.kind()?;
        match (name, kind) {
            ("message", Kind::String) => self.message = Some(routed(reader)?),
            ("mode", Kind::String) => self.mode = Some(routed(reader)?.value),
            ("logger", Kind::String) => self.logger = Some(routed(reader)?),
            ("level", Kind::String) => self.level = Some(routed(reader)?.value),
            ("uri", Kind::String) => self.uri = Some(routed(reader)?),
            ("requestId", Kind::String | Kind::Number) => self.request_id = Some(reader.value()?),
            ("progressToken", Kind::String | Kind::Number) => self.param_token = Some(reader.value()?),
            ("tools", Kind::Array) => {
                self.tools = true;
                reader.value()?;
            }
            ("_meta", Kind::Object) => reader.members(&mut |reader, name| {
                let range = reader.value()?;
                if name == "progressToken" {
                    self.progress_token = Some(range);
                }
                Ok(())
            })?,
            _ => {
                reader.value()?;
            }
        }
        Ok(())
    }
}

fn routed<'a>(reader: &mut Reader<'a>) -> Result<Routed<'a>, JsonError> {
    let range = reader.value()?;
    let value = reader.unescaped(range.clone())?;
    Ok(Routed { range, value })
}

/// Replaces ranges of a text; they must not overlap, and come in any order.
pub fn replace(text: &str, mut edits: Vec<(Range<usize>, String)>) -> Option<String> {
    edits.sort_by_key(|(range, _)| range.start);
    let mut replaced = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, with) in edits {
        replaced.push_str(text.get(at..range.start)?);
        replaced.push_str(&with);
        at = range.end;
    }
    replaced.push_str(text.get(at..)?);
    Some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_that_a_relay_replaces_are_found_and_replaced() {
        let text = r#" {"params":{"message":"a\u0041","_meta":{"progressToken":7},"x":[{"id":2}]},"id": 01, "jsonrpc":"2.0"}"#;
        assert!(read(text).is_none(), "01 is no number");
        let text = text.replace("01", "1");
        let message = read(&text).unwrap();
        let shown = message.message.as_ref().unwrap();
        assert_eq!(shown.value, "aA");
        let edits = vec![
            (message.id.clone().unwrap(), "\"g1\"".to_owned()),
            (shown.range.clone(), "\"b\"".to_owned()),
            (message.progress_token.clone().unwrap(), "8".to_owned()),
        ];
        let expected = r#" {"params":{"message":"b","_meta":{"progressToken":8},"x":[{"id":2}]},"id": "g1", "jsonrpc":"2.0"}"#;
        assert_eq!(replace(&text, edits).unwrap(), expected);
        assert!(message.method.is_none());
    }
}
