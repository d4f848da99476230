//! Batches of 2025-03-26 (data-plane.md 4.8): which messages an array holds, and what is refused of it. Each message is then
//! carried out as a request of its own.

use super::{Answer, Facts, Head};
use crate::decision::message::session_not_found;
use crate::protocol::header;
use crate::protocol::json::Reader;
use crate::protocol::message::{MessageError, MessageKind, read};
use crate::protocol::reply::{INTERNAL, INVALID_REQUEST, Refusal, error};

/// The one version that has batches.
pub(super) const VERSION: &str = "2025-03-26";
/// Messages in a batch.
pub(super) const MAX_MESSAGES: usize = 20;

/// One message of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// It is carried out; a request has an id, raw, and gets an answer.
    Message {
        /// The message.
        text: String,
        /// Raw id of a request.
        id: Option<String>,
    },
    /// It is answered with this error.
    Refused(String),
}

/// The messages of a batch that this session may send.
///
/// # Errors
/// The answer to the whole body.
pub fn parts(head: &Head, facts: &Facts, body: &[u8]) -> Result<Vec<Part>, Box<Answer>> {
    let refuse = |status, text: &str| {
        Box::new(Answer {
            refusal: Refusal::new(status, INVALID_REQUEST, text, "batch"),
            id: None,
            session: None,
            rule: String::new(),
        })
    };
    if head.get(header::SESSION).is_some() && facts.claims.is_none() {
        let mut answer = refuse(404, "");
        answer.refusal = session_not_found();
        return Err(answer);
    }
    if facts.claims.as_ref().is_none_or(|claims| claims.ver != VERSION) {
        return Err(refuse(400, "batch requests are not supported"));
    }
    let texts = elements(body).filter(|texts| !texts.is_empty() && texts.len() <= MAX_MESSAGES);
    let texts = texts.ok_or_else(|| refuse(400, "a batch has 1 to 20 messages"))?;
    Ok(texts.into_iter().map(part).collect())
}

/// The messages of an array; one too many stands for all that are.
pub(super) fn elements(body: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(body).ok()?;
    let (mut reader, mut found) = (Reader::new(text), Vec::new());
    reader
        .elements(&mut |reader| {
            let range = reader.value()?;
            if found.len() <= MAX_MESSAGES {
                found.push(reader.slice(range));
            }
            Ok(())
        })
        .ok()?;
    Some(found)
}

fn part(text: &str) -> Part {
    let message = match read(text.as_bytes()) {
        Ok(message) => message,
        // An array in the array is no batch.
        Err(error @ MessageError::Invalid { .. }) => return Part::Refused(error.refusal().body(error.id())),
        Err(_) => return Part::Refused(error(None, INVALID_REQUEST, "invalid request", None)),
    };
    if message.kind == MessageKind::Request && message.method == "initialize" {
        let refused = error(message.id, INVALID_REQUEST, "invalid request", None);
        return Part::Refused(refused);
    }
    let is_request = message.kind == MessageKind::Request;
    Part::Message {
        text: text.to_owned(),
        id: message.id.filter(|_| is_request).map(str::to_owned),
    }
}

/// The answer to a request whose own answer did not come in time, or was none.
pub fn missed(id: &str) -> String {
    error(Some(id), INTERNAL, "MCP server timed out", None)
}

/// The array of answers; `None` when nothing was asked.
pub fn array(answers: &[String]) -> Option<String> {
    (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::Keys;
    use crate::auth::session::{NewSession, mint};
    use crate::secret::Secret;

    fn facts(version: &str) -> Facts {
        let new = NewSession {
            version,
            capabilities: String::new(),
            binding: None,
            length: std::time::Duration::from_secs(60),
        };
        Facts {
            claims: Some(mint(&Keys::new(Secret::new("k"), None), new, 1000).1),
            ..Facts::default()
        }
    }

    #[test]
    fn d35_a_batch_belongs_to_one_version_and_has_twenty_messages_at_most() {
        let of = |version: &str, count: usize| {
            let messages = vec![r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#; count];
            let body = format!("[{}]", messages.join(" , "));
            parts(&Head::default(), &facts(version), body.as_bytes()).map(|parts| parts.len())
        };
        assert_eq!(of("2025-03-26", 20), Ok(20));
        for (version, count) in [("2025-03-26", 21), ("2025-03-26", 0), ("2025-06-18", 1)] {
            let answer = of(version, count).unwrap_err();
            assert_eq!(
                (answer.refusal.status, answer.refusal.code),
                (400, INVALID_REQUEST)
            );
        }
    }

    #[test]
    fn d35_what_is_no_message_or_opens_a_session_is_refused_in_its_place() {
        let body = br#"[{"jsonrpc":"2.0","id":"a","method":"initialize"}, [], {"jsonrpc":"2.0","method":"x"}, {"jsonrpc":"2.0","id":2,"method":"ping"}]"#;
        let parts = parts(&Head::default(), &facts("2025-03-26"), body).unwrap();
        let refused = |id: &str| {
            Part::Refused(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32600,"message":"invalid request"}}}}"#
            ))
        };
        let message = |text: &str, id: Option<&str>| Part::Message {
            text: text.to_owned(),
            id: id.map(str::to_owned),
        };
        assert_eq!(
            parts,
            [
                refused("\"a\""),
                refused("null"),
                message(r#"{"jsonrpc":"2.0","method":"x"}"#, None),
                message(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#, Some("2")),
            ]
        );
        assert_eq!(array(&[]), None);
        assert_eq!(array(&["1".to_owned(), "2".to_owned()]).unwrap(), "[1,2]");
    }
}
