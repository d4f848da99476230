//! What replaces a failed reply of an MCP server (data-plane.md 8.8). The guard asks the broker; the broker decides here.

use super::user_token::Entry;
use crate::auth::session::SessionClaims;
use crate::protocol::header;
use crate::protocol::reply::{INTERNAL, error};
use crate::sessions::store::BackendSession;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What the failed reply was to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// A call with an id.
    #[default]
    Call,
    /// Something that a client sent back for a server.
    Answer,
    /// A stream that was to be taken up again.
    Stream,
}

/// What the router knew when it forwarded the call. It travels sealed; it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// What was sent.
    #[serde(default)]
    pub subject: Subject,
    /// Raw id of the request.
    pub id: Option<String>,
    /// Client session.
    pub jti: Uuid,
    /// Server name.
    pub server: String,
    /// Which backend session was used, as a fingerprint; `None` when the server issued no id.
    pub backend: Option<String>,
    /// The call carried a token of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserToken>,
    /// Number under which the call is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
}

/// What is needed when the server refuses the person's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserToken {
    /// Entry of a new visit.
    pub entry: Entry,
    /// Page of it, up to the id.
    pub page: String,
    /// The client has no session: it is asked when it calls again. An error passes every bridge, a result that asks does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateless: bool,
}

impl Context {
    /// The context of one request.
    pub fn new(
        (subject, id): (Subject, Option<&str>),
        claims: &SessionClaims,
        server: &str,
        backend: &BackendSession,
    ) -> Self {
        Self {
            subject,
            id: id.map(str::to_owned),
            jti: claims.jti,
            server: server.to_owned(),
            backend: fingerprint(backend),
            user: None,
            kept: None,
        }
    }
}

/// A backend session without its id.
pub fn fingerprint(backend: &BackendSession) -> Option<String> {
    backend.id.as_deref().map(|id| {
        let mut digits = hex::encode(Sha256::digest(id));
        digits.truncate(16);
        digits
    })
}

/// The reply that failed.
pub struct FailedReply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Envoy's response code details; `via_upstream` means that the server answered.
    pub details: &'a str,
    /// Its content type.
    pub content_type: &'a str,
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The reply as it is.
    Keep,
    /// A JSON-RPC error in its place.
    Replace {
        /// HTTP status.
        status: u16,
        /// Body.
        body: String,
        /// The backend session is gone: drop the mapping.
        session_lost: bool,
    },
}

/// Decides. `may_challenge`: the server was given the client's `authorization` by configuration.
pub fn judge(context: &Context, reply: &FailedReply<'_>, may_challenge: bool) -> Verdict {
    let via_upstream = reply.details == "via_upstream";
    let replace = |status: u16, message: &str, session_lost: bool| Verdict::Replace {
        status,
        body: error(context.id.as_deref(), INTERNAL, message, None),
        session_lost,
    };
    match reply.status {
        404 if via_upstream && context.backend.is_some() => {
            // Only a call has an answer with status 200; a client that sees 404 would give its own session up.
            let status = if context.subject == Subject::Call {
                200
            } else {
                400
            };
            replace(status, "session with the MCP server ended, call again", true)
        }
        404 if !via_upstream => replace(503, "MCP server unavailable", false),
        401 | 403 if via_upstream && !may_challenge => replace(502, "MCP server refused the request", false),
        504 if !via_upstream => replace(504, "MCP server timed out", false),
        status if status >= 500 && !(via_upstream && header::is_json(reply.content_type)) => {
            replace(status, "MCP server unavailable", false)
        }
        _ => Verdict::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            subject: Subject::Call,
            id: Some("9007199254740993".into()),
            jti: Uuid::nil(),
            server: "a/b".into(),
            backend: Some("f".into()),
            user: None,
            kept: None,
        }
    }

    fn verdict(status: u16, details: &str, content_type: &str) -> Verdict {
        judge(
            &context(),
            &FailedReply {
                status,
                details,
                content_type,
            },
            false,
        )
    }

    #[test]
    fn d21_a_servers_404_for_its_session_never_reaches_the_client() {
        let Verdict::Replace {
            status,
            body,
            session_lost,
        } = verdict(404, "via_upstream", "text/plain")
        else {
            panic!("kept")
        };
        assert_eq!((status, session_lost), (200, true));
        assert_eq!(
            body,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32603,"message":"session with the MCP server ended, call again"}}"#
        );
    }

    #[test]
    fn s22_challenges_and_error_pages_of_a_server_are_replaced() {
        assert!(matches!(
            verdict(401, "via_upstream", "text/html"),
            Verdict::Replace { status: 502, .. }
        ));
        assert!(matches!(
            verdict(500, "via_upstream", "text/html"),
            Verdict::Replace { status: 500, .. }
        ));
        assert!(matches!(
            verdict(503, "no_healthy_upstream", "text/plain"),
            Verdict::Replace { status: 503, .. }
        ));
        assert_eq!(
            verdict(500, "via_upstream", "application/json; charset=utf-8"),
            Verdict::Keep
        );
        assert_eq!(verdict(400, "via_upstream", "text/plain"), Verdict::Keep);
        assert_eq!(
            judge(
                &context(),
                &FailedReply {
                    status: 401,
                    details: "via_upstream",
                    content_type: ""
                },
                true
            ),
            Verdict::Keep
        );
    }
}
