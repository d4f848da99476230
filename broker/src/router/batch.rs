//! A batch, carried out (data-plane.md 4.8): each message goes through the gateway once more as a request of the same client,
//! so that every rule, policy and answer is that of a single message.

use super::facts::{FactError, RouterState, refused};
use crate::decision::batch::{self, Part};
use crate::decision::message::session_not_found;
use crate::decision::{Answer, Facts, Head, Need};
use crate::protocol::reply::{INTERNAL, error};
use crate::protocol::server_message;
use crate::sessions::hairpin::as_client;
use crate::transport::exchange;
use futures::future::join_all;
use http::HeaderMap;
use tokio::time::timeout;

/// Largest answer to one message, bytes.
const MAX_ANSWER: usize = 1024 * 1024;

impl RouterState {
    /// The array that answers a batch; `None` when it asked nothing.
    ///
    /// # Errors
    /// The answer to the whole body.
    pub async fn batch(
        &self,
        head: &Head,
        mut facts: Facts,
        body: &[u8],
    ) -> Result<Option<String>, Box<Answer>> {
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
        let headers = as_client(&head.fields);
        let host = head.host();
        let answers = join_all(parts.into_iter().map(|part| self.part(part, &headers, &host))).await;
        Ok(batch::array(&answers.into_iter().flatten().collect::<Vec<_>>()))
    }

    async fn part(&self, part: Part, headers: &HeaderMap, host: &str) -> Option<String> {
        let (text, id) = match part {
            Part::Refused(answer) => return Some(answer),
            Part::Message { text, id } => (text, id),
        };
        let sent = self.opener.again(headers.clone(), host, text);
        let answered = async { exchange::body(sent.await?, MAX_ANSWER).await };
        let answer = timeout(self.open_deadline, answered).await;
        let id = id?;
        Some(match answer {
            Err(_) => batch::missed(&id),
            Ok(answer) => answer
                .ok()
                .and_then(|bytes| json(&bytes))
                .unwrap_or_else(|| error(Some(&id), INTERNAL, "MCP server unavailable", None)),
        })
    }
}

fn json(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    server_message::read(text).map(|_| text.to_owned())
}
