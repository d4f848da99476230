//! `params._meta` of a client's request: the members that the stateless revision reads (mcp.md 1.3, 1.5). Everything else
//! in it belongs to others and stays where it is.

use super::json::{JsonError, Kind, Reader, quoted};
use super::member::{Flaw, Seen, flaw};
use std::borrow::Cow;
use std::ops::Range;

/// Revision of the request.
pub const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// What the client can do.
pub const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Who the client is.
pub const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// Log messages wanted, from this level on.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Who answers, in results.
pub const SERVER: &str = "io.modelcontextprotocol/serverInfo";
/// Id of the listen request, in everything that it brings.
pub const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const PROGRESS_TOKEN: &str = "progressToken";

/// What `_meta` says. Ranges are those of tokens in the body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta<'a> {
    /// Where `_meta` stands, when it is an object.
    pub range: Option<Range<usize>>,
    /// [`VERSION`], when it is a string.
    pub version: Option<Cow<'a, str>>,
    /// [`CAPABILITIES`] as received, when it is an object.
    pub capabilities: Option<&'a str>,
    /// [`LOG_LEVEL`], when it is a string.
    pub log_level: Option<Cow<'a, str>>,
    /// `progressToken`, when it is a string or a number.
    pub progress_token: Option<Range<usize>>,
}

impl<'a> Meta<'a> {
    /// Reads the object; a flaw is that a member that is read here occurs twice, or in another spelling.
    pub(super) fn read(&mut self, reader: &mut Reader<'a>) -> Result<Option<Flaw>, JsonError> {
        let start = reader.position();
        let (mut seen, mut found) = (Seen::default(), None);
        reader.members(&mut |reader, name| {
            let kind = reader.kind()?;
            let range = reader.value()?;
            let read = [VERSION, CAPABILITIES, LOG_LEVEL, PROGRESS_TOKEN];
            found = found.take().or(flaw("params._meta.", &read, &mut seen, &name));
            match (name.as_ref(), kind) {
                (VERSION, Kind::String) => self.version = Some(reader.unescaped(range)?),
                (CAPABILITIES, Kind::Object) => self.capabilities = Some(reader.slice(range)),
                (LOG_LEVEL, Kind::String) => self.log_level = Some(reader.unescaped(range)?),
                (PROGRESS_TOKEN, Kind::String | Kind::Number) => self.progress_token = Some(range),
                _ => {}
            }
            Ok(())
        })?;
        self.range = Some(start..reader.position());
        Ok(found)
    }
}

/// The gateway as `clientInfo`, JSON text.
pub fn client_info() -> String {
    format!(r#"{{"name":"mcp-gateway","version":{}}}"#, quoted(crate::VERSION))
}

/// A request of the gateway itself to a server without sessions, of this revision: it offers nothing. `params` is JSON text of an object.
pub fn request(version: &str, (id, method): (&str, &str), params: &str) -> String {
    let client = client_info();
    let meta = format!(r#""_meta":{{"{VERSION}":"{version}","{CAPABILITIES}":{{}},"{CLIENT}":{client}}}"#);
    let rest = params.trim_start().strip_prefix('{').unwrap_or("}").trim_start();
    let comma = if rest.starts_with('}') { "" } else { "," };
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{{{meta}{comma}{rest}}}"#,
        quoted(method)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{MessageError, read};

    #[test]
    fn a_request_of_the_gateway_says_what_every_request_must_say() {
        for params in ["{}", r#" { "cursor":"x"}"#] {
            let text = request("2026-07-28", ("7", "tools/list"), params);
            let message = read(text.as_bytes()).unwrap();
            assert_eq!(message.meta.version.as_deref(), Some("2026-07-28"));
            assert_eq!(message.meta.capabilities, Some("{}"));
            assert_eq!(message.params.unwrap().contains("cursor"), params != "{}");
        }
    }

    #[test]
    fn s11_what_decides_in_meta_occurs_once() {
        let of =
            |meta: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{meta}}}}}"#);
        let text = of(r#"{"progressToken":7,"a":1,"a":2,"io.modelcontextprotocol/clientCapabilities":{}}"#);
        let message = read(text.as_bytes()).unwrap();
        assert_eq!(message.meta.capabilities, Some("{}"));
        assert_eq!(text.get(message.meta.progress_token.unwrap()), Some("7"));
        let twice = of(
            r#"{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol/ProtocolVersion":"b"}"#,
        );
        let Err(MessageError::Invalid { flaw: Some(flaw), .. }) = read(twice.as_bytes()) else {
            panic!("{twice}")
        };
        assert_eq!(
            flaw.member,
            "params._meta.io.modelcontextprotocol/protocolVersion"
        );
    }
}
