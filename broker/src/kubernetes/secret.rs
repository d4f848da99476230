//! List and watch of one Secret with the pod's service account. The mounted file stays the fallback, so every failure
//! here is only reported as a lost watch and tried again.

use crate::config::sources::WatchEvent;
use crate::transport::client::{ClientError, cluster_client};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use mcp_gateway_api::names::CONFIG_KEY;
use rand::Rng as _;
use reqwest::{Client, Response};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const REQUEST: Duration = Duration::from_secs(10);
/// The API server ends a watch after this time; it is then continued.
const WATCH_SECONDS: u32 = 240;
/// Bookmarks come about once a minute: a watch that is silent for longer is taken as lost.
const IDLE: Duration = Duration::from_secs(150);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest line of a watch, bytes: a Secret has at most 1 MiB.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// Where the API server is and who we are.
#[derive(Clone, Debug)]
pub struct ClusterAccess {
    /// Scheme, host and port.
    pub base: String,
    /// Folder with `token` and `ca.crt`.
    pub account: PathBuf,
}

/// Why a step failed. Texts hold no token and no data.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("read service account token: {0}")]
    Token(std::io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer from the API server")]
    Connect,
    #[error("API server answered {0}")]
    Status(u16),
    #[error("answer not understood")]
    Malformed,
    #[error("watch expired")]
    Expired,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Secret {
    metadata: SecretMeta,
    data: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SecretMeta {
    resource_version: String,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: serde_json::Value,
}

struct Watcher {
    access: ClusterAccess,
    path: String,
    events: mpsc::Sender<WatchEvent>,
}

/// Watches until the receiver of `events` is gone.
pub async fn watch(
    access: ClusterAccess,
    (namespace, name): (String, String),
    events: mpsc::Sender<WatchEvent>,
) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets?fieldSelector=metadata.name%3D{name}");
    let watcher = Watcher { access, path, events };
    let mut pause = FIRST_PAUSE;
    let mut reported = false;
    while !watcher.events.is_closed() {
        match watcher.list_and_watch(&mut pause).await {
            // What ends at once again and again is not asked without a pause either.
            Err(StepError::Expired) | Ok(()) => {
                reported = false;
                sleep(FIRST_PAUSE).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    tracing::warn!(component = "config", %error, "Watch of the config Secret failed; the mounted file is the fallback");
                }
                let _ = watcher.events.send(WatchEvent::Lost).await;
                let jitter = rand::rng().random_range(0.0..0.1);
                sleep(pause.mul_f64(1.0 + jitter)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Watcher {
    async fn client(&self) -> Result<Client, StepError> {
        let ca = tokio::fs::read_to_string(self.access.account.join("ca.crt"))
            .await
            .unwrap_or_default();
        Ok(cluster_client(&ca)?)
    }

    async fn get(&self, client: &Client, query: &str) -> Result<Response, StepError> {
        // Tokens are rotated in place: each request reads the newest.
        let token = tokio::fs::read_to_string(self.access.account.join("token"))
            .await
            .map_err(StepError::Token)?;
        let request = client
            .get(format!("{}{}{query}", self.access.base, self.path))
            .bearer_auth(token.trim());
        let response = timeout(REQUEST, request.send())
            .await
            .map_err(|_| StepError::Connect)?
            .map_err(|_| StepError::Connect)?;
        match response.status().as_u16() {
            200 => Ok(response),
            410 => Err(StepError::Expired),
            status => Err(StepError::Status(status)),
        }
    }

    async fn list_and_watch(&self, pause: &mut Duration) -> Result<(), StepError> {
        let client = self.client().await?;
        let response = self.get(&client, "").await?;
        let body = timeout(REQUEST, response.bytes())
            .await
            .map_err(|_| StepError::Connect)?
            .map_err(|_| StepError::Connect)?;
        let list: List = serde_json::from_slice(&body).map_err(|_| StepError::Malformed)?;
        self.tell(list.items.first()).await;
        *pause = FIRST_PAUSE;
        let mut version = list.metadata.resource_version;
        loop {
            let query = format!(
                "&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
            );
            let begun = Instant::now();
            let response = self.get(&client, &query).await?;
            self.follow(response, &mut version).await?;
            if self.events.is_closed() {
                return Ok(());
            }
            sleep_until(begun + FIRST_PAUSE).await;
        }
    }

    /// Reads events until the API server ends the watch, which is normal.
    async fn follow(&self, response: Response, version: &mut String) -> Result<(), StepError> {
        let mut stream = response.bytes_stream();
        let mut line = Vec::new();
        loop {
            let piece = tokio::select! {
                () = self.events.closed() => return Ok(()),
                piece = timeout(IDLE, stream.next()) => piece,
            };
            let piece = match piece {
                Err(_) | Ok(Some(Err(_))) => return Err(StepError::Connect),
                Ok(None) => return Ok(()),
                Ok(Some(Ok(piece))) => piece,
            };
            for byte in piece {
                if byte != b'\n' {
                    if line.len() >= MAX_LINE {
                        return Err(StepError::Malformed);
                    }
                    line.push(byte);
                    continue;
                }
                self.event(&std::mem::take(&mut line), version).await?;
            }
        }
    }

    async fn event(&self, line: &[u8], version: &mut String) -> Result<(), StepError> {
        let event: Event = serde_json::from_slice(line).map_err(|_| StepError::Malformed)?;
        if event.r#type == "ERROR" {
            let code = event.object.get("code").and_then(serde_json::Value::as_u64);
            return Err(match code.and_then(|code| u16::try_from(code).ok()) {
                Some(410) => StepError::Expired,
                code => StepError::Status(code.unwrap_or_default()),
            });
        }
        let secret = Secret::deserialize(event.object).map_err(|_| StepError::Malformed)?;
        version.clone_from(&secret.metadata.resource_version);
        match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => self.tell(Some(&secret)).await,
            "DELETED" => self.tell(None).await,
            _ => {}
        }
        Ok(())
    }

    async fn tell(&self, secret: Option<&Secret>) {
        let document = secret
            .and_then(|secret| secret.data.get(CONFIG_KEY))
            .and_then(|text| STANDARD.decode(text).ok());
        let _ = self
            .events
            .send(document.map_or(WatchEvent::Missing, WatchEvent::Document))
            .await;
    }
}
