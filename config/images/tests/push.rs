//! Pushing to a small registry in this process, which refuses what the distribution specification lets it refuse.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use mcp_gateway_images::{
    contents::{self, Texts},
    image::{Image, digest},
    layout::Published,
    registry::Registry,
};
use serde_json::Value;

#[derive(Clone, Default)]
struct Stored {
    blobs: Arc<Mutex<BTreeSet<String>>>,
    manifests: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

/// Takes a manifest only when everything that it refers to is there, as registries do.
fn manifest(stored: &Stored, reference: &str, body: &Bytes) -> StatusCode {
    let manifest: Value = serde_json::from_slice(body).unwrap();
    let text = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
    let blobs = stored.blobs.lock().unwrap();
    let mut manifests = stored.manifests.lock().unwrap();
    let complete = list("layers")
        .iter()
        .chain(manifest.get("config"))
        .all(|one| blobs.contains(&text(one)))
        && list("manifests")
            .iter()
            .all(|one| manifests.contains_key(&text(one)));
    if !complete {
        return StatusCode::NOT_FOUND;
    }
    manifests.insert(reference.to_owned(), body.to_vec());
    StatusCode::CREATED
}

async fn answer(State(stored): State<Stored>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    if path == "/token" {
        let expected = parts
            .headers
            .get("authorization")
            .is_some_and(|value| value == "Basic dXNlcjpwYXNz");
        return if expected {
            r#"{"token": "t"}"#.into_response()
        } else {
            StatusCode::FORBIDDEN.into_response()
        };
    }
    if parts
        .headers
        .get("authorization")
        .is_none_or(|value| value != "Bearer t")
    {
        let host = parts.headers["host"].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    }
    let reference = path.rsplit('/').next().unwrap().to_owned();
    match parts.method {
        Method::HEAD if stored.blobs.lock().unwrap().contains(&reference) => StatusCode::OK.into_response(),
        Method::HEAD => StatusCode::NOT_FOUND.into_response(),
        Method::POST => (StatusCode::ACCEPTED, [("location", "/v2/upload/1?state=x")]).into_response(),
        Method::PUT if path == "/v2/upload/1" => {
            let named = format!("state=x&digest={}", digest(&body).replace(':', "%3A"));
            assert_eq!(parts.uri.query(), Some(named.as_str()));
            stored.blobs.lock().unwrap().insert(digest(&body));
            StatusCode::CREATED.into_response()
        }
        Method::PUT => manifest(&stored, &reference, &body).into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn registry(stored: &Stored) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(stored.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

#[tokio::test]
async fn a_pushed_image_can_be_had_by_tag_and_by_the_digest_of_the_bundle_with_its_sbom() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = Texts::from([("manifests/a.yaml".to_owned(), "a: b\n".to_owned())]);
    let bundle = contents::bundle("1.0.0", &files, &[], 0).unwrap();
    let subject = bundle.images.first().unwrap().manifest.clone();
    let sbom = Image::referrer(&subject, "application/vnd.cyclonedx+json", b"{}".to_vec());
    let published = Published {
        referrers: vec![sbom.clone()],
        ..bundle
    };
    let folder = tempfile::tempdir().unwrap();
    let layout = published.write(folder.path()).unwrap();

    let stored = Stored::default();
    let address = registry(&stored).await;
    let login = Some(("user".to_owned(), "pass".to_owned()));
    let registry = Registry::new(&format!("{address}/team"), true, login).unwrap();
    assert_eq!(registry.push(&layout).await.unwrap(), "team/bundle:1.0.0");
    registry.push(&layout).await.unwrap();

    let manifests = stored.manifests.lock().unwrap();
    assert_eq!(manifests.get("1.0.0"), manifests.get(&published.digest()));
    assert!(manifests.contains_key(&sbom.manifest.digest()));
}

#[tokio::test]
async fn a_wrong_password_and_a_damaged_layout_are_errors() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = Texts::from([("manifests/a.yaml".to_owned(), "a: b\n".to_owned())]);
    let folder = tempfile::tempdir().unwrap();
    let published = contents::bundle("1.0.0", &files, &[], 0).unwrap();
    let layout = published.write(folder.path()).unwrap();
    let stored = Stored::default();
    let address = registry(&stored).await;
    let wrong = Registry::new(&address, true, Some(("user".to_owned(), "no".to_owned()))).unwrap();
    assert!(wrong.push(&layout).await.unwrap_err().to_string().contains("403"));

    let blob = published.images.first().unwrap().manifest.digest();
    std::fs::write(
        layout
            .join("blobs/sha256")
            .join(blob.trim_start_matches("sha256:")),
        "{}",
    )
    .unwrap();
    let right = Registry::new(&address, true, Some(("user".to_owned(), "pass".to_owned()))).unwrap();
    assert!(
        right
            .push(&layout)
            .await
            .unwrap_err()
            .to_string()
            .contains("another digest")
    );
}
