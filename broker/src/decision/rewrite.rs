//! What is done to the reply of a server on its way to the client (data-plane.md 8.10): the messages of its event stream
//! pass the relay, or become the one JSON answer of a client that takes nothing else. No I/O: chunks in, chunks out.

use super::bridge::Bridge;
use super::relay::{Passage, Relay, Relayed};
use crate::auth::keys::Keys;
use crate::protocol::links::Watch;
use crate::protocol::reply::{INTERNAL, error};
use crate::protocol::server_message;
use crate::protocol::sse::MAX_EVENT;
use crate::protocol::sse_blocks::{Blocks, Piece, event, with_data};
use crate::protocol::version::Era;
use crate::protocol::{completion, header};
use std::borrow::Cow;

/// A larger event passes unread (data-plane.md 15.1).
const MAX_READ: usize = 1024 * 1024;
/// Every message but an answer has this member, or one of the same name with escapes.
const METHOD: &[u8] = b"\"method\"";
const ESCAPE: &[u8] = b"\\u";

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The event stream.
    Events,
    /// One JSON answer (D37).
    Json,
}

/// The plan for one reply.
#[derive(Clone, Debug)]
pub struct ReplyPlan {
    /// What becomes of the server's messages.
    pub relay: Relay,
    /// What the client gets.
    pub form: Form,
    /// Raw id of the request; a stream that is taken up again has none.
    pub id: Option<String>,
    /// What is changed on the way, when one of the two has no sessions.
    pub bridge: Option<Bridge>,
    /// The answer is that to a completion, which has its bound.
    pub completion: bool,
}

/// How the headers of a reply change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// It is a JSON answer.
    pub json: bool,
    /// Its status is 200.
    pub ok: bool,
}

impl ReplyPlan {
    /// The word for the plan in metrics: the strongest thing that it does.
    pub fn word(&self) -> &'static str {
        match self {
            Self { bridge: Some(_), .. } => "bridge",
            Self { form: Form::Json, .. } => "json",
            Self { relay, .. } if relay.uris.is_some() => "uris",
            Self { completion: true, .. } => "completion",
            _ => "relay",
        }
    }

    /// True when answers are changed, not only what comes before them.
    fn changes_answers(&self) -> bool {
        self.bridge.is_some() || self.relay.uris.is_some() || self.completion
    }

    /// An answer of the server as the client gets it.
    pub fn answer<'t>(&self, keys: &Keys, text: &'t str) -> Cow<'t, str> {
        let text = self.server_answer(text);
        match &self.bridge {
            Some(bridge) => bridge.answer(keys, &text).into(),
            None => text,
        }
    }

    /// An answer with the URIs that the client knows, and within its bound.
    fn server_answer<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let capped = self.completion.then(|| completion::capped(text)).flatten();
        capped.map_or_else(|| self.relay.published(text), Cow::Owned)
    }

    /// A reply that is one JSON answer; `body` is cut short when it is too large.
    fn whole(&self, keys: &Keys, body: Vec<u8>) -> Vec<u8> {
        if body.len() > MAX_EVENT {
            return line(&self.too_large());
        }
        match (&self.bridge, std::str::from_utf8(&body)) {
            (None, Err(_)) => body,
            (None, Ok(text)) => match self.server_answer(text) {
                Cow::Borrowed(_) => body,
                Cow::Owned(text) => text.into_bytes(),
            },
            (Some(_), _) => line(&self.answer(keys, String::from_utf8_lossy(&body).trim())),
        }
    }

    /// The answer in place of one that cannot be read.
    fn too_large(&self) -> String {
        let what = "answer of the MCP server is too large";
        error(self.id.as_deref(), INTERNAL, what, None)
    }

    /// What carries the plan out on a reply with this status, content type and encoding, and how its headers change;
    /// `None` when the reply passes as it is. A compressed one cannot be read.
    pub fn begin(
        self,
        (status, kind, coding): (u16, Option<&str>, Option<&str>),
    ) -> Option<(Rewriter, Changed)> {
        let is = |check: &dyn Fn(&str) -> bool| kind.is_some_and(check);
        let events = (200..300).contains(&status) && is(&header::is_sse);
        // An answer is changed also when it is an error with a status of its own.
        let answer = self.changes_answers() && is(&header::is_json);
        if coding.is_some_and(|coding| coding != "identity") || !(events || answer) {
            return None;
        }
        let sessions = self
            .bridge
            .as_ref()
            .is_some_and(|bridge| bridge.client == Era::Legacy);
        let changed = Changed {
            json: answer || self.form == Form::Json,
            // Clients with sessions know no status of errors.
            ok: answer && sessions && matches!(status, 400 | 404),
        };
        let rewriter = if answer {
            Rewriter::of_json(self)
        } else {
            Rewriter::new(self)
        };
        Some((rewriter, changed))
    }
}

/// The bytes for the client, and the answers for the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// In place of the chunk.
    pub bytes: Vec<u8>,
    /// Bodies to be posted to the server.
    pub replies: Vec<String>,
    /// URIs of the links that the client gets with these bytes.
    pub links: Vec<String>,
    /// Questions that the client gets with these bytes, or that are taken back.
    pub relayed: Vec<Relayed>,
    /// Kinds of the questions that the client cannot be asked.
    pub refused: Vec<&'static str>,
}

impl Rewritten {
    /// A message that goes no further; its server may get an answer.
    fn ended(&mut self, passage: Passage) {
        match passage {
            Passage::Reply(body) => self.replies.push(body),
            Passage::Refused(kind, body) => {
                self.refused.push(kind);
                self.replies.push(body);
            }
            Passage::Same | Passage::Changed(_) | Passage::Relayed(..) | Passage::Drop => {}
        }
    }
}

/// Carries out a plan on the chunks of an event stream.
pub struct Rewriter {
    plan: ReplyPlan,
    blocks: Blocks,
    answered: bool,
    /// The reply is one JSON answer, gathered here.
    whole: Option<Vec<u8>>,
    /// What is told of links in the bytes for the client.
    links: Option<Watch>,
}

impl Rewriter {
    /// A rewriter at the beginning of a stream.
    pub fn new(plan: ReplyPlan) -> Self {
        let passes_unread = plan.form == Form::Events && !plan.changes_answers();
        let limit = if passes_unread { MAX_READ } else { MAX_EVENT };
        Self {
            plan,
            blocks: Blocks::new(limit),
            answered: false,
            whole: None,
            links: None,
        }
    }

    /// The word for its plan.
    pub fn word(&self) -> &'static str {
        self.plan.word()
    }

    /// Tells of links, too.
    #[must_use]
    pub fn noting_links(self) -> Self {
        let gathers = self.whole.is_some() || self.plan.form == Form::Json;
        let watch = if gathers { Watch::json() } else { Watch::events() };
        Self {
            links: Some(watch),
            ..self
        }
    }

    /// A rewriter at the beginning of a reply that is one JSON answer.
    pub fn of_json(plan: ReplyPlan) -> Self {
        Self {
            whole: Some(Vec::new()),
            ..Self::new(plan)
        }
    }

    /// Takes a chunk; `end` says that it is the last one.
    pub fn push(&mut self, keys: &Keys, chunk: &[u8], end: bool) -> Rewritten {
        let mut out = self.rewritten(keys, chunk, end);
        if let Some(watch) = &mut self.links {
            out.links = watch.push(&out.bytes);
        }
        out
    }

    fn rewritten(&mut self, keys: &Keys, chunk: &[u8], end: bool) -> Rewritten {
        let mut out = Rewritten::default();
        if let Some(whole) = &mut self.whole {
            if whole.len() <= MAX_EVENT {
                whole.extend_from_slice(chunk);
            }
            if end {
                out.bytes = self.plan.whole(keys, std::mem::take(whole));
            }
            return out;
        }
        for piece in self.blocks.push(chunk, end) {
            match self.plan.form {
                _ if self.answered => {}
                Form::Events => self.passed(keys, piece, &mut out),
                Form::Json => self.gathered(keys, piece, &mut out),
            }
        }
        if self.plan.form == Form::Json && end && !self.answered {
            let id = self.plan.id.as_deref();
            self.answer(&error(id, INTERNAL, "MCP server unavailable", None), &mut out);
        }
        out
    }

    /// The end of a reply that the server breaks off: instead of one JSON answer the client gets an error. `None` leaves the
    /// break to the client, who has seen what came of the stream.
    pub fn broken(&mut self) -> Option<Vec<u8>> {
        let is_gathered = self.whole.is_some() || self.plan.form == Form::Json;
        let mut out = Rewritten::default();
        if is_gathered && !self.answered {
            let id = self.plan.id.as_deref();
            self.answer(&error(id, INTERNAL, "MCP server unavailable", None), &mut out);
        }
        is_gathered.then_some(out.bytes)
    }

    /// One event of a stream.
    fn passed(&mut self, keys: &Keys, piece: Piece, out: &mut Rewritten) {
        let block = match piece {
            Piece::Part(_) if self.plan.changes_answers() => return self.cut(out),
            Piece::Part(bytes) => return out.bytes.extend_from_slice(&bytes),
            Piece::Whole(block) => block,
        };
        let is_read = self.plan.changes_answers() || may_be_no_answer(&block);
        let passage = if is_read {
            self.judged(keys, &block)
        } else {
            Passage::Same
        };
        match passage {
            Passage::Same => out.bytes.extend_from_slice(&block),
            Passage::Changed(data) => out.bytes.extend(with_data(&block, &data)),
            Passage::Relayed(relayed, data) => {
                out.relayed.push(relayed);
                out.bytes.extend(with_data(&block, &data));
            }
            ended => out.ended(ended),
        }
    }

    fn judged(&mut self, keys: &Keys, block: &[u8]) -> Passage {
        match event(block) {
            Some(event) if event.data.is_empty() => Passage::Same,
            Some(event) => self.judge(keys, &event.data),
            // Comments and the like; but clients read also what is no UTF-8, somehow.
            None if std::str::from_utf8(block).is_ok() => Passage::Same,
            None => Passage::Drop,
        }
    }

    /// Between two of which one has no sessions the answer is changed, and notices are those of the bridge first.
    fn judge(&mut self, keys: &Keys, text: &str) -> Passage {
        let Some(bridge) = &self.plan.bridge else {
            let capped = self.plan.completion.then(|| completion::capped(text)).flatten();
            return capped.map_or_else(|| self.plan.relay.judge(keys, text), Passage::Changed);
        };
        if server_message::read(text).is_none_or(|message| message.method.is_none()) {
            self.answered = true;
            return Passage::Changed(self.plan.answer(keys, text).into_owned());
        }
        match bridge.notice(text) {
            Passage::Same => self.plan.relay.judge(keys, text),
            other => other,
        }
    }

    /// Ends a stream whose answer cannot be read.
    fn cut(&mut self, out: &mut Rewritten) {
        self.answered = true;
        if self.plan.id.is_some() {
            let text = self.plan.too_large();
            out.bytes.extend(with_data(b"event: message\n\n", &text));
        }
    }

    fn gathered(&mut self, keys: &Keys, piece: Piece, out: &mut Rewritten) {
        let Piece::Whole(block) = piece else {
            return self.answer(&self.plan.too_large(), out);
        };
        let Some(event) = event(&block) else { return };
        let Some(message) = server_message::read(&event.data) else {
            return;
        };
        if message.method.is_none() {
            self.answer(&self.plan.answer(keys, &event.data), out);
        } else {
            out.ended(self.plan.relay.judge(keys, &event.data));
        }
    }

    /// The one answer of a client that takes no stream.
    fn answer(&mut self, text: &str, out: &mut Rewritten) {
        self.answered = true;
        out.bytes.extend(line(text));
    }
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// False for what can only be an answer, or nothing; it need not be read.
fn may_be_no_answer(block: &[u8]) -> bool {
    [METHOD, ESCAPE]
        .iter()
        .any(|sign| memchr::memmem::find(block, sign).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session::{NewSession, mint};
    use crate::config::document;
    use crate::decision::relay::Place;
    use crate::secret::Secret;
    use crate::sessions::store::BackendSession;

    fn rewriter(form: Form, id: &str) -> (Rewriter, Keys) {
        of_server("{name: a/one, url: 'http://one'}", (form, id))
    }

    /// A rewriter of the replies of a server with this entry in the config.
    fn of_server(entry: &str, (form, id): (Form, &str)) -> (Rewriter, Keys) {
        let text = format!("servers: [{entry}]");
        let server = document::read(text.as_bytes()).unwrap().servers.remove(0);
        let keys = Keys::new(Secret::new("0123456789abcdef0123456789abcdef"), None);
        let new = NewSession {
            version: "2025-11-25",
            capabilities: "r".to_owned(),
            binding: None,
            length: std::time::Duration::from_secs(60),
        };
        let backend = BackendSession {
            id: None,
            version: "2025-11-25".to_owned(),
            logging: false,
        };
        let may_ask = form == Form::Events;
        let relay = Relay::new(&mint(&keys, new, 1).1, (&server, &backend), Place::Call, may_ask);
        let plan = ReplyPlan {
            relay,
            form,
            id: Some(id.to_owned()),
            bridge: None,
            completion: false,
        };
        (Rewriter::new(plan), keys)
    }

    const STREAM: &[u8] = b"id: s-0\nretry: 5\ndata:\n\n\
        data: {\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\n\n\
        id: s-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n\n\
        data: { \"jsonrpc\":\"2.0\", \"method\":\"notifications/progress\",\"params\":{}}\n\n\
        event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";

    #[test]
    fn events_pass_byte_for_byte_but_those_that_are_relayed() {
        let (mut whole, keys) = rewriter(Form::Events, "7");
        let all = whole.push(&keys, STREAM, true);
        assert_eq!(all.replies, [r#"{"jsonrpc":"2.0","id":0,"result":{}}"#]);
        let text = String::from_utf8(all.bytes.clone()).unwrap();
        let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(blocks.len(), 4, "{text}");
        assert_eq!(blocks[0], "id: s-0\nretry: 5\ndata:");
        assert!(
            blocks[1].starts_with("id: s-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"g1."),
            "{text}"
        );
        assert_eq!(
            blocks[2],
            "data: { \"jsonrpc\":\"2.0\", \"method\":\"notifications/progress\",\"params\":{}}"
        );
        assert_eq!(
            blocks[3],
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}"
        );
        let mut bytewise = Rewriter::new(whole.plan.clone());
        let mut bytes = Vec::new();
        for (at, byte) in STREAM.iter().enumerate() {
            bytes.extend(bytewise.push(&keys, &[*byte], at + 1 == STREAM.len()).bytes);
        }
        assert_eq!(bytes, all.bytes);
    }

    #[test]
    fn a_request_whose_method_is_hidden_is_relayed_like_any_other() {
        let (mut rewriter, keys) = rewriter(Form::Events, "7");
        let hidden = b"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"m\\u0065thod\":\"roots/list\"}\n\n\
            data: {\"jsonrpc\":\"2.0\",\"id\":2,\"m\\u0065thod\":\"elicitation/create\"}\n\n\
            data: {\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"roots/list\",\"x\":\"\xff\"}\n\n\
            data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"x\":\"\\u00e9\"}}\n\n";
        let out = rewriter.push(&keys, hidden, true);
        let text = String::from_utf8(out.bytes).unwrap();
        let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(blocks.len(), 2, "{text}");
        assert!(blocks[0].contains(r#""id":"g1."#), "{text}");
        assert_eq!(
            blocks[1],
            r#"data: {"jsonrpc":"2.0","id":7,"result":{"x":"\u00e9"}}"#
        );
        assert!(
            out.replies.len() == 1 && out.replies[0].contains("-32601"),
            "{:?}",
            out.replies
        );
    }

    #[test]
    fn d37_a_stream_becomes_the_one_json_answer() {
        let (mut rewriter, keys) = rewriter(Form::Json, "7");
        let out = rewriter.push(&keys, STREAM, false);
        assert_eq!(out.bytes, b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n");
        assert_eq!(out.replies.len(), 2, "who cannot be asked is not asked");
        assert_eq!(rewriter.push(&keys, STREAM, true).bytes, b"");
    }

    #[test]
    fn d37_a_stream_that_ends_without_an_answer_is_an_error_with_the_id() {
        let (mut rewriter, keys) = rewriter_that_saw_half();
        assert_eq!(
            rewriter.push(&keys, b"", true).bytes,
            b"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":-32603,\"message\":\"MCP server unavailable\"}}\n"
        );
    }

    #[test]
    fn d37_a_stream_that_is_broken_off_is_an_error_with_the_id() {
        let (mut half, keys) = rewriter_that_saw_half();
        let text = String::from_utf8(half.broken().unwrap()).unwrap();
        assert!(text.contains(r#""id":"x","error":{"code":-32603"#), "{text}");
        let (mut whole, _) = rewriter(Form::Json, "7");
        whole.push(&keys, STREAM, false);
        assert_eq!(whole.broken().as_deref(), Some(&b""[..]), "the answer was there");
        assert_eq!(rewriter(Form::Events, "7").0.broken(), None);
    }

    fn rewriter_that_saw_half() -> (Rewriter, Keys) {
        let (mut half, keys) = rewriter(Form::Json, "\"x\"");
        assert_eq!(
            half.push(&keys, b"id: 1\nretry: 3\ndata:\n\n", false),
            Rewritten::default()
        );
        (half, keys)
    }

    const PREFIXED: &str = "{name: a/one, url: 'http://one', prefix: p_, resourceURIs: prefixed}";

    #[test]
    fn uris_of_a_server_with_prefixed_ones_are_published_in_streams_and_answers() {
        let stream =
            b"data: {\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"d:1\"}}\n\n\
            id: 3\ndata: {\"id\":7,\"result\":{\"contents\":[{\"uri\":\"d:1\"}]}}\n\n";
        let published = String::from_utf8(stream.to_vec())
            .unwrap()
            .replace("d:1", "mcpgw:p_:d:1");
        let (mut events, keys) = of_server(PREFIXED, (Form::Events, "7"));
        let out = events.push(&keys, stream, true).bytes;
        assert_eq!(String::from_utf8(out).unwrap(), published);
        let (mut json, _) = of_server(PREFIXED, (Form::Json, "7"));
        let out = json.push(&keys, stream, true).bytes;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\":7,\"result\":{\"contents\":[{\"uri\":\"mcpgw:p_:d:1\"}]}}\n"
        );
        let (of, _) = of_server(PREFIXED, (Form::Events, "7"));
        let (mut whole, changed) = of.plan.begin((200, Some("application/json"), None)).unwrap();
        assert!(changed.json);
        assert_eq!(
            whole
                .push(&keys, b"{\"result\":{\"contents\":[{\"uri\":", false)
                .bytes,
            b""
        );
        assert_eq!(
            whole.push(&keys, b"\"ui://x\"}]}}", true).bytes,
            b"{\"result\":{\"contents\":[{\"uri\":\"ui://p_x\"}]}}"
        );
    }

    #[test]
    fn s23_an_answer_of_8_mib_is_published_and_a_larger_one_is_an_error_with_the_id() {
        let head = "data: {\"id\":7,\"result\":{\"contents\":[{\"uri\":\"d:1\",\"text\":\"";
        let text = |size: usize| format!("{head}{}\"}}]}}}}\n\n", "x".repeat(size - head.len() - 7));
        for (size, expected) in [
            (MAX_EVENT, "mcpgw:p_:d:1"),
            (MAX_EVENT + 1, "answer of the MCP server is too large"),
        ] {
            for form in [Form::Events, Form::Json] {
                let (mut rewriter, keys) = of_server(PREFIXED, (form, "7"));
                let bytes = text(size).into_bytes();
                assert_eq!(bytes.len(), size);
                let mut out = Vec::new();
                for (at, chunk) in bytes.chunks(65_536).enumerate() {
                    let end = (at + 1) * 65_536 >= size;
                    out.extend(rewriter.push(&keys, chunk, end).bytes);
                }
                let out = String::from_utf8(out).unwrap();
                assert!(
                    out.contains(expected) && out.contains("\"id\":7"),
                    "{form:?} {size}"
                );
                assert_eq!(out.contains("xxxx"), size == MAX_EVENT, "nothing of what is cut");
            }
            let (of, keys) = of_server(PREFIXED, (Form::Events, "7"));
            let (mut whole, _) = of.plan.begin((200, Some("application/json"), None)).unwrap();
            let body = text(size).replace("data: ", "      ");
            let out = whole.push(&keys, body.as_bytes(), true).bytes;
            assert!(String::from_utf8(out).unwrap().contains(expected), "{size}");
        }
    }
}
