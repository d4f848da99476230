//! The chart as it is pushed, taken by the real Helm from a registry that is a handful of lines.

use std::{collections::BTreeMap, fs, path::Path};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use mcp_gateway_images::{
    chart::artifact,
    contents::Texts,
    image::{Blob, Image, digest},
};
use mcp_gateway_ship::helm::{EITHER, root};
use serde_json::Value;

const NAME: &str = "charts/mcp-gateway";

/// What is at each path of the registry.
type Shelf = BTreeMap<String, Blob>;

fn files(folder: &Path, below: &str, texts: &mut Texts) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{below}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            files(&path, &format!("{name}/"), texts);
        } else {
            texts.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn chart() -> (String, Image) {
    let mut texts = Texts::new();
    files(&root().join(NAME), "", &mut texts);
    let definition: BTreeMap<String, Value> =
        serde_saphyr::from_str(texts.get("Chart.yaml").unwrap()).unwrap();
    let version = definition
        .get("version")
        .and_then(Value::as_str)
        .unwrap()
        .to_owned();
    (version, artifact("mcp-gateway", &definition, &texts, 7).unwrap())
}

async fn answer(State(shelf): State<Shelf>, uri: Uri) -> Response {
    let Some(blob) = shelf.get(uri.path()) else {
        let status = if uri.path() == "/v2/" {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        return status.into_response();
    };
    let headers: HeaderMap = [
        (CONTENT_TYPE, blob.media_type.parse().unwrap()),
        (
            HeaderName::from_static("docker-content-digest"),
            digest(&blob.bytes).parse().unwrap(),
        ),
    ]
    .into_iter()
    .collect();
    (headers, blob.bytes.clone()).into_response()
}

/// Serves the chart; the address.
async fn registry(version: &str, chart: Image) -> String {
    let mut shelf = Shelf::new();
    for reference in [version.to_owned(), digest(&chart.manifest.bytes)] {
        shelf.insert(
            format!("/v2/{NAME}/manifests/{reference}"),
            chart.manifest.clone(),
        );
    }
    for blob in chart.blobs {
        shelf.insert(format!("/v2/{NAME}/blobs/{}", digest(&blob.bytes)), blob);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(shelf);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_takes_the_pushed_chart_from_a_registry_by_the_command_of_the_guide() {
    let (version, chart) = chart();
    let address = registry(&version, chart).await;
    for helm in EITHER {
        let render = |from: &[&str]| {
            let mut words = vec!["template", "mcp-gateway", "--namespace", "mcp-system"];
            words.extend(["--kube-version", "1.36.0", "--include-crds"]);
            words.extend(from);
            helm.output(&words).unwrap()
        };
        let pulled = format!("oci://{address}/{NAME}");
        assert_eq!(
            render(&[&pulled, "--version", &version, "--plain-http"]),
            render(&[NAME]),
            "{helm:?}"
        );
    }
}
