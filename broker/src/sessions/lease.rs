//! A backend session for one call of a caller without identity (data-plane.md 9): it ends with the reply, however that ends.

use super::opener::Opener;
use super::store::BackendSession;
use crate::auth::session::SessionClaims;
use crate::config::model::ServerConfig;
use std::sync::Arc;
use uuid::Uuid;

/// Ends the backend session when it is dropped.
pub struct Lease {
    opener: Arc<Opener>,
    jti: Uuid,
    server: Arc<ServerConfig>,
    backend: BackendSession,
}

impl Opener {
    /// The lease of a session that was opened for one call.
    pub fn lease(
        self: &Arc<Self>,
        claims: &SessionClaims,
        (server, backend): (&Arc<ServerConfig>, &BackendSession),
    ) -> Lease {
        Lease {
            opener: Arc::clone(self),
            jti: claims.jti,
            server: Arc::clone(server),
            backend: backend.clone(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (opener, server) = (Arc::clone(&self.opener), Arc::clone(&self.server));
        let (jti, backend) = (self.jti, self.backend.clone());
        // Without a runtime the process is ending, and its sessions are closed by its end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                opener.end(jti, &server, &backend).await;
            });
        }
    }
}
