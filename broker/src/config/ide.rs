//! The JSON in which IDEs keep their MCP servers (data-plane.md 13): servers by name instead of a list, and comments.

use super::document::DocumentError;
use serde_json::{Map, Value};

/// Reads a list member.
type List = fn(&mut Map<String, Value>, &'static str) -> Result<Vec<Value>, DocumentError>;

/// The server entries of a document: the list `servers`, or, where `named` ones are read, those under `mcpServers` or `servers`.
///
/// # Errors
/// [`DocumentError::Shape`].
pub(super) fn listed(
    top: &mut Map<String, Value>,
    named: bool,
    list: List,
) -> Result<Vec<Value>, DocumentError> {
    if !named {
        return list(top, "servers");
    }
    let named = match (top.remove("mcpServers"), top.get("servers")) {
        (Some(Value::Object(named)), _) => named,
        (None | Some(Value::Null), Some(Value::Object(named))) => {
            let named = named.clone();
            top.remove("servers");
            named
        }
        (None | Some(Value::Null), _) => return list(top, "servers"),
        (Some(_), _) => return Err(DocumentError::Shape("mcpServers")),
    };
    let mut entries = list(top, "servers")?;
    entries.extend(named.into_iter().map(|(name, entry)| match entry {
        Value::Object(mut entry) => {
            entry.insert("name".to_owned(), Value::String(name));
            Value::Object(entry)
        }
        other => other,
    }));
    Ok(entries)
}

/// JSON without `//` and `/* */` comments and without commas before a closing bracket; blanks stand in their place, so
/// that positions stay. Text that is not JSON is left alone.
pub(super) fn without_comments(text: &str) -> String {
    if !text.trim_start().starts_with(['{', '/']) {
        return text.to_owned();
    }
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let (mut at, mut comma) = (0, None);
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = match byte {
            b'"' => string_length(rest),
            b'/' if rest.starts_with(b"//") => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => {
                memchr::memmem::find(rest, b"*/").map_or(rest.len(), |end| end + 2)
            }
            _ => 1,
        };
        let token = rest.get(..length).unwrap_or_default();
        match byte {
            b'/' if length > 1 => {
                out.extend(token.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            }
            _ => {
                if matches!(byte, b'}' | b']')
                    && let Some(before) = comma.and_then(|at: usize| out.get_mut(at))
                {
                    *before = b' ';
                }
                if byte == b',' {
                    comma = Some(out.len());
                } else if !byte.is_ascii_whitespace() {
                    comma = None;
                }
                out.extend_from_slice(token);
            }
        }
        at += length;
    }
    // A comment may end within a character only where the text ends.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// Length of the string that stands at the beginning, with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_last_commas_become_blanks_and_strings_stay() {
        let text = "{ // a\n \"a\": \"x // y, }\", /* b\n */ \"c\": [1, 2,\n ],\n}";
        let out = without_comments(text);
        assert_eq!(out.len(), text.len());
        assert_eq!(
            serde_json::from_str::<Value>(&out).unwrap(),
            serde_json::json!({"a": "x // y, }", "c": [1, 2]})
        );
        assert_eq!(without_comments("url: http://a//b"), "url: http://a//b");
        for cut in 0..text.len() {
            let part = text.get(..cut).unwrap();
            assert_eq!(without_comments(part).len(), cut);
        }
    }
}
