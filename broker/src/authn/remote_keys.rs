//! Keys of an issuer that are fetched (operator.md 10.3): at once, then every refresh interval, and for an unknown `kid`
//! at most every 30 s. A failed fetch is repeated and keeps the last good set, for at most 24 h since it was fetched.

use super::Epoch;
use crate::auth::jwks::{KeySet, MAX_DOCUMENT};
use crate::transport::address::AddressPolicy;
use crate::transport::client::{ClientError, document_client};
use crate::transport::exchange::connect_error;
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::StreamExt as _;
use jiff::Timestamp;
use mcp_gateway_api::config::PolicyProvider;
use reqwest::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

/// One fetch.
const FETCH: Duration = Duration::from_secs(10);
/// Least time between fetches for unknown keys.
const UNKNOWN_KEY: Duration = Duration::from_secs(30);
/// While there are no keys it is tried this often.
const FIRST: Duration = Duration::from_secs(2);
/// While the last keys stand in for those that cannot be fetched, it is tried at least this often.
const RETRY: Duration = Duration::from_secs(30);
/// How long a request waits for a fetch that its token asks for.
const REQUEST_WAIT: Duration = Duration::from_secs(2);
/// How long a set is used without a successful fetch.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Refresh interval when the provider names none.
const REFRESH: Duration = Duration::from_secs(300);
/// Longest pause between two fetches: a provider may ask for one of [`KEPT`], and then no moment without keys is meant.
const LONGEST: Duration = Duration::from_secs(23 * 3600);

/// Why no fetch can be made.
#[derive(Debug, thiserror::Error)]
pub enum RemoteKeysError {
    /// The URL is not `https` (or, on this machine only, `http` to a loopback address).
    #[error("the key URL must be https")]
    Url,
    /// The URL names an address that no server may have (data-plane.md 6.4).
    #[error("address not allowed")]
    Address,
    /// The CA bundle is bad.
    #[error(transparent)]
    Client(#[from] ClientError),
}

struct Loaded {
    keys: Arc<KeySet>,
    text: String,
    at: Instant,
    /// `at` for people.
    time: Timestamp,
}

/// The keys behind one URL, kept fresh by a task that ends with the value.
pub struct RemoteKeys {
    shared: Arc<Shared>,
    /// As the provider spells it.
    url: String,
    ca: String,
    refresh: Duration,
    task: AbortHandle,
}

struct Shared {
    url: Url,
    client: Client,
    loaded: ArcSwapOption<Loaded>,
    error: ArcSwap<Option<String>>,
    epoch: Epoch,
    /// Time of the last fetch; held while one runs, so that requests wait for it and start no second one.
    last: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    /// Starts to fetch. The keys of `former` stay in use when they come from the same place.
    ///
    /// # Errors
    /// [`RemoteKeysError`] for a provider that can never be fetched.
    pub fn start(
        entry: &PolicyProvider,
        addresses: AddressPolicy,
        epoch: Epoch,
        former: Option<&Self>,
    ) -> Result<Arc<Self>, RemoteKeysError> {
        let url = Url::parse(&entry.jwks_url).map_err(|_| RemoteKeysError::Url)?;
        let literal = url.host_str().unwrap_or_default();
        let local = addresses == AddressPolicy::Unchecked && crate::protocol::host::is_loopback(literal);
        if url.scheme() != "https" && !local {
            return Err(RemoteKeysError::Url);
        }
        // A name is checked once it is resolved.
        let address = literal.trim_start_matches('[').trim_end_matches(']').parse();
        if address.is_ok_and(|address| !addresses.allows(literal, address)) {
            return Err(RemoteKeysError::Address);
        }
        let loaded = former.filter(|former| former.is_at(entry));
        let loaded = loaded.and_then(|former| former.shared.loaded.load_full());
        let client = document_client(&[&entry.jwks_ca_cert], addresses)?;
        let shared = Arc::new(Shared {
            url,
            client,
            loaded: ArcSwapOption::new(loaded),
            error: ArcSwap::default(),
            epoch,
            last: Mutex::const_new(None),
        });
        let refresh = interval(entry);
        let task = tokio::spawn(keep_fresh(Arc::clone(&shared), refresh)).abort_handle();
        Ok(Arc::new(Self {
            shared,
            url: entry.jwks_url.clone(),
            ca: entry.jwks_ca_cert.clone(),
            refresh,
            task,
        }))
    }

    /// True when the keys of this provider come from the same place.
    pub fn is_at(&self, entry: &PolicyProvider) -> bool {
        self.url == entry.jwks_url && self.ca == entry.jwks_ca_cert
    }

    /// True when they are also fetched as often.
    pub fn is_for(&self, entry: &PolicyProvider) -> bool {
        self.is_at(entry) && self.refresh == interval(entry)
    }

    /// The last good set, for as long as it may be used.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.shared.current()
    }

    /// What is wrong with the keys; nothing before the first fetch has ended.
    pub fn problem(&self) -> Option<String> {
        let why = self.shared.error.load().as_ref().clone()?;
        let loaded = self.shared.loaded.load();
        let Some(loaded) = loaded.as_ref() else {
            return Some(format!("were never loaded: {why}"));
        };
        let until = loaded.time.saturating_add(KEPT).unwrap_or(loaded.time);
        let (time, until) = (whole_seconds(loaded.time), whole_seconds(until));
        Some(if loaded.is_usable() {
            format!("are still those fetched at {time}, which are used until {until} at the latest: {why}")
        } else {
            format!("were last fetched at {time} and are not used since {until}: {why}")
        })
    }

    /// Fetches for a token whose key is not known, unless that was just done; waits a moment for a running fetch.
    pub async fn refresh(&self) {
        let shared = &self.shared;
        let attempt = async {
            let last = shared.last.lock().await;
            let pause = if shared.current().is_some() {
                UNKNOWN_KEY
            } else {
                FIRST
            };
            if last.is_none_or(|last| last.elapsed() >= pause) {
                shared.fetch(last).await;
            }
        };
        let _ = timeout(REQUEST_WAIT, attempt).await;
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn interval(entry: &PolicyProvider) -> Duration {
    entry
        .refresh_interval_seconds
        .map_or(REFRESH, |seconds| Duration::from_secs(u64::from(seconds)))
}

async fn keep_fresh(shared: Arc<Shared>, refresh: Duration) {
    let mut usable = shared.current().is_some();
    loop {
        let last = shared.last.lock().await;
        shared.fetch(last).await;
        usable = shared.still_usable(usable);
        sleep(shared.pause(refresh)).await;
        usable = shared.still_usable(usable);
    }
}

impl Loaded {
    fn is_usable(&self) -> bool {
        self.at.elapsed() < KEPT
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

impl Shared {
    fn current(&self) -> Option<Arc<KeySet>> {
        let loaded = self.loaded.load();
        let loaded = loaded.as_ref().filter(|loaded| loaded.is_usable())?;
        Some(Arc::clone(&loaded.keys))
    }

    /// Whether there are keys; what was verified with keys that are past their bound is forgotten with them.
    fn still_usable(&self, before: bool) -> bool {
        let usable = self.current().is_some();
        if before && !usable {
            self.epoch.advance();
        }
        usable
    }

    /// Time until the next fetch, or until the keys are past their bound.
    fn pause(&self, refresh: Duration) -> Duration {
        let loaded = self.loaded.load();
        let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.is_usable()) else {
            return FIRST;
        };
        let longest = if self.error.load().as_ref().is_some() {
            RETRY
        } else {
            LONGEST
        };
        refresh.min(longest).min(KEPT.saturating_sub(loaded.at.elapsed()))
    }

    async fn fetch(&self, mut last: MutexGuard<'_, Option<Instant>>) {
        let fetched = timeout(FETCH, self.document()).await;
        *last = Some(Instant::now());
        let keys = match fetched {
            Err(_) => Err("no answer within 10 s".to_owned()),
            Ok(Err(why)) => Err(why),
            Ok(Ok(text)) => KeySet::parse(&text)
                .map(|keys| (keys, text))
                .map_err(|error| format!("the document {error}")),
        };
        match keys {
            Ok((keys, text)) => {
                let before = self.loaded.load();
                let same = before.as_ref().is_some_and(|before| before.text == text);
                self.loaded.store(Some(Arc::new(Loaded {
                    keys: Arc::new(keys),
                    text,
                    at: Instant::now(),
                    time: Timestamp::now(),
                })));
                self.error.store(Arc::default());
                if !same {
                    self.epoch.advance();
                }
            }
            Err(why) => {
                tracing::warn!(
                    component = "authn",
                    host = self.url.host_str(),
                    error = why,
                    "Keys not fetched"
                );
                self.error.store(Arc::new(Some(why)));
            }
        }
    }

    async fn document(&self) -> Result<String, String> {
        let request = self
            .client
            .get(self.url.clone())
            .header("accept", "application/json");
        let reply = request
            .send()
            .await
            .map_err(|error| connect_error(&error).to_string())?;
        if !reply.status().is_success() {
            return Err(format!("answered {}", reply.status().as_u16()));
        }
        let mut bytes = Vec::new();
        let mut chunks = reply.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| "broke off".to_owned())?);
            if bytes.len() > MAX_DOCUMENT {
                return Err("the document is too large".to_owned());
            }
        }
        String::from_utf8(bytes).map_err(|_| "the document is no text".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{JWK, key_server};
    use super::*;

    #[tokio::test]
    async fn the_last_keys_are_used_for_24_hours_after_their_fetch_and_not_a_moment_longer() {
        let document = Arc::new(ArcSwap::from_pointee(JWK.to_owned()));
        let (url, _server) = key_server(Arc::clone(&document)).await;
        let entry = PolicyProvider {
            jwks_url: url,
            ..PolicyProvider::default()
        };
        let epoch = Epoch::default();
        let remote = RemoteKeys::start(&entry, AddressPolicy::Unchecked, epoch.clone(), None).unwrap();
        remote.refresh().await;
        assert!(remote.current().is_some() && remote.problem().is_none());
        document.store(Arc::default());

        tokio::time::pause();
        let bound = remote.shared.loaded.load().as_ref().unwrap().at + KEPT;
        let moment = Duration::from_millis(1);
        tokio::time::advance(bound - moment - Instant::now()).await;
        assert!(remote.current().is_some(), "a moment before the bound");
        until("a failed fetch", || remote.problem().is_some()).await;
        let problem = remote.problem().unwrap();
        assert!(problem.starts_with("are still those fetched at "), "{problem}");
        assert!(problem.ends_with(" at the latest: answered 503"), "{problem}");

        let before = epoch.now();
        tokio::time::advance(moment).await;
        assert!(remote.current().is_none(), "at the bound");
        tokio::time::advance(moment).await;
        until("verified identities to be forgotten", || epoch.now() != before).await;
        let problem = remote.problem().unwrap();
        assert!(problem.contains(" and are not used since "), "{problem}");
    }

    /// Waits without letting the paused clock go on.
    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "not within 20 s: {what}");
            tokio::task::yield_now().await;
        }
    }
}
