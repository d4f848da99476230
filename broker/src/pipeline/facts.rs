//! Fetches the facts that a decision asks for: token claims, store facts, backend sessions. Every wait has a deadline
//! below Envoy's message timeout (data-plane.md 8.9).

use super::asked::{Asked, OnStream};
use crate::aggregation::catalog::Catalog;
use crate::aggregation::federation::Published;
use crate::aggregation::user_lists::UserLists;
use crate::auth::hairpin::{self, UseCounter};
use crate::auth::jwt::Verified;
use crate::auth::keys::Keys;
use crate::auth::session::SessionClaims;
use crate::auth::{clock, seal, session, vault};
use crate::authn::Authenticator;
use crate::config::model::ServerConfig;
use crate::decision::access;
use crate::decision::head::HairpinCheck;
use crate::decision::relay::tag;
use crate::decision::rewrite::Rewritten;
use crate::decision::user_token::Entry;
use crate::decision::{Answer, Facts, Forward, Head, Need, Rules, selection};
use crate::protocol::header;
use crate::protocol::message::{Message, MessageKind};
use crate::protocol::object::Object;
use crate::protocol::reply::{INTERNAL, Refusal};
use crate::sessions::hairpin::forwarded;
use crate::sessions::kept::{KeptCalls, MAX_BODY};
use crate::sessions::lease::{Lease, Leased};
use crate::sessions::opener::{OpenError, Opener};
use crate::sessions::store::{BackendSession, SessionEvent, SessionStore, StoreError};
use crate::telemetry::relay_metrics::Answered;
use crate::transport::exchange::Failure;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

/// Everything that a decision is made with.
pub struct Pipeline {
    /// Catalogs.
    pub published: Arc<Published>,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Check of the callers' tokens.
    pub authenticator: Arc<Authenticator>,
    /// Sessions.
    pub store: Arc<SessionStore>,
    /// Backend sessions.
    pub opener: Arc<Opener>,
    /// Lists of callers.
    pub user_lists: Arc<UserLists>,
    /// Uses of hairpin tokens.
    pub uses: UseCounter,
    /// Settings that decide.
    pub rules: Rules,
    /// Longest wait for a backend session.
    pub open_deadline: Duration,
    /// Calls that may have to be sent once more.
    pub kept: Arc<KeptCalls>,
    /// Answers of the gateway to servers that may be under way; past it they are not sent.
    pub answers: Arc<Semaphore>,
    /// Questions of servers to clients.
    pub asked: Arc<Asked>,
    /// Metrics.
    pub metrics: Arc<crate::telemetry::metrics::Metrics>,
    /// Traces.
    pub traces: crate::telemetry::traces::Traces,
}

/// Purpose of the mark of a call that the gateway sends once more.
pub const REPLAY_PURPOSE: &str = "replay";

/// Answers to servers under way at once in this process.
pub const MAX_ANSWERS: usize = 1024;

/// A backend session, and the headers of the client that its requests carry.
#[derive(Clone)]
pub struct ServerLeg {
    /// Server.
    pub server: Arc<ServerConfig>,
    /// Backend session.
    pub backend: BackendSession,
    /// Headers.
    pub headers: HeaderMap,
}

/// Why a fact could not be had.
pub enum FactError {
    /// The gateway answers.
    Refused(Refusal),
    /// A policy's answer passes as it is.
    Policy(Failure),
}

impl Pipeline {
    /// Checks the hairpin headers.
    pub fn hairpin(&self, head: &Head) -> HairpinCheck {
        let tokens = head.all(header::ROUTER_KEY);
        let hosts = head.all(header::INIT_HOST);
        match (tokens.as_slice(), hosts.as_slice()) {
            ([], []) => HairpinCheck::None,
            ([token], [host]) => {
                match hairpin::verify(&self.keys, &self.uses, token, (host, head.path()), clock::now()) {
                    Some(claims) => HairpinCheck::Valid(Box::new(claims)),
                    None => HairpinCheck::Invalid,
                }
            }
            _ => HairpinCheck::Invalid,
        }
    }

    /// The verified caller, or `None` where nobody is verified.
    ///
    /// # Errors
    /// What the client is answered.
    pub async fn caller(&self, head: &Head, catalog: &Catalog) -> Result<Option<Arc<Verified>>, Refusal> {
        let checked = self
            .authenticator
            .check(&head.all("authorization"), clock::now())
            .await;
        access::caller(checked, head, catalog)
    }

    /// What the headers alone say: the claims of a valid session token, and what the caller selects.
    pub fn first_facts(&self, head: &Head) -> Facts {
        let (tokens, now) = (head.all(header::SESSION), clock::now());
        let claims = match tokens.as_slice() {
            [token] => {
                let binding = head.binding(&self.keys);
                session::verify(&self.keys, token, binding.as_ref(), now)
            }
            _ => None,
        };
        Facts {
            claims,
            selection: selection(head, &self.rules, now),
            now,
            nonce: Uuid::new_v4(),
            ..Facts::default()
        }
    }

    /// Remembers what later requests of the session need: the server that was called last, and subscriptions.
    pub fn remember(self: &Arc<Self>, facts: &Facts, message: Option<&Message<'_>>, forward: &Forward) {
        let (Some(claims), Some(message)) = (&facts.claims, message) else {
            return;
        };
        if message.kind != MessageKind::Request {
            return;
        }
        let (jti, expires, server) = (claims.jti, claims.exp, forward.server.name.clone());
        if facts.last.as_ref() != Some(&server) {
            let (router, server) = (Arc::clone(self), server.clone());
            tokio::spawn(async move {
                let _ = router.store.set_last(jti, expires, &server).await;
            });
        }
        let on = message.method == "resources/subscribe";
        if !on && message.method != "resources/unsubscribe" {
            return;
        }
        let named = forward.edits.metadata.text.iter();
        let uri = named.clone().find(|(name, _)| *name == "resource");
        let Some(uri) = uri.map(|(_, uri)| uri.clone()) else {
            return;
        };
        let router = Arc::clone(self);
        tokio::spawn(async move {
            let _ = router.store.subscribe(jti, expires, (server, uri), on).await;
            router.opener.watchers.touch(jti);
        });
    }

    /// The number under which a call will be kept, noted in its context, and the session that it belongs to. `None` for what
    /// is not repeated: large ones, those that are a repetition already, and those on a backend session of their own, which
    /// was opened for them just now.
    pub fn will_keep(&self, head: &Head, (forward, size): (&mut Forward, usize)) -> Option<(u64, Uuid)> {
        let mark = head.get(header::REPLAY).unwrap_or_default();
        let repeats = seal::open::<Uuid>(&self.keys, REPLAY_PURPOSE, mark);
        let own = forward.once.is_some();
        let context = forward.repeatable().filter(|_| size <= MAX_BODY && !own)?;
        if repeats == Some(context.jti) {
            return None;
        }
        let number = self.kept.number();
        context.kept = Some(number);
        Some((number, context.jti))
    }

    /// What is to be kept until the reply to a forwarded call is over, when the client has no session and the server has.
    pub fn lease(&self, head: &Head, forward: &Forward) -> Option<Lease> {
        let bridge = forward.reply.as_ref().and_then(|plan| plan.bridge.as_ref())?;
        let leased = Leased {
            id: bridge.mapped.clone()?,
            once: forward.once.as_ref().map(|claims| claims.jti),
            server: Arc::clone(&forward.server),
            backend: forward.backend.clone(),
            headers: forwarded(&head.fields),
        };
        Some(self.opener.lease(leased))
    }

    /// Notes links of a server's reply, before the client can follow them. One that cannot be noted is one that nobody follows.
    pub async fn note_links(&self, (jti, expires): (Uuid, u64), server: &str, uris: &[String]) {
        if !uris.is_empty() {
            let _ = self.store.add_links(jti, expires, (server, uris)).await;
        }
    }

    /// Counts the questions of a server in a piece of a reply, and sends the answers that the gateway gives itself.
    pub fn relayed(self: &Arc<Self>, to: &ServerLeg, (rewritten, stream): (&mut Rewritten, &mut OnStream)) {
        rewritten.relayed.iter().for_each(|relayed| stream.note(relayed));
        for kind in &rewritten.refused {
            self.asked.refused(kind, Answered::Denied);
        }
        for body in rewritten.replies.drain(..) {
            self.answer_server(to, body);
        }
    }

    /// A client answered a question of a server; one that another replica asked is counted there.
    pub fn client_answered(self: &Arc<Self>, message: &Message<'_>) {
        let id = message.id.and_then(|id| serde_json::from_str::<String>(id).ok());
        let Some(tag) = id.as_deref().map(tag) else { return };
        let good = Object::read(message.text).is_some_and(|object| object.get("error").is_none());
        if !self.asked.answered(tag, good) && self.store.is_shared() {
            let pipeline = Arc::clone(self);
            tokio::spawn(async move { pipeline.store.tell(SessionEvent::Answered(tag, good)).await });
        }
    }

    /// Sends an answer of the gateway to a request that a server made on the stream of a reply.
    fn answer_server(self: &Arc<Self>, to: &ServerLeg, body: String) {
        let Ok(permit) = Arc::clone(&self.answers).try_acquire_owned() else {
            return;
        };
        let (router, to) = (Arc::clone(self), to.clone());
        tokio::spawn(async move {
            router
                .opener
                .relay((&to.server, &to.backend), to.headers, ("response", body))
                .await;
            drop(permit);
        });
    }

    /// The headers of our own requests on behalf of this client. A sensitive `authorization` is the person's token for
    /// the server itself: it passes the guard.
    fn carried(&self, head: &Head, facts: &Facts) -> HeaderMap {
        let mut headers = forwarded(&head.fields);
        if let Some(token) = &facts.user_token
            && let Ok(mut value) = HeaderValue::from_str(token.expose())
        {
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        headers
    }

    /// Looks for the token anew, past what this replica remembers; without one, makes an entry of the token page.
    async fn user_token(
        &self,
        claims: &SessionClaims,
        server: &ServerConfig,
        facts: &mut Facts,
    ) -> Result<(), FactError> {
        let refused = |error| FactError::Refused(store_refusal(error));
        let record = self.store.record(claims.jti).await.map_err(refused)?;
        let sealed = record.tokens.get(&server.name);
        facts.user_token =
            sealed.and_then(|sealed| vault::open(&self.keys, claims.jti, &server.name, sealed, clock::now()));
        if facts.user_token.is_some() {
            // The backend session that is known may be the former person's.
            facts.backend = facts.backend.take().filter(|_| facts.whose == Some(claims.jti));
            facts.whose = Some(claims.jti);
        } else {
            let entry = Entry::new(claims, &server.name);
            let text = serde_json::to_string(&entry).map_err(|_| refused(StoreError::Unavailable))?;
            let id = Uuid::new_v4();
            self.store.put_elicitation(id, text).await.map_err(refused)?;
            facts.elicitation = Some(id);
        }
        Ok(())
    }

    /// Fetches one fact.
    ///
    /// # Errors
    /// [`FactError`] with what the client is answered.
    pub async fn fetch(&self, need: Need, head: &Head, facts: &mut Facts) -> Result<(), FactError> {
        match need {
            Need::Facts(claims, server) => {
                let found = self.store.facts(claims.jti, &server).await;
                let found = found.map_err(|error| FactError::Refused(store_refusal(error)))?;
                facts.revoked = Some(found.revoked);
                facts.backend = found.backend;
                facts.level = found.level;
                facts.last = found.last;
                facts.user_token = found
                    .token
                    .and_then(|sealed| vault::open(&self.keys, claims.jti, &server, &sealed, clock::now()));
                (facts.asked, facts.whose) = (Some(server), Some(claims.jti));
                Ok(())
            }
            Need::Backend(claims, server) => {
                let started = std::time::Instant::now();
                let opened = self
                    .opener
                    .open(&claims, &server, self.carried(head, facts), self.open_deadline)
                    .await;
                self.metrics
                    .sessions
                    .backend_init(&server.name, opened.is_ok(), started.elapsed());
                facts.backend = Some(opened.map_err(open_refusal)?);
                Ok(())
            }
            Need::UserLists(behalf) => {
                let (catalog, headers) = (self.published.load(), forwarded(&head.fields));
                let lists = self.user_lists.fetch(&catalog, &behalf, &headers);
                let own = timeout(self.open_deadline, lists).await.unwrap_or_default();
                facts.own = Some(own);
                Ok(())
            }
            Need::Link(claims, uri) => {
                let found = self.store.link(claims.jti, &uri).await;
                facts.link = Some(found.map_err(|error| FactError::Refused(store_refusal(error)))?);
                Ok(())
            }
            Need::UserToken(claims, server) => self.user_token(&claims, &server, facts).await,
        }
    }
}

fn store_refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable => {
            Refusal::new(503, INTERNAL, "session store unavailable", "store").retry_after(1)
        }
        StoreError::Full => busy(),
    }
}

fn busy() -> Refusal {
    Refusal::new(503, INTERNAL, "busy", "busy").retry_after(1)
}

fn open_refusal(error: OpenError) -> FactError {
    let refusal = match error {
        OpenError::Policy(failure) => return FactError::Policy(failure),
        OpenError::Refused(_) => {
            Refusal::new(502, INTERNAL, "MCP server refused the session", "backend_refused")
        }
        OpenError::Unavailable(_) | OpenError::NoRoute => {
            Refusal::new(502, INTERNAL, "MCP server unavailable", "backend_unavailable")
        }
        OpenError::Late => Refusal::new(
            504,
            INTERNAL,
            "MCP server is still starting a session, call again",
            "backend_late",
        ),
        OpenError::Ended => crate::decision::message::session_not_found(),
        OpenError::Store(error) => store_refusal(error),
        OpenError::Busy => busy(),
    };
    FactError::Refused(refusal)
}

/// An answer that refuses a message with this id.
pub fn refused(refusal: Refusal, id: Option<&str>, session: Option<&str>) -> Answer {
    Answer {
        refusal,
        id: id.map(str::to_owned),
        session: session.map(str::to_owned),
        rule: String::new(),
    }
}
