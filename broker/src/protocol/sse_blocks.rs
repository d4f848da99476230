//! Event streams cut into blocks, one event each, without losing a byte: what is not rewritten passes as it came
//! (data-plane.md 8.10). A block that grows past its limit is handed on in pieces.

use super::sse::{Decoder, Event};

/// A piece of an event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// One event with the blank line that ends it, or what the end of the stream completes.
    Whole(Vec<u8>),
    /// Part of an event that is larger than the limit.
    Part(Vec<u8>),
}

/// Cuts a stream.
pub struct Blocks {
    held: Vec<u8>,
    limit: usize,
    line_is_empty: bool,
    skip_lf: bool,
    oversized: bool,
}

impl Blocks {
    /// Events of more than `limit` bytes come in parts.
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            limit,
            line_is_empty: true,
            skip_lf: false,
            oversized: false,
        }
    }

    /// Takes a chunk; with `end` also what is left.
    pub fn push(&mut self, chunk: &[u8], end: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for &byte in chunk {
            self.held.push(byte);
            if std::mem::take(&mut self.skip_lf) && byte == b'\n' {
                continue;
            }
            if byte != b'\n' && byte != b'\r' {
                self.line_is_empty = false;
                continue;
            }
            self.skip_lf = byte == b'\r';
            if std::mem::replace(&mut self.line_is_empty, true) {
                self.cut(&mut pieces);
                self.oversized = false;
            }
        }
        if self.held.len() > self.limit {
            self.oversized = true;
        }
        if end || self.oversized {
            self.cut(&mut pieces);
        }
        pieces
    }

    fn cut(&mut self, pieces: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        match (held.is_empty(), self.oversized || held.len() > self.limit) {
            (true, _) => {}
            (false, true) => pieces.push(Piece::Part(held)),
            (false, false) => pieces.push(Piece::Whole(held)),
        }
    }
}

/// The event of a block; `None` when it has no data or is no UTF-8.
pub fn event(block: &[u8]) -> Option<Event> {
    let mut decoder = Decoder::default();
    let first = decoder.push(block).ok()?.pop();
    match first {
        Some(event) => Some(event),
        None => decoder.finish().ok()?,
    }
}

/// The block with other data and without a byte-order mark: its comments, `id:`, `retry:` and `event:` lines stay.
pub fn with_data(block: &[u8], data: &str) -> Vec<u8> {
    let mut rewritten = Vec::with_capacity(data.len() + 64);
    let mark = b"\xef\xbb\xbf";
    let block = block.strip_prefix(mark).unwrap_or(block);
    let lines = block.split(|byte| matches!(byte, b'\n' | b'\r'));
    // A mark in the middle makes a line that clients ignore; it must not come to stand at the start.
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with(mark)) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name != b"data" {
            rewritten.extend_from_slice(line);
            rewritten.push(b'\n');
        }
    }
    for line in data.split('\n') {
        rewritten.extend_from_slice(b"data: ");
        rewritten.extend_from_slice(line.as_bytes());
        rewritten.push(b'\n');
    }
    rewritten.push(b'\n');
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b": hello\r\nid: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nevent: message\ndata:x\n\ndata: y\r\rretry: 5\n\ndata: last";

    fn pieces(chunks: &[&[u8]], limit: usize) -> Vec<Piece> {
        let mut blocks = Blocks::new(limit);
        let mut found: Vec<Piece> = chunks
            .iter()
            .flat_map(|chunk| blocks.push(chunk, false))
            .collect();
        found.extend(blocks.push(b"", true));
        found
    }

    fn bytes(pieces: &[Piece]) -> Vec<u8> {
        let of = |piece: &Piece| match piece {
            Piece::Whole(bytes) | Piece::Part(bytes) => bytes.clone(),
        };
        pieces.iter().flat_map(of).collect()
    }

    fn data(pieces: &[Piece]) -> Vec<String> {
        let of = |piece: &Piece| match piece {
            Piece::Whole(bytes) => event(bytes).map(|event| event.data),
            Piece::Part(_) => None,
        };
        pieces.iter().filter_map(of).collect()
    }

    #[test]
    fn d76_a_byte_order_mark_never_comes_to_mean_something_by_rewriting() {
        let moved = with_data("data: a\n\u{feff}id: x\n\n".as_bytes(), "b");
        assert_eq!(moved, b"data: b\n\n");
        let first = with_data("\u{feff}data: a\nid: x\n\n".as_bytes(), "b");
        assert_eq!(first, b"id: x\ndata: b\n\n");
    }

    #[test]
    fn d76_every_form_of_line_end_and_a_last_event_without_one_are_read() {
        let found = pieces(&[STREAM], 1000);
        assert_eq!(data(&found), ["{\"a\":\n1}", "x", "y", "last"]);
        assert_eq!(bytes(&found), STREAM);
    }

    #[test]
    fn an_event_past_the_limit_comes_in_parts_and_the_next_one_whole() {
        let found = pieces(&[b"data: 12345", b"6789\n", b"\ndata: a\n\n"], 9);
        assert!(matches!(found[0], Piece::Part(_)), "{found:?}");
        assert_eq!(data(&found), ["a"]);
        assert_eq!(bytes(&found), b"data: 123456789\n\ndata: a\n\n");
    }

    #[test]
    fn d30_rewritten_events_keep_their_other_lines_and_end_with_a_blank_line() {
        let block = b": c\r\nid: 7\r\nevent: message\r\nretry: 3\r\ndata: {\r\ndata: }\r\n\r\n";
        assert_eq!(
            with_data(block, "{\n}x"),
            b": c\nid: 7\nevent: message\nretry: 3\ndata: {\ndata: }x\n\n"
        );
    }

    proptest! {
        #[test]
        fn d76_cuts_lose_no_byte_and_no_event(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let (mut start, mut chunks) = (0, Vec::new());
            for cut in cuts {
                chunks.push(&STREAM[start..cut]);
                start = cut;
            }
            let found = pieces(&chunks, 1000);
            prop_assert_eq!(bytes(&found), STREAM);
            prop_assert_eq!(data(&found), data(&pieces(&[STREAM], 1000)));
        }
    }
}
