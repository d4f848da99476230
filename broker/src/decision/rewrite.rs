//! What is done to the reply of a server on its way to the client (data-plane.md 8.10): the messages of its event stream
//! pass the relay, or become the one JSON answer of a client that takes nothing else. No I/O: chunks in, chunks out.

use super::bridge::Bridge;
use super::relay::{Passage, Relay};
use crate::auth::keys::Keys;
use crate::protocol::header;
use crate::protocol::reply::{INTERNAL, error};
use crate::protocol::server_message;
use crate::protocol::sse::MAX_EVENT;
use crate::protocol::sse_blocks::{Blocks, Piece, event, with_data};
use crate::protocol::version::Era;

/// A larger event passes unread (data-plane.md 15.1).
const MAX_READ: usize = 1024 * 1024;
/// Every message but an answer has this member, or one of the same name with escapes.
const METHOD: &[u8] = b"\"method\"";
const ESCAPE: &[u8] = b"\\u";

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The event stream.
    Events,
    /// One JSON answer to the request with this raw id (D37).
    Json(String),
}

/// The plan for one reply.
#[derive(Clone, Debug)]
pub struct ReplyPlan {
    /// What becomes of the server's messages.
    pub relay: Relay,
    /// What the client gets.
    pub form: Form,
    /// What is changed on the way, when one of the two has no sessions.
    pub bridge: Option<Bridge>,
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
    /// What carries the plan out on a reply with this status, content type and encoding, and how its headers change;
    /// `None` when the reply passes as it is. A compressed one cannot be read.
    pub fn begin(
        self,
        (status, kind, coding): (u16, Option<&str>, Option<&str>),
    ) -> Option<(Rewriter, Changed)> {
        let is = |check: &dyn Fn(&str) -> bool| kind.is_some_and(check);
        let events = (200..300).contains(&status) && is(&header::is_sse);
        // Between eras an answer is changed also when it is an error with a status of its own.
        let answer = self.bridge.is_some() && is(&header::is_json);
        if coding.is_some_and(|coding| coding != "identity") || !(events || answer) {
            return None;
        }
        let sessions = self
            .bridge
            .as_ref()
            .is_some_and(|bridge| bridge.client == Era::Legacy);
        let changed = Changed {
            json: answer || matches!(self.form, Form::Json(_)),
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
}

/// Carries out a plan on the chunks of an event stream.
pub struct Rewriter {
    plan: ReplyPlan,
    blocks: Blocks,
    answered: bool,
    /// The reply is one JSON answer, gathered here.
    whole: Option<Vec<u8>>,
}

impl Rewriter {
    /// A rewriter at the beginning of a stream.
    pub fn new(plan: ReplyPlan) -> Self {
        let limit = match (&plan.form, &plan.bridge) {
            (Form::Events, None) => MAX_READ,
            _ => MAX_EVENT,
        };
        Self {
            plan,
            blocks: Blocks::new(limit),
            answered: false,
            whole: None,
        }
    }

    /// A rewriter at the beginning of a reply that is one JSON answer; only what a bridge changes is changed.
    pub fn of_json(plan: ReplyPlan) -> Self {
        Self {
            whole: Some(Vec::new()),
            ..Self::new(plan)
        }
    }

    /// Takes a chunk; `end` says that it is the last one.
    pub fn push(&mut self, keys: &Keys, chunk: &[u8], end: bool) -> Rewritten {
        let mut out = Rewritten::default();
        if self.whole.is_some() {
            self.answered(keys, (chunk, end), &mut out);
            return out;
        }
        for piece in self.blocks.push(chunk, end) {
            match self.plan.form.clone() {
                Form::Events => self.passed(keys, piece, &mut out),
                Form::Json(id) => self.gathered(keys, piece, &id, &mut out),
            }
        }
        if let (Form::Json(id), true, false) = (&self.plan.form, end, self.answered) {
            let text = error(Some(id), INTERNAL, "MCP server unavailable", None);
            self.answer(&text, &mut out);
        }
        out
    }

    /// The end of a reply that the server breaks off: instead of one JSON answer the client gets an error. `None` leaves the
    /// break to the client, who has seen what came of the stream.
    pub fn broken(&mut self) -> Option<Vec<u8>> {
        let id = match (&self.plan.form, &self.plan.bridge, &self.whole) {
            (_, Some(bridge), Some(_)) => bridge.id.clone(),
            (Form::Json(id), ..) => id.clone(),
            (Form::Events, ..) => return None,
        };
        let mut out = Rewritten::default();
        self.answer(
            &error(Some(&id), INTERNAL, "MCP server unavailable", None),
            &mut out,
        );
        Some(out.bytes)
    }

    /// A reply that is one JSON answer.
    fn answered(&mut self, keys: &Keys, (chunk, end): (&[u8], bool), out: &mut Rewritten) {
        let (Some(whole), Some(bridge)) = (&mut self.whole, &self.plan.bridge) else {
            return out.bytes.extend_from_slice(chunk);
        };
        if whole.len() <= MAX_EVENT {
            whole.extend_from_slice(chunk);
        }
        if end {
            let text = match std::str::from_utf8(whole) {
                Ok(text) if whole.len() <= MAX_EVENT => bridge.answer(keys, text.trim()),
                _ => bridge.too_large(),
            };
            out.bytes.extend_from_slice(text.as_bytes());
            out.bytes.push(b'\n');
        }
    }

    /// One event between two of which one has no sessions: the answer is changed, notices are those of the bridge first.
    fn bridged(&mut self, keys: &Keys, piece: Piece, out: &mut Rewritten) {
        let Some(bridge) = self.plan.bridge.as_ref().filter(|_| !self.answered) else {
            return;
        };
        let Piece::Whole(block) = piece else {
            self.answered = true;
            let text = bridge.too_large();
            return out.bytes.extend(with_data(b"event: message\n\n", &text));
        };
        let Some(event) = event(&block).filter(|event| !event.data.is_empty()) else {
            return out.bytes.extend_from_slice(&block);
        };
        let is_answer = server_message::read(&event.data).is_none_or(|message| message.method.is_none());
        let passage = if is_answer {
            self.answered = true;
            Passage::Changed(bridge.answer(keys, &event.data))
        } else {
            match bridge.notice(&event.data) {
                Passage::Same => self.plan.relay.judge(keys, &event.data),
                other => other,
            }
        };
        match passage {
            Passage::Same => out.bytes.extend_from_slice(&block),
            Passage::Changed(data) => out.bytes.extend(with_data(&block, &data)),
            Passage::Drop => {}
            Passage::Reply(body) => out.replies.push(body),
        }
    }

    fn passed(&mut self, keys: &Keys, piece: Piece, out: &mut Rewritten) {
        if self.plan.bridge.is_some() {
            return self.bridged(keys, piece, out);
        }
        let block = match piece {
            Piece::Part(bytes) => return out.bytes.extend_from_slice(&bytes),
            Piece::Whole(block) => block,
        };
        let passage = if may_be_no_answer(&block) {
            self.judged(keys, &block)
        } else {
            Passage::Same
        };
        match passage {
            Passage::Same => out.bytes.extend_from_slice(&block),
            Passage::Changed(data) => out.bytes.extend(with_data(&block, &data)),
            Passage::Drop => {}
            Passage::Reply(body) => out.replies.push(body),
        }
    }

    fn judged(&self, keys: &Keys, block: &[u8]) -> Passage {
        match event(block) {
            Some(event) => self.plan.relay.judge(keys, &event.data),
            // Comments and the like; but clients read also what is no UTF-8, somehow.
            None if std::str::from_utf8(block).is_ok() => Passage::Same,
            None => Passage::Drop,
        }
    }

    fn gathered(&mut self, keys: &Keys, piece: Piece, id: &str, out: &mut Rewritten) {
        let Piece::Whole(block) = piece else {
            let text = error(Some(id), INTERNAL, "answer of the MCP server is too large", None);
            return self.answer(&text, out);
        };
        let Some(event) = event(&block) else { return };
        let Some(message) = server_message::read(&event.data) else {
            return;
        };
        if message.method.is_none() {
            let text = match &self.plan.bridge {
                Some(bridge) => bridge.answer(keys, &event.data),
                None => event.data,
            };
            self.answer(&text, out);
        } else if let Passage::Reply(body) = self.plan.relay.judge(keys, &event.data) {
            out.replies.push(body);
        }
    }

    fn answer(&mut self, text: &str, out: &mut Rewritten) {
        if !std::mem::replace(&mut self.answered, true) {
            out.bytes.extend_from_slice(text.as_bytes());
            out.bytes.push(b'\n');
        }
    }
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
    use crate::decision::relay::Place;
    use crate::secret::Secret;
    use crate::sessions::store::BackendSession;

    fn rewriter(form: Form) -> (Rewriter, Keys) {
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
        let relay = Relay::new(&mint(&keys, new, 1).1, ("a/one", &backend), Place::Call, may_ask);
        (
            Rewriter::new(ReplyPlan {
                relay,
                form,
                bridge: None,
            }),
            keys,
        )
    }

    const STREAM: &[u8] = b"id: s-0\nretry: 5\ndata:\n\n\
        data: {\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}\n\n\
        id: s-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n\n\
        data: { \"jsonrpc\":\"2.0\", \"method\":\"notifications/progress\",\"params\":{}}\n\n\
        event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";

    #[test]
    fn events_pass_byte_for_byte_but_those_that_are_relayed() {
        let (mut whole, keys) = rewriter(Form::Events);
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
        let (mut rewriter, keys) = rewriter(Form::Events);
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
        let (mut rewriter, keys) = rewriter(Form::Json("7".to_owned()));
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
        let (mut whole, _) = rewriter(Form::Json("7".to_owned()));
        whole.push(&keys, STREAM, false);
        assert_eq!(whole.broken().as_deref(), Some(&b""[..]), "the answer was there");
        assert_eq!(rewriter(Form::Events).0.broken(), None);
    }

    fn rewriter_that_saw_half() -> (Rewriter, Keys) {
        let (mut half, keys) = rewriter(Form::Json("\"x\"".to_owned()));
        assert_eq!(
            half.push(&keys, b"id: 1\nretry: 3\ndata:\n\n", false),
            Rewritten::default()
        );
        (half, keys)
    }
}
