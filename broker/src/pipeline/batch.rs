//! A batch, carried out (data-plane.md 4.8): each message is sent once more as a request of the same client, so that every
//! rule, policy and answer is that of a single message. How it is sent, router and front know.

use super::facts::{FactError, Pipeline, refused};
use crate::decision::batch::{self, Part};
use crate::decision::message::session_not_found;
use crate::decision::{Answer, Facts, Head, Need};
use crate::protocol::reply::{INTERNAL, error};
use crate::protocol::server_message;
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::timeout;

/// Largest answer to one message, bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;

impl Pipeline {
    /// The array that answers a batch; `None` when it asked nothing. `send` sends one message and gives the body of the
    /// answer, of at most [`MAX_ANSWER`] bytes.
    ///
    /// # Errors
    /// The answer to the whole body.
    pub async fn batch<S, F>(
        &self,
        head: &Head,
        mut facts: Facts,
        body: &[u8],
        send: S,
    ) -> Result<Option<String>, Box<Answer>>
    where
        S: Fn(String) -> F,
        F: Future<Output = Option<Bytes>>,
    {
        let parts = batch::parts(head, &facts, body)?;
        if let Some(claims) = facts.claims.clone() {
            let need = Need::Facts(claims, String::new());
            if let Err(FactError::Refused(refusal)) = self.fetch(need, head, &mut facts).await {
                return Err(Box::new(refused(refusal, None, None)));
            }
        }
        if facts.revoked != Some(false) {
            return Err(Box::new(refused(session_not_found(), None, None)));
        }
        let answers = join_all(parts.into_iter().map(|part| self.part(part, &send))).await;
        Ok(batch::array(&answers.into_iter().flatten().collect::<Vec<_>>()))
    }

    async fn part<F>(&self, part: Part, send: &impl Fn(String) -> F) -> Option<String>
    where
        F: Future<Output = Option<Bytes>>,
    {
        let (text, id) = match part {
            Part::Refused(answer) => return Some(answer),
            Part::Message { text, id } => (text, id),
        };
        let answer = timeout(self.open_deadline, send(text)).await;
        let id = id?;
        Some(match answer {
            Err(_) => batch::missed(&id),
            Ok(answer) => answer
                .and_then(|bytes| json(&bytes))
                .unwrap_or_else(|| error(Some(&id), INTERNAL, "MCP server unavailable", None)),
        })
    }
}

fn json(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    server_message::read(text).map(|_| text.to_owned())
}
