//! Keys of an issuer that are fetched (operator.md 10.3): at once, then every refresh interval, and for an unknown `kid`
//! at most every 30 s. A failed fetch keeps the last good set for 24 h.

use super::Epoch;
use crate::auth::jwks::{KeySet, MAX_DOCUMENT};
use crate::transport::address::AddressPolicy;
use crate::transport::client::{ClientError, document_client};
use arc_swap::{ArcSwap, ArcSwapOption};
use futures::StreamExt as _;
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
/// Until the first success it is tried this often.
const FIRST: Duration = Duration::from_secs(2);
/// How long a request waits for a fetch that its token asks for.
const REQUEST_WAIT: Duration = Duration::from_secs(2);
/// How long a set is used without a successful fetch.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Refresh interval when the provider names none.
const REFRESH: Duration = Duration::from_secs(300);

/// Why no fetch can be made.
#[derive(Debug, thiserror::Error)]
pub enum RemoteKeysError {
    /// The URL is not `https` (or, on this machine only, `http` to a loopback address).
    #[error("the key URL must be https")]
    Url,
    /// The CA bundle is bad.
    #[error(transparent)]
    Client(#[from] ClientError),
}

struct Loaded {
    keys: Arc<KeySet>,
    text: String,
    at: Instant,
}

/// The keys behind one URL, kept fresh by a task that ends with the value.
pub struct RemoteKeys {
    shared: Arc<Shared>,
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
    /// Starts to fetch.
    ///
    /// # Errors
    /// [`RemoteKeysError`] for a provider that can never be fetched.
    pub fn start(
        entry: &PolicyProvider,
        addresses: AddressPolicy,
        epoch: Epoch,
    ) -> Result<Arc<Self>, RemoteKeysError> {
        let url = Url::parse(&entry.jwks_url).map_err(|_| RemoteKeysError::Url)?;
        let literal = url.host_str().unwrap_or_default();
        let local = addresses == AddressPolicy::Unchecked && crate::protocol::host::is_loopback(literal);
        if url.scheme() != "https" && !local {
            return Err(RemoteKeysError::Url);
        }
        let client = document_client(&[&entry.jwks_ca_cert], addresses)?;
        let shared = Arc::new(Shared {
            url,
            client,
            loaded: ArcSwapOption::empty(),
            error: ArcSwap::default(),
            epoch,
            last: Mutex::const_new(None),
        });
        let refresh = interval(entry);
        let task = tokio::spawn(keep_fresh(Arc::clone(&shared), refresh)).abort_handle();
        Ok(Arc::new(Self {
            shared,
            ca: entry.jwks_ca_cert.clone(),
            refresh,
            task,
        }))
    }

    /// True when this provider is fetched the same way.
    pub fn is_for(&self, entry: &PolicyProvider) -> bool {
        self.shared.url.as_str() == entry.jwks_url
            && self.ca == entry.jwks_ca_cert
            && self.refresh == interval(entry)
    }

    /// The last good set, for as long as it may be used.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        let loaded = self.shared.loaded.load();
        let loaded = loaded.as_ref().filter(|loaded| loaded.at.elapsed() < KEPT)?;
        Some(Arc::clone(&loaded.keys))
    }

    /// Why the last fetch failed.
    pub fn last_error(&self) -> Option<String> {
        self.shared.error.load().as_ref().clone()
    }

    /// Fetches for a token whose key is not known, unless that was just done; waits a moment for a running fetch.
    pub async fn refresh(&self) {
        let shared = &self.shared;
        let attempt = async {
            let last = shared.last.lock().await;
            let pause = if shared.loaded.load().is_some() {
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
    loop {
        let last = shared.last.lock().await;
        shared.fetch(last).await;
        let loaded = shared.loaded.load().is_some();
        sleep(if loaded { refresh } else { FIRST }).await;
    }
}

impl Shared {
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
        let reply = request.send().await.map_err(|_| "cannot be reached".to_owned())?;
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
