//! The part of a kubelet's API that the API server proxies for `kubectl logs`: whole logs, `tailLines` and `follow`.
//! Unlike a kubelet it asks for no client certificate: nothing outside the sandbox reaches it, and logs are no secret there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use futures::stream;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use crate::command::last_lines;
use crate::state_dir::StateDir;

/// The port of the kubelet API.
pub(crate) const PORT: u16 = 10250;
const FOLLOW_POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogOptions {
    follow: bool,
    tail_lines: Option<usize>,
}

/// Serves until the runtime ends.
pub(crate) async fn serve(state: StateDir) -> std::io::Result<()> {
    let pki = state.pki();
    let tls = RustlsConfig::from_pem_file(pki.join("kubelet.crt"), pki.join("kubelet.key")).await?;
    let address = SocketAddr::from(([0, 0, 0, 0], PORT));
    axum_server::bind_rustls(address, tls)
        .serve(router(state).into_make_service())
        .await
}

fn router(state: StateDir) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .with_state(state)
}

async fn logs(
    State(state): State<StateDir>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(options): Query<LogOptions>,
) -> Response {
    let file = state.pod_log(&namespace, &pod, &container);
    let Ok(text) = tokio::fs::read(&file).await else {
        return (
            StatusCode::NOT_FOUND,
            format!("container {container:?} of pod {pod:?} has no log yet\n"),
        )
            .into_response();
    };
    let seen = text.len() as u64;
    let shown = match options.tail_lines {
        Some(count) => {
            let mut tail = last_lines(&String::from_utf8_lossy(&text), count);
            if !tail.is_empty() {
                tail.push('\n');
            }
            Bytes::from(tail)
        }
        None => Bytes::from(text),
    };
    if !options.follow {
        return shown.into_response();
    }
    Body::from_stream(follow(file, shown, seen)).into_response()
}

/// First what is there, then what comes, until the reader goes away.
fn follow(file: PathBuf, shown: Bytes, seen: u64) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::unfold((Some(shown), seen), move |(first, seen)| {
        let file = file.clone();
        async move {
            if let Some(first) = first {
                return Some((Ok(first), (None, seen)));
            }
            loop {
                match after(&file, seen).await {
                    Ok(bytes) if bytes.is_empty() => tokio::time::sleep(FOLLOW_POLL).await,
                    Ok(bytes) => {
                        let seen = seen + bytes.len() as u64;
                        return Some((Ok(bytes), (None, seen)));
                    }
                    Err(error) => return Some((Err(error), (None, seen))),
                }
            }
        }
    })
}

async fn after(file: &PathBuf, seen: u64) -> std::io::Result<Bytes> {
    use tokio::io::AsyncSeekExt as _;
    let mut file = tokio::fs::File::open(file).await?;
    file.seek(std::io::SeekFrom::Start(seen)).await?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}
