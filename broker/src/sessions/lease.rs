//! The end of a call that a client without a session makes on a server with sessions (data-plane.md 9, 10.2): a client that
//! leaves early has cancelled it, and a session that was opened for it alone ends with it.

use super::opener::Opener;
use super::store::BackendSession;
use crate::config::model::ServerConfig;
use http::HeaderMap;
use std::sync::Arc;
use uuid::Uuid;

/// What the call runs on.
#[derive(Clone)]
pub struct Leased {
    /// The raw id that the server knows it by.
    pub id: String,
    /// The session on whose behalf it runs, when that one ends with it.
    pub once: Option<Uuid>,
    /// Server.
    pub server: Arc<ServerConfig>,
    /// Backend session.
    pub backend: BackendSession,
    /// Headers of the client that requests on its behalf carry.
    pub headers: HeaderMap,
}

/// Kept until the reply is over; does what is left to do when it is dropped.
pub struct Lease {
    opener: Arc<Opener>,
    leased: Leased,
    done: bool,
}

impl Opener {
    /// The lease of a call.
    pub fn lease(self: &Arc<Self>, leased: Leased) -> Lease {
        Lease {
            opener: Arc::clone(self),
            leased,
            done: false,
        }
    }
}

impl Lease {
    /// The whole reply has passed: nothing is to be cancelled.
    pub fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (opener, leased, done) = (Arc::clone(&self.opener), self.leased.clone(), self.done);
        if done && leased.once.is_none() {
            return;
        }
        // Without a runtime the process is ending, and its sessions are closed by its end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let to = (leased.server.as_ref(), &leased.backend);
            if !done {
                let method = "notifications/cancelled";
                let body = format!(
                    r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{}}}}}"#,
                    leased.id
                );
                opener.relay(to, leased.headers.clone(), (method, body)).await;
            }
            if let Some(jti) = leased.once {
                opener.end(jti, to.0, to.1).await;
            }
        });
    }
}
