//! Pushes layouts to a registry (OCI distribution specification 1.1): blobs that are not there yet, then manifests by digest,
//! then the tag.

use std::{fs, path::Path, time::Duration};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, header};
use serde_json::Value;

use crate::image::digest;

/// How long one request may take; layers are some ten MiB.
const DEADLINE: Duration = Duration::from_secs(300);

/// Why a layout could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The layout on disk is not complete or not well-formed.
    #[error("layout {path}: {reason}")]
    Layout {
        /// File of the layout.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A request could not be sent or answered.
    #[error("{step}: {source}")]
    Request {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// The registry refused.
    #[error("{step}: the registry answered {status}: {answer}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Its status.
        status: StatusCode,
        /// The first part of its answer.
        answer: String,
    },
}

/// Where to push and as whom.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    base: Url,
    repository: String,
    login: Option<(String, String)>,
}

impl Registry {
    /// `host[:port]/path`, by https; by http when `plain`.
    ///
    /// # Errors
    /// When it is no address.
    pub fn new(address: &str, plain: bool, login: Option<(String, String)>) -> Result<Self, PushError> {
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let scheme = if plain { "http" } else { "https" };
        let layout = |reason: String| PushError::Layout {
            path: address.to_owned(),
            reason,
        };
        let base =
            Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| layout(error.to_string()))?;
        let client = Client::builder().timeout(DEADLINE).build();
        let client = client.map_err(|source| PushError::Request {
            step: "make a client",
            source,
        })?;
        Ok(Self {
            client,
            base,
            repository: path.trim_end_matches('/').to_owned(),
            login,
        })
    }

    /// Pushes the layout `folder`, whose name is that of the image; returns `name:tag`.
    ///
    /// # Errors
    /// When the layout is broken or the registry refuses.
    pub async fn push(&self, folder: &Path) -> Result<String, PushError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}/{name}", self.repository)
            .trim_start_matches('/')
            .to_owned();
        let session = Session {
            registry: self,
            token: self.token(&name).await?,
            name,
        };
        let top: Value = json(
            &fs::read(folder.join("index.json")).map_err(|error| broken(folder, &error))?,
            folder,
        )?;
        let mut tagged = String::new();
        for descriptor in top
            .get("manifests")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let tag = descriptor
                .pointer("/annotations/org.opencontainers.image.ref.name")
                .and_then(Value::as_str);
            session.manifest(folder, descriptor, tag).await?;
            if let Some(tag) = tag {
                tagged = format!("{}:{tag}", session.name);
            }
        }
        Ok(tagged)
    }

    /// The token that the registry's challenge asks for; none for registries without one.
    async fn token(&self, name: &str) -> Result<Option<String>, PushError> {
        const STEP: &str = "ask how to log in";
        let answer = send(STEP, self.client.get(self.base.clone())).await?;
        let challenge = answer
            .headers()
            .get(header::WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok());
        let Some(challenge) = challenge.and_then(|text| text.strip_prefix("Bearer ")) else {
            return Ok(None);
        };
        let value = |key: &str| {
            challenge
                .split(',')
                .find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('='))
                .map(|text| text.trim_matches('"'))
        };
        let scope = format!("repository:{name}:pull,push");
        let mut realm =
            Url::parse(value("realm").unwrap_or_default()).map_err(|error| PushError::Layout {
                path: challenge.to_owned(),
                reason: error.to_string(),
            })?;
        realm
            .query_pairs_mut()
            .append_pair("service", value("service").unwrap_or_default())
            .append_pair("scope", &scope);
        let mut request = self.client.get(realm);
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let answer = accepted("log in", send("log in", request).await?).await?;
        let answer = answer.bytes().await.map_err(|source| PushError::Request {
            step: "log in",
            source,
        })?;
        let answer: Value = json(&answer, Path::new("token"))?;
        let token = answer
            .get("token")
            .or_else(|| answer.get("access_token"))
            .and_then(Value::as_str);
        Ok(token.map(str::to_owned))
    }
}

struct Session<'a> {
    registry: &'a Registry,
    token: Option<String>,
    name: String,
}

impl Session<'_> {
    /// A manifest or index, after everything that it refers to.
    async fn manifest(&self, folder: &Path, descriptor: &Value, tag: Option<&str>) -> Result<(), PushError> {
        let (digest, bytes) = blob(folder, descriptor)?;
        let manifest: Value = json(&bytes, folder)?;
        for inner in manifest
            .get("manifests")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            Box::pin(self.manifest(folder, inner, None)).await?;
        }
        let layers = manifest
            .get("layers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for inner in manifest.get("config").into_iter().chain(layers) {
            self.blob(folder, inner).await?;
        }
        const STEP: &str = "push a manifest";
        let media_type = descriptor
            .get("mediaType")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for reference in [Some(digest.as_str()), tag].into_iter().flatten() {
            let request = self.request(Method::PUT, &self.url("manifests", reference)?);
            let request = request
                .header(header::CONTENT_TYPE, media_type)
                .body(bytes.clone());
            accepted(STEP, send(STEP, request).await?).await?;
        }
        Ok(())
    }

    async fn blob(&self, folder: &Path, descriptor: &Value) -> Result<(), PushError> {
        const STEP: &str = "push a blob";
        let (digest, bytes) = blob(folder, descriptor)?;
        let present = send(STEP, self.request(Method::HEAD, &self.url("blobs", &digest)?)).await?;
        if present.status().is_success() {
            return Ok(());
        }
        let begun = send(STEP, self.request(Method::POST, &self.url("blobs", "uploads/")?)).await?;
        let begun = accepted(STEP, begun).await?;
        let location = begun
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let location = begun.url().join(location);
        let mut location = location.map_err(|error| PushError::Layout {
            path: digest.clone(),
            reason: error.to_string(),
        })?;
        location.query_pairs_mut().append_pair("digest", &digest);
        let request = self
            .request(Method::PUT, &location)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        accepted(STEP, send(STEP, request).await?).await.map(drop)
    }

    fn url(&self, kind: &str, reference: &str) -> Result<Url, PushError> {
        let path = format!("{}/{kind}/{reference}", self.name);
        self.registry.base.join(&path).map_err(|error| PushError::Layout {
            path,
            reason: error.to_string(),
        })
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.registry.client.request(method, url.clone());
        match (&self.token, &self.registry.login) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        }
    }
}

async fn send(step: &'static str, request: RequestBuilder) -> Result<Response, PushError> {
    request
        .send()
        .await
        .map_err(|source| PushError::Request { step, source })
}

async fn accepted(step: &'static str, answer: Response) -> Result<Response, PushError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let answer: String = answer
        .text()
        .await
        .unwrap_or_default()
        .chars()
        .take(500)
        .collect();
    Err(PushError::Refused { step, status, answer })
}

/// The bytes that a descriptor stands for, checked against its digest.
fn blob(folder: &Path, descriptor: &Value) -> Result<(String, Vec<u8>), PushError> {
    let named = descriptor
        .get("digest")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let path = folder
        .join("blobs/sha256")
        .join(named.trim_start_matches("sha256:"));
    let bytes = fs::read(&path).map_err(|error| broken(&path, &error))?;
    if digest(&bytes) == named {
        Ok((named, bytes))
    } else {
        Err(broken(&path, &"its bytes have another digest"))
    }
}

fn json(bytes: &[u8], path: &Path) -> Result<Value, PushError> {
    serde_json::from_slice(bytes).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> PushError {
    PushError::Layout {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}
