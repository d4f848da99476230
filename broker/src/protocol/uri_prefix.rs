//! URIs of a server's resources with the prefix of the server in them (data-plane.md 5.5, `resourceURIs: prefixed`): how one is
//! published, how the server's own is found again, and where definitions and messages of the server carry one. Pure; every other
//! byte stays as it came.

use super::json::{JsonError, Kind, Reader, quoted};
use super::server_message::replace;
use std::borrow::Cow;
use std::ops::Range;

/// Hosts know by this scheme what they can show, so it stays in front.
const UI: &str = "ui://";
const SCHEME: &str = "mcpgw:";

/// The prefix of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriPrefix(String);

impl UriPrefix {
    /// Over the prefix of a server, which is not empty.
    pub fn new(prefix: &str) -> Self {
        Self(prefix.to_owned())
    }

    /// The published form of a URI or URI template of the server.
    pub fn published(&self, original: &str) -> String {
        let Self(prefix) = self;
        match original.strip_prefix(UI) {
            Some(rest) => format!("{UI}{prefix}{rest}"),
            None => format!("{SCHEME}{prefix}:{original}"),
        }
    }

    /// The server's own form of a published URI; `None` for one that [`Self::published`] does not make, so that no URI has two
    /// published forms.
    pub fn original<'u>(&self, published: &'u str) -> Option<Cow<'u, str>> {
        let Self(prefix) = self;
        if let Some(rest) = published.strip_prefix(UI) {
            return Some(format!("{UI}{}", rest.strip_prefix(prefix.as_str())?).into());
        }
        let rest = published.strip_prefix(SCHEME)?.strip_prefix(prefix.as_str())?;
        let original = rest.strip_prefix(':')?;
        (!original.starts_with(UI)).then_some(original.into())
    }

    /// An answer of the server with its URIs published; `None` when it has none, or cannot be read.
    pub fn in_answer(&self, text: &str) -> Option<String> {
        let mut finder = Finder::of(self);
        let mut reader = Reader::new(text);
        finder.object(&mut reader, Finder::answer).ok()?;
        let found = reader.at_end() && !finder.edits.is_empty();
        found.then(|| replace(text, finder.edits))?
    }

    /// What is replaced in the definition of a tool or another item beside the member that identifies it: the URI of its user
    /// interface.
    pub fn in_definition(&self, text: &str) -> Vec<(Range<usize>, String)> {
        let mut finder = Finder::of(self);
        let read = finder.object(&mut Reader::new(text), Finder::with_interface);
        read.map(|()| finder.edits).unwrap_or_default()
    }
}

type Read = Result<(), JsonError>;

/// Collects the replacements.
struct Finder<'p> {
    prefix: &'p UriPrefix,
    edits: Vec<(Range<usize>, String)>,
}

impl<'p> Finder<'p> {
    fn of(prefix: &'p UriPrefix) -> Self {
        Self {
            prefix,
            edits: Vec::new(),
        }
    }

    /// Reads the members of an object; steps over anything else.
    fn object<'t>(
        &mut self,
        reader: &mut Reader<'t>,
        member: fn(&mut Self, &mut Reader<'t>, &str) -> Read,
    ) -> Read {
        match reader.kind()? {
            Kind::Object => reader.members(&mut |reader, name| member(self, reader, &name)),
            _ => reader.value().map(drop),
        }
    }

    /// Reads each element of an array, or the one value that stands in its place.
    fn each<'t>(&mut self, reader: &mut Reader<'t>, element: fn(&mut Self, &mut Reader<'t>) -> Read) -> Read {
        match reader.kind()? {
            Kind::Array => reader.elements(&mut |reader| element(self, reader)),
            _ => element(self, reader),
        }
    }

    fn answer(&mut self, reader: &mut Reader<'_>, name: &str) -> Read {
        match name {
            "result" => self.object(reader, Self::result),
            "error" => self.object(reader, |finder, reader, name| match name {
                // Of a resource that was not found.
                "data" => finder.object(reader, Self::with_uri),
                _ => reader.value().map(drop),
            }),
            _ => reader.value().map(drop),
        }
    }

    /// The result of a call, a prompt or a resource.
    fn result(&mut self, reader: &mut Reader<'_>, name: &str) -> Read {
        match name {
            "content" => self.each(reader, Self::block),
            "contents" => self.each(reader, |finder, reader| finder.object(reader, Self::with_uri)),
            "messages" => self.each(reader, |finder, reader| {
                finder.object(reader, |finder, reader, name| match name {
                    "content" => finder.each(reader, Self::block),
                    _ => reader.value().map(drop),
                })
            }),
            _ => self.with_interface(reader, name),
        }
    }

    /// One block of content: a link to a resource, or a resource itself.
    fn block(&mut self, reader: &mut Reader<'_>) -> Read {
        if reader.kind()? != Kind::Object {
            return reader.value().map(drop);
        }
        let (mut is_link, mut uri) = (false, None);
        reader.members(&mut |reader, name| {
            match (name.as_ref(), reader.kind()?) {
                ("type", Kind::String) => {
                    let kind = reader.value()?;
                    is_link = reader.unescaped(kind)? == "resource_link";
                }
                ("uri", Kind::String) => {
                    let range = reader.value()?;
                    uri = Some((range.clone(), reader.unescaped(range)?));
                }
                ("resource", _) => self.object(reader, Self::with_uri)?,
                (name, _) => self.with_interface(reader, name)?,
            }
            Ok(())
        })?;
        if let Some((range, uri)) = uri.filter(|_| is_link) {
            self.publish(range, &uri);
        }
        Ok(())
    }

    /// A member of an object that has a `uri`.
    fn with_uri(&mut self, reader: &mut Reader<'_>, name: &str) -> Read {
        match name {
            "uri" => self.uri(reader),
            _ => self.with_interface(reader, name),
        }
    }

    /// A member of an object whose `_meta` may name a user interface; hosts read both spellings.
    fn with_interface(&mut self, reader: &mut Reader<'_>, name: &str) -> Read {
        if name != "_meta" {
            return reader.value().map(drop);
        }
        self.object(reader, |finder, reader, name| match name {
            "ui" => finder.object(reader, |finder, reader, name| match name {
                "resourceUri" => finder.uri(reader),
                _ => reader.value().map(drop),
            }),
            "ui/resourceUri" => finder.uri(reader),
            _ => reader.value().map(drop),
        })
    }

    fn uri(&mut self, reader: &mut Reader<'_>) -> Read {
        let is_text = reader.kind()? == Kind::String;
        let range = reader.value()?;
        if is_text {
            let uri = reader.unescaped(range.clone())?;
            self.publish(range, &uri);
        }
        Ok(())
    }

    fn publish(&mut self, range: Range<usize>, uri: &str) {
        self.edits.push((range, quoted(&self.prefix.published(uri))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> UriPrefix {
        UriPrefix::new("a_")
    }

    #[test]
    fn a_uri_has_one_published_form_that_leads_back() {
        for (original, published) in [
            ("file:///x", "mcpgw:a_:file:///x"),
            ("", "mcpgw:a_:"),
            ("ui://x/y", "ui://a_x/y"),
            ("mcpgw:a_:b", "mcpgw:a_:mcpgw:a_:b"),
        ] {
            assert_eq!(prefix().published(original), published);
            assert_eq!(prefix().original(published).as_deref(), Some(original));
        }
        for foreign in [
            "file:///x",
            "mcpgw:b_:file:///x",
            "mcpgw:a_b:x",
            "mcpgw:a_",
            "ui://x",
            "mcpgw:a_:ui://x",
            "MCPGW:a_:x",
        ] {
            assert_eq!(prefix().original(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn links_and_resources_in_answers_are_published_and_nothing_else() {
        let text = r#"{ "id":1e2,"result":{"content":[
            {"uri":"d:\u0031","type":"resource_link","name":"d:1"},
            {"type":"resource","resource":{"uri":"d:2","text":"d:2"}},
            {"type":"text","text":"d:3","uri":"d:3"}],
            "structuredContent":{"uri":"d:4"},
            "_meta":{"ui":{"resourceUri":"ui://v"},"uri":"d:5"}}}"#;
        let expected = text
            .replace(r#""d:\u0031""#, r#""mcpgw:a_:d:1""#)
            .replace(r#"{"uri":"d:2""#, r#"{"uri":"mcpgw:a_:d:2""#)
            .replace("ui://v", "ui://a_v");
        assert_eq!(prefix().in_answer(text).unwrap(), expected);
    }

    #[test]
    fn prompts_reads_and_misses_carry_uris_too() {
        for (text, expected) in [
            (
                r#"{"result":{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"d:1"}}}]}}"#,
                r#"{"result":{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"mcpgw:a_:d:1"}}}]}}"#,
            ),
            (
                r#"{"result":{"contents":[{"uri":"ui://x","_meta":{"ui":{"csp":{}}}},{"uri":"d:1"}]}}"#,
                r#"{"result":{"contents":[{"uri":"ui://a_x","_meta":{"ui":{"csp":{}}}},{"uri":"mcpgw:a_:d:1"}]}}"#,
            ),
            (
                r#"{"error":{"code":-32002,"message":"no","data":{"uri":"d:1"}}}"#,
                r#"{"error":{"code":-32002,"message":"no","data":{"uri":"mcpgw:a_:d:1"}}}"#,
            ),
        ] {
            assert_eq!(prefix().in_answer(text).as_deref(), Some(expected));
        }
        for untouched in [
            r#"{"result":{"content":[{"type":"text","text":"x"}]}}"#,
            r#"{"result":{"contents":"x","messages":7,"content":[7,{"type":"resource","resource":null}]}}"#,
            r#"{"method":"notifications/x","params":{"uri":"d:1"}}"#,
            r#"{"result":{"contents":[{"uri":"d:1"}]}"#,
            "[]",
        ] {
            assert_eq!(prefix().in_answer(untouched), None, "{untouched}");
        }
    }

    #[test]
    fn the_interface_of_a_tool_is_published_in_its_definition() {
        let tool = r#"{"name":"t","_meta":{"ui":{"resourceUri":"ui://v"},"ui/resourceUri":"ui://v"},"inputSchema":{"_meta":{"ui/resourceUri":"ui://w"}}}"#;
        let edits = prefix().in_definition(tool);
        assert_eq!(replace(tool, edits).unwrap(), tool.replace("ui://v", "ui://a_v"));
        assert_eq!(prefix().in_definition("{"), []);
    }

    proptest! {
        #[test]
        fn what_is_published_leads_back(original in "(ui://|mcpgw:)?.{0,20}") {
            let prefix = prefix();
            let published = prefix.published(&original);
            let back = prefix.original(&published);
            prop_assert_eq!(back.as_deref(), Some(original.as_str()));
        }

        #[test]
        fn no_two_uris_are_published_alike(one in "(ui://|mcpgw:a_:)?[a_:]{0,4}", other in "(ui://|mcpgw:a_:)?[a_:]{0,4}") {
            prop_assume!(one != other);
            prop_assert_ne!(prefix().published(&one), prefix().published(&other));
        }
    }
}
