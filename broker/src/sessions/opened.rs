//! The backend sessions that this replica opened when the sessions are in a shared store: it closes them when their client
//! session expires, and counts them.

use super::record::BackendSession;
use crate::telemetry::session_metrics::OpenBackends;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use uuid::Uuid;

/// Client sessions whose expiry a replica watches; what it opens for more is closed by the servers.
const MAX_SESSIONS: usize = 100_000;

/// End of a client session, and the backend sessions that were opened for it, by server.
type OfSession = (u64, BTreeMap<String, BackendSession>);

/// By client session.
#[derive(Default)]
pub(super) struct Opened {
    sessions: Mutex<HashMap<Uuid, OfSession>>,
    open: OpenBackends,
}

impl Opened {
    /// None yet, counted there.
    pub(super) fn counted(open: OpenBackends) -> Self {
        Self {
            sessions: Mutex::default(),
            open,
        }
    }

    /// Remembers one.
    pub(super) fn add(&self, jti: Uuid, expires: u64, (server, backend): (&str, &BackendSession)) {
        if let Ok(mut sessions) = self.sessions.lock()
            && (sessions.len() < MAX_SESSIONS || sessions.contains_key(&jti))
        {
            let (end, backends) = sessions.entry(jti).or_default();
            *end = expires;
            if backends.insert(server.to_owned(), backend.clone()).is_none() {
                self.open.opened(server);
            }
        }
    }

    /// One is over, whichever replica found it out.
    pub(super) fn forget(&self, jti: Uuid, server: &str, backend: &BackendSession) {
        if let Ok(mut sessions) = self.sessions.lock()
            && let Some((_, backends)) = sessions.get_mut(&jti)
            && backends.get(server) == Some(backend)
        {
            backends.remove(server);
            self.open.closed(server);
            if backends.is_empty() {
                sessions.remove(&jti);
            }
        }
    }

    /// Those of a client session that has ended are closed by whoever ended it.
    pub(super) fn end(&self, jti: Uuid) {
        if let Ok(mut sessions) = self.sessions.lock()
            && let Some((_, backends)) = sessions.remove(&jti)
        {
            backends.keys().for_each(|server| self.open.closed(server));
        }
    }

    /// Takes out those whose client session has expired.
    pub(super) fn sweep(&self, now: u64) -> Vec<(Uuid, String, BackendSession)> {
        let Ok(mut sessions) = self.sessions.lock() else {
            return Vec::new();
        };
        let mut expired = Vec::new();
        for (jti, (_, backends)) in sessions.extract_if(|_, (expires, _)| *expires <= now) {
            for (server, backend) in backends {
                self.open.closed(&server);
                expired.push((jti, server, backend));
            }
        }
        sessions.shrink_to_fit();
        expired
    }
}
