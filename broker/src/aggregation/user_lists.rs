//! Lists of servers that show every caller something of its own (data-plane.md 5.6): fetched on the caller's own backend
//! sessions, kept for half a minute, and merged behind the shared names of a catalog.

use super::catalog::Catalog;
use super::offer::entry_of;
use super::table::{Entry, Table};
use crate::auth::clock;
use crate::auth::keys::Keys;
use crate::auth::pool::Behalf;
use crate::auth::session::SessionClaims;
use crate::auth::vault;
use crate::config::model::ServerConfig;
use crate::protocol::version::Era;
use crate::sessions::opener::Opener;
use crate::sessions::store::{BackendSession, SessionStore};
use crate::transport::exchange::{Answer, ExchangeError};
use crate::upstreams::items::{ItemKind, Items};
use crate::upstreams::listing::{self, Asker, ListError};
use futures::future::join_all;
use http::{HeaderMap, HeaderValue};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Longest fetch from one server.
const FETCH: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(30);
/// Lists kept at once.
const MAX_KEPT: usize = 50_000;
/// All of them together, bytes; what finds no room is fetched again.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// What one server lists for one caller.
pub struct UserItems {
    server: String,
    items: Items,
    /// What they take, about.
    bytes: usize,
}

/// All that is listed for one caller.
pub type Own = Arc<Vec<Arc<UserItems>>>;

/// One kind each, by published name.
pub struct PerCaller {
    tables: [Table; 4],
}

/// Lists by session and server, and until when.
#[derive(Default)]
struct Kept {
    lists: HashMap<(Uuid, String), (Instant, Arc<UserItems>)>,
    bytes: usize,
}

impl Kept {
    /// Keeps a list where there is room.
    fn insert(&mut self, key: (Uuid, String), (end, items): (Instant, Arc<UserItems>)) {
        if let Some((_, earlier)) = self.lists.remove(&key) {
            self.bytes = self.bytes.saturating_sub(earlier.bytes);
        }
        if self.lists.len() >= MAX_KEPT || self.bytes + items.bytes > MAX_BYTES {
            let now = Instant::now();
            self.retain(|_, end| end > now);
        }
        if self.lists.len() < MAX_KEPT && self.bytes + items.bytes <= MAX_BYTES {
            self.bytes += items.bytes;
            self.lists.insert(key, (end, items));
        }
    }

    fn retain(&mut self, stays: impl Fn(&(Uuid, String), Instant) -> bool) {
        let bytes = &mut self.bytes;
        self.lists.retain(|key, (end, items)| {
            let stays = stays(key, *end);
            if !stays {
                *bytes = bytes.saturating_sub(items.bytes);
            }
            stays
        });
    }
}

/// Fetches and keeps.
pub struct UserLists {
    opener: Arc<Opener>,
    store: Arc<SessionStore>,
    keys: Arc<Keys>,
    kept: Mutex<Kept>,
}

struct OfSession<'a> {
    opener: &'a Opener,
    server: &'a ServerConfig,
    backend: BackendSession,
    headers: HeaderMap,
}

impl Asker for OfSession<'_> {
    async fn ask(&self, kind: ItemKind, params: &str) -> Result<Answer, ExchangeError> {
        let to = (self.server, &self.backend);
        self.opener
            .ask(to, &self.headers, (kind.list_method(), params))
            .await
    }
}

/// True when a server of this catalog lists per caller.
pub fn wanted(catalog: &Catalog) -> bool {
    servers(catalog).next().is_some()
}

fn servers(catalog: &Catalog) -> impl Iterator<Item = &Arc<ServerConfig>> {
    let configs = catalog.servers.iter().map(|server| &server.config);
    configs.filter(|config| config.enabled && config.user_specific_list)
}

/// The sessions that a server may have been asked on for this caller.
fn sessions<'b>(server: &ServerConfig, behalf: &'b Behalf) -> &'b [SessionClaims] {
    if server.token_url_elicitation.is_some() {
        &behalf.tokens
    } else {
        std::slice::from_ref(&behalf.session)
    }
}

impl UserLists {
    /// Over an opener of backend sessions, and the store with the callers' tokens.
    pub fn new(opener: Arc<Opener>, store: Arc<SessionStore>, keys: Arc<Keys>) -> Self {
        Self {
            opener,
            store,
            keys,
            kept: Mutex::default(),
        }
    }

    /// What the servers list for this caller; servers in parallel, a failing one is left out. `headers` are those that the
    /// caller's hairpin requests carry.
    pub async fn fetch(&self, catalog: &Catalog, behalf: &Behalf, headers: &HeaderMap) -> Own {
        let lists = servers(catalog).map(async |config| {
            let mut sessions = sessions(config, behalf).iter();
            if let Some(kept) = sessions.find_map(|claims| self.kept(claims.jti, &config.name)) {
                return Some(kept);
            }
            let era = Era::of(&behalf.session.ver);
            let stateless = catalog
                .server(&config.name)
                .is_some_and(|server| server.snapshot.era_for(era) == Era::Modern);
            match timeout(FETCH, self.of_server((config, stateless), behalf, headers)).await {
                Ok(Ok((jti, items))) => Some(self.keep(jti, config, items)),
                Ok(Err(error)) => {
                    tracing::info!(
                        component = "broker",
                        server = config.name,
                        error,
                        "List of a caller not fetched"
                    );
                    None
                }
                Err(_) => {
                    tracing::info!(
                        component = "broker",
                        server = config.name,
                        "List of a caller timed out"
                    );
                    None
                }
            }
        });
        Arc::new(join_all(lists).await.into_iter().flatten().collect())
    }

    async fn of_server(
        &self,
        (server, stateless): (&Arc<ServerConfig>, bool),
        behalf: &Behalf,
        headers: &HeaderMap,
    ) -> Result<(Uuid, Items), String> {
        let (claims, headers) = self.on_behalf(server, behalf, headers.clone()).await?;
        let backend = if stateless {
            BackendSession::stateless()
        } else {
            let opened = self.opener.open(claims, server, headers.clone(), FETCH).await;
            opened.map_err(|error| error.to_string())?
        };
        let session = OfSession {
            opener: &self.opener,
            server,
            backend,
            headers,
        };
        let mut items = Items::default();
        for kind in ItemKind::ALL {
            match listing::pages(kind, &session).await {
                Ok(mut list) => {
                    if stateless {
                        list.refuse_unusable();
                    }
                    *items.of_mut(kind) = list;
                }
                // A server need not know every kind.
                Err(ListError::Page(ExchangeError::Rpc(_))) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok((claims.jti, items))
    }

    /// The session that the server is asked on, and the headers of these requests: with the caller's own token for the server,
    /// when it wants one.
    async fn on_behalf<'b>(
        &self,
        server: &ServerConfig,
        behalf: &'b Behalf,
        mut headers: HeaderMap,
    ) -> Result<(&'b SessionClaims, HeaderMap), String> {
        if server.token_url_elicitation.is_none() {
            return Ok((&behalf.session, headers));
        }
        for claims in &behalf.tokens {
            let record = self.store.record(claims.jti).await;
            let record = record.map_err(|error| error.to_string())?;
            let sealed = record.tokens.get(&server.name);
            let token = sealed
                .and_then(|sealed| vault::open(&self.keys, claims.jti, &server.name, sealed, clock::now()));
            if let Some(token) = token {
                let value = HeaderValue::from_str(token.expose());
                let mut value = value.map_err(|_| "token is no header value")?;
                value.set_sensitive(true);
                headers.insert("authorization", value);
                return Ok((claims, headers));
            }
        }
        Err("no token of the caller".to_owned())
    }

    fn kept(&self, jti: Uuid, server: &str) -> Option<Arc<UserItems>> {
        let kept = self.kept.lock().ok()?;
        let (end, items) = kept.lists.get(&(jti, server.to_owned()))?;
        (*end > Instant::now()).then(|| Arc::clone(items))
    }

    fn keep(&self, jti: Uuid, server: &ServerConfig, items: Items) -> Arc<UserItems> {
        let bytes = items.bytes();
        let items = Arc::new(UserItems {
            server: server.name.clone(),
            items,
            bytes,
        });
        if let Ok(mut kept) = self.kept.lock() {
            let list = (Instant::now() + LIFE, Arc::clone(&items));
            kept.insert((jti, server.name.clone()), list);
        }
        items
    }

    /// Drops what is too old.
    pub fn sweep(&self) {
        let now = Instant::now();
        if let Ok(mut kept) = self.kept.lock() {
            kept.retain(|_, end| end > now);
            kept.lists.shrink_to_fit();
        }
    }

    /// Drops what a session was listed, for its next list is another one.
    pub fn forget(&self, jti: Uuid) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.retain(|(session, _), _| *session != jti);
        }
    }
}

impl PerCaller {
    /// Names of the caller's own lists that no shared item has; of two servers the one that the catalog names first.
    /// Nothing when nothing is listed for the caller alone.
    pub fn merge(catalog: &Catalog, own: &Own) -> Option<Self> {
        if own.is_empty() {
            return None;
        }
        let tables = ItemKind::ALL.map(|kind| {
            let mut entries: BTreeMap<Arc<str>, Arc<Entry>> = BTreeMap::new();
            for (at, server) in catalog.servers.iter().enumerate() {
                let lists = own.iter().filter(|list| list.server == server.config.name);
                let items = lists.flat_map(|list| &list.items.of(kind).items);
                for entry in items.filter_map(|item| entry_of(kind, item, (&server.config, at))) {
                    if catalog.table(kind).get(&entry.published).is_none() {
                        let name = Arc::clone(&entry.published);
                        entries.entry(name).or_insert_with(|| Arc::new(entry));
                    }
                }
            }
            Table::of(entries.into_values())
        });
        Some(Self { tables })
    }

    /// The table of one kind.
    pub fn table(&self, kind: ItemKind) -> &Table {
        let [tools, prompts, resources, templates] = &self.tables;
        match kind {
            ItemKind::Tool => tools,
            ItemKind::Prompt => prompts,
            ItemKind::Resource => resources,
            ItemKind::Template => templates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: usize) -> (Instant, Arc<UserItems>) {
        let items = UserItems {
            server: "a".to_owned(),
            items: Items::default(),
            bytes,
        };
        (Instant::now() + LIFE, Arc::new(items))
    }

    #[tokio::test(start_paused = true)]
    async fn s23_what_is_kept_of_lists_has_a_bound_in_bytes() {
        let mut kept = Kept::default();
        let session = Uuid::new_v4();
        let key = |server: &str| (session, server.to_owned());
        kept.insert(key("a"), list(MAX_BYTES));
        kept.insert(key("b"), list(1));
        assert!(!kept.lists.contains_key(&key("b")), "no room");
        kept.insert(key("a"), list(MAX_BYTES - 1));
        kept.insert(key("b"), list(1));
        assert_eq!((kept.lists.len(), kept.bytes), (2, MAX_BYTES));
        tokio::time::advance(LIFE).await;
        kept.insert(key("c"), list(7));
        assert_eq!((kept.lists.len(), kept.bytes), (1, 7), "the old ones made room");
    }
}
