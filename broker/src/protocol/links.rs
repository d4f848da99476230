//! Links to resources in the results of servers (data-plane.md 5.5): a resource that no list shows may be read by whoever got a
//! link to it. Pure; an answer is parsed only when the word stands in it.

use super::sse_blocks::{Blocks, Piece, event};
use serde_json::Value;

/// The type of a block of content that is a link.
const SIGN: &[u8] = b"resource_link";
/// Longest URI that is noted, bytes.
const MAX_URI: usize = 2048;
/// A larger answer is not searched.
const MAX_READ: usize = 1024 * 1024;
/// Chunks after which an answer could be whole and is not, until it is searched no more: a server that sends it in the
/// smallest pieces would have it read as often.
const MAX_READINGS: usize = 64;

/// The URIs of the links in an answer.
pub fn links(text: &[u8]) -> Vec<String> {
    if text.len() > MAX_READ || memchr::memmem::find(text, SIGN).is_none() {
        return Vec::new();
    }
    let Ok(answer) = serde_json::from_slice::<Value>(text) else {
        return Vec::new();
    };
    let Some(result) = answer.get("result") else {
        return Vec::new();
    };
    let messages = result
        .get("messages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let of_prompts = messages.filter_map(|message| message.get("content"));
    let blocks = result.get("content").into_iter().chain(of_prompts).flat_map(each);
    blocks.filter_map(link).map(str::to_owned).collect()
}

/// The elements of an array, or the one value that stands in its place.
fn each(value: &Value) -> &[Value] {
    value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn link(block: &Value) -> Option<&str> {
    let is_link = block.get("type")?.as_str()? == "resource_link";
    let uri = block.get("uri")?.as_str()?;
    (is_link && uri.len() <= MAX_URI).then_some(uri)
}

/// Looks for links in a reply that passes as it comes.
pub enum Watch {
    /// One JSON answer, as much of it as there is, and how often it looked whole.
    Json(Vec<u8>, usize),
    /// An event stream.
    Events(Blocks),
    /// Too large.
    Over,
}

impl Watch {
    /// Of one JSON answer.
    pub fn json() -> Self {
        Self::Json(Vec::new(), 0)
    }

    /// Of an event stream.
    pub fn events() -> Self {
        Self::Events(Blocks::new(MAX_READ))
    }

    /// The links that are whole with this chunk; they are to be noted before it goes on.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        match self {
            Self::Over => Vec::new(),
            Self::Events(blocks) => blocks.push(chunk, false).iter().flat_map(of_event).collect(),
            Self::Json(held, readings) => {
                held.extend_from_slice(chunk);
                // An answer ends with its object; one that does not parse goes on.
                let may_end = held.trim_ascii_end().ends_with(b"}");
                *readings += usize::from(may_end);
                if held.len() > MAX_READ || *readings > MAX_READINGS {
                    *self = Self::Over;
                    return Vec::new();
                }
                if may_end { links(held) } else { Vec::new() }
            }
        }
    }
}

fn of_event(piece: &Piece) -> Vec<String> {
    match piece {
        Piece::Whole(block) if memchr::memmem::find(block, SIGN).is_some() => {
            event(block).map_or_else(Vec::new, |event| links(event.data.as_bytes()))
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[
        {"type":"text","text":"resource_link","uri":"a:0"},
        {"uri":"a:1","type":"resource_link","name":"x"},
        {"type":"resource_link","uri":7},{"type":"resource","resource":{"uri":"a:2"}},
        {"type":"resource_link","uri":"a:3"}]}}"#;

    #[test]
    fn links_are_found_in_results_and_messages_and_nowhere_else() {
        assert_eq!(links(ANSWER.as_bytes()), ["a:1", "a:3"]);
        let prompt =
            r#"{"result":{"messages":[{"role":"user","content":{"type":"resource_link","uri":"b:1"}}]}}"#;
        assert_eq!(links(prompt.as_bytes()), ["b:1"]);
        for none in [
            r#"{"result":{"content":[{"type":"text","text":"x"}]}}"#,
            r#"{"result":{"structuredContent":{"type":"resource_link","uri":"c:1"}}}"#,
            r#"{"method":"x","params":{"content":[{"type":"resource_link","uri":"c:1"}]}}"#,
            r#"{"result":{"content":[{"type":"resource_link","uri":"c:1"}]}"#,
        ] {
            assert_eq!(links(none.as_bytes()), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn s23_a_link_has_two_kib_and_an_answer_that_is_searched_one_mib() {
        let answer = |uri: usize, more: usize| {
            let (uri, more) = ("x".repeat(uri), " ".repeat(more));
            format!(r#"{{"result":{{"content":[{{"type":"resource_link","uri":"{uri}"}}]}}{more}}}"#)
        };
        let found = |text: String| links(text.as_bytes()).len();
        assert_eq!((found(answer(MAX_URI, 0)), found(answer(MAX_URI + 1, 0))), (1, 0));
        let whole = answer(1, 0).len();
        assert_eq!(
            (
                found(answer(1, MAX_READ - whole)),
                found(answer(1, MAX_READ - whole + 1))
            ),
            (1, 0)
        );
    }

    #[test]
    fn s23_an_answer_in_many_pieces_that_look_like_its_end_is_searched_no_more() {
        let searched = |pieces: usize| {
            let mut watch = Watch::json();
            let text = format!(r#"{{"x":["{}"#, "}".repeat(pieces));
            for byte in text.as_bytes() {
                assert!(watch.push(std::slice::from_ref(byte)).is_empty());
            }
            let link = br#""],"result":{"content":[{"type":"resource_link","uri":"a:1"}]}}"#;
            watch.push(link).len()
        };
        assert_eq!((searched(MAX_READINGS - 1), searched(MAX_READINGS)), (1, 0));
    }

    #[test]
    fn a_link_is_found_with_the_chunk_that_makes_it_whole() {
        for cut in 1..ANSWER.len() {
            let (first, last) = ANSWER.as_bytes().split_at(cut);
            let mut watch = Watch::json();
            assert!(watch.push(first).is_empty());
            assert_eq!(watch.push(last), ["a:1", "a:3"]);
        }
        let line = ANSWER.replace('\n', "");
        let stream = format!("data: {{}}\n\nevent: message\ndata: {line}\n\n");
        let mut watch = Watch::events();
        let (first, last) = stream.as_bytes().split_at(stream.len() - 1);
        assert!(watch.push(first).is_empty());
        assert_eq!(watch.push(last), ["a:1", "a:3"]);
        assert!(watch.push(b": keep-alive\n\n").is_empty());
    }
}
