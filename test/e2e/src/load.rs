//! Tool calls through Envoy while something else happens: by a client that keeps its session, by one that opens a new one
//! each time, or by both. Every call that fails is kept with its reason.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use mcp_gateway_kit::eventually;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{McpClient, Site};

/// Pace of each client: the machine has other work.
const PACE: Duration = Duration::from_millis(50);

/// Load that runs until [`Load::stop`].
#[derive(Debug)]
#[must_use = "calls that failed are known when it is stopped"]
pub struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    calls: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Counts {
    fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Calls `tool` (two numbers to be added) of `site` in one session, and in new ones.
    ///
    /// # Errors
    /// When the first sessions cannot be opened.
    pub async fn start(site: &Site, tool: &str) -> anyhow::Result<Self> {
        Self::of(site, tool, &[true, false]).await
    }

    /// Calls `tool` in a new session each time.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub async fn of_new_sessions(site: &Site, tool: &str) -> anyhow::Result<Self> {
        Self::of(site, tool, &[false, false]).await
    }

    async fn of(site: &Site, tool: &str, keep_session: &[bool]) -> anyhow::Result<Self> {
        site.give_up_idle_connections()?;
        let counts = Arc::<Counts>::default();
        let mut clients = JoinSet::new();
        for &keeps_session in keep_session {
            let mut client = site.client().await?;
            client.initialize().await?;
            clients.spawn(work(client, tool.to_owned(), keeps_session, Arc::clone(&counts)));
        }
        Ok(Self { counts, clients })
    }

    /// Waits until `more` further calls have come back.
    ///
    /// # Errors
    /// When they do not come back within a minute.
    pub async fn further(&self, more: usize) -> anyhow::Result<()> {
        let until = self.counts.calls.load(Ordering::Relaxed) + more;
        let enough = async || match self.counts.calls.load(Ordering::Relaxed) {
            calls if calls >= until => Ok(()),
            calls => Err(format!("{calls} calls")),
        };
        Ok(eventually(Duration::from_secs(60), "more calls", enough).await?)
    }

    /// Ends it, and returns how many calls were made.
    ///
    /// # Errors
    /// When a call failed.
    pub async fn stop(mut self) -> anyhow::Result<usize> {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client of the load panicked")?;
        }
        let calls = self.counts.calls.load(Ordering::Relaxed);
        let failures = self.counts.failures();
        ensure!(
            failures.is_empty(),
            "{} of {calls} calls failed: {}",
            failures.len(),
            failures.join("\n")
        );
        Ok(calls)
    }
}

async fn work(mut client: McpClient, tool: String, keeps_session: bool, counts: Arc<Counts>) {
    let mut pace = tokio::time::interval(PACE);
    while !counts.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        if let Err(error) = once(&mut client, &tool, keeps_session).await {
            counts
                .failures()
                .push(format!("keeps its session {keeps_session}: {error:#}"));
        }
        counts.calls.fetch_add(1, Ordering::Relaxed);
    }
}

async fn once(client: &mut McpClient, tool: &str, keeps_session: bool) -> anyhow::Result<()> {
    if !keeps_session {
        client.initialize().await?;
    }
    let result = client.call(tool, json!({"a": 19, "b": 23})).await?;
    ensure!(result["content"][0]["text"] == "42", "{result}");
    Ok(())
}
