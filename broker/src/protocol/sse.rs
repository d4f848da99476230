//! Server-sent events: writing events, and an incremental decoder for streams of MCP servers (data-plane.md 8.10:
//! CR, LF and CRLF, several data lines, comments, lines split over chunks, a last event without final newline).

/// Longest line that the decoder keeps, bytes (data-plane.md 15.1: a rewritten event).
pub const MAX_EVENT: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `id:`, when given.
    pub id: Option<String>,
    /// `data:` lines joined by LF.
    pub data: String,
}

/// The stream exceeds [`MAX_EVENT`] or is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event stream: line too long or not UTF-8")]
pub struct SseError;

/// An event of type `message` as bytes, with an optional id.
pub fn encode(id: Option<&str>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: message\n{id}data: {data}\n\n")
}

/// Turns chunks into events.
#[derive(Default)]
pub struct Decoder {
    line: Vec<u8>,
    skip_lf: bool,
    /// The first line is behind: only before it a byte-order mark means nothing.
    begun: bool,
    data: Option<String>,
    id: Option<String>,
}

impl Decoder {
    /// Takes a chunk and returns the events that it completes.
    ///
    /// # Errors
    /// [`SseError`]; the stream cannot be read further.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        for &byte in chunk {
            if std::mem::take(&mut self.skip_lf) && byte == b'\n' {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.skip_lf = byte == b'\r';
                self.end_of_line(&mut events)?;
            } else {
                if self.line.len() >= MAX_EVENT {
                    return Err(SseError);
                }
                self.line.push(byte);
            }
        }
        Ok(events)
    }

    /// The event that the end of the stream completes.
    ///
    /// # Errors
    /// [`SseError`] as in [`Decoder::push`].
    pub fn finish(mut self) -> Result<Option<Event>, SseError> {
        let mut events = Vec::new();
        if !self.line.is_empty() {
            self.end_of_line(&mut events)?;
        }
        self.dispatch(&mut events);
        Ok(events.pop())
    }

    fn end_of_line(&mut self, events: &mut Vec<Event>) -> Result<(), SseError> {
        let begun = std::mem::replace(&mut self.begun, true);
        if self.line.is_empty() {
            self.dispatch(events);
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| SseError)?;
        let line = line.strip_prefix('\u{feff}').filter(|_| !begun).unwrap_or(line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) if data.len() + value.len() < MAX_EVENT => {
                    data.push('\n');
                    data.push_str(value);
                }
                Some(_) => return Err(SseError),
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let id = self.id.take();
        if let Some(data) = self.data.take() {
            events.push(Event { id, data });
        } else if id.is_some() {
            self.id = id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b": hello\r\nid: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nevent: message\ndata:x\n\ndata: y\r\rretry: 5\n\ndata: last";

    fn all(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::default();
        let mut events: Vec<Event> = chunks
            .iter()
            .flat_map(|chunk| decoder.push(chunk).unwrap())
            .collect();
        events.extend(decoder.finish().unwrap());
        events
    }

    #[test]
    fn d76_a_byte_order_mark_counts_at_the_start_of_a_stream_only() {
        let events = all(&["\u{feff}data: a\n\n\u{feff}data: b\n\ndata: c\n\n".as_bytes()]);
        let data: Vec<String> = events.into_iter().map(|event| event.data).collect();
        assert_eq!(data, ["a", "c"]);
    }

    #[test]
    fn d76_line_ends_data_lines_and_a_last_event_without_newline_are_read() {
        let data: Vec<String> = all(&[STREAM]).into_iter().map(|event| event.data).collect();
        assert_eq!(data, ["{\"a\":\n1}", "x", "y", "last"]);
        assert_eq!(all(&[STREAM])[0].id.as_deref(), Some("7"));
    }

    proptest! {
        #[test]
        fn d76_chunk_borders_do_not_matter(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let mut start = 0;
            let mut chunks = Vec::new();
            for cut in cuts {
                chunks.push(&STREAM[start..cut]);
                start = cut;
            }
            prop_assert_eq!(all(&chunks), all(&[STREAM]));
        }
    }

    #[test]
    fn d30_every_written_event_ends_with_a_blank_line() {
        assert_eq!(
            encode(Some("g1.x"), "{}"),
            "event: message\nid: g1.x\ndata: {}\n\n"
        );
    }
}
