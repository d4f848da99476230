//! What runs beside the requests: what has expired is ended, and what other replicas did to a session is done here too.

use crate::aggregation::federation::Published;
use crate::auth::clock;
use crate::front::FrontState;
use crate::sessions::opener::Opener;
use crate::sessions::store::{BackendSession, SessionEvent, SessionStore};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{interval, timeout};
use uuid::Uuid;

const SWEEP: Duration = Duration::from_secs(30);
/// Closing the backend sessions that only this process knows, when it ends.
const CLOSE_OWN: Duration = Duration::from_secs(3);
/// Backend sessions that are closed at once.
const CLOSINGS: usize = 64;

/// The parts that are kept up.
#[derive(Clone)]
pub(super) struct Upkeep {
    pub(super) state: Arc<FrontState>,
    pub(super) store: Arc<SessionStore>,
    pub(super) opener: Arc<Opener>,
    pub(super) published: Arc<Published>,
}

impl Upkeep {
    /// Ends what has expired, for ever.
    pub(super) async fn sweep(self) {
        let mut tick = interval(SWEEP);
        loop {
            tick.tick().await;
            self.state.user_lists.sweep();
            self.close(self.store.sweep(clock::now())).await;
        }
    }

    /// Follows the events of all replicas, for ever.
    pub(super) async fn follow(self) {
        let mut events = self.store.events();
        let follow = self.store.follow_events();
        let act = async {
            loop {
                match events.recv().await {
                    Ok(SessionEvent::Ended(jti)) => {
                        self.store.ended(jti);
                        self.state.streams.close(jti);
                        self.state.user_lists.forget(jti);
                    }
                    Ok(SessionEvent::Scope(jti)) if self.state.streams.has(jti) => self.rescope(jti).await,
                    Ok(SessionEvent::Scope(_)) => {}
                    Ok(SessionEvent::Changed(jti)) => self.opener.watchers.touch(jti),
                    Ok(SessionEvent::Answered(tag, good)) => {
                        self.state.asked.answered(tag, good);
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(component = "store", missed, "Session events missed");
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        };
        tokio::join!(follow, act);
    }

    async fn rescope(&self, jti: Uuid) {
        if let Ok(record) = self.store.record(jti).await {
            self.state.streams.rescope(jti, record.scope.clone());
        }
    }

    /// Closes the backend sessions that nobody else will know.
    pub(super) async fn close_own(&self) {
        let _ = timeout(CLOSE_OWN, self.close(self.store.drain())).await;
    }

    async fn close(&self, ended: Vec<(Uuid, String, BackendSession)>) {
        let catalog = self.published.load();
        for some in ended.chunks(CLOSINGS) {
            let mut closings = Vec::new();
            for (_, server, backend) in some {
                if let Some(server) = catalog.server(server) {
                    closings.push(self.opener.close(&server.config, backend));
                }
            }
            join_all(closings).await;
        }
    }
}
