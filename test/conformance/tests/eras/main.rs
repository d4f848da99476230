//! Clients of each revision against servers of each revision, through Envoy and through the broker's own front: every cell of
//! the table works, or fails as it is written down (docs/guides/revisions.md). They need an Envoy (`kit build envoy`) and the
//! SDK for Python (`kit build python-mcp`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests; JSON is looked into by index, and the table is for people"
)]

mod client;
mod python_sdk;
mod raw;
mod rust_sdk;
mod seat;
mod updates;

use client::Client;
use futures::future::join_all;
use mcp_gateway_conformance::fixture::Options;
use mcp_gateway_conformance::harness::gateway::{Behind, Front, Gateway};
use raw::Raw;
use rust_sdk::RustSdk;
use seat::{Cell, DEADLINE, OPERATIONS, REVISIONS, SERVERS, STATELESS, Seat, Server};
use serde_json::{Value, json};
use std::fmt::Write as _;
use tokio::time::timeout;

/// One client at one server, and how each operation went.
struct Row {
    client: String,
    server: &'static str,
    cells: Vec<Cell>,
}

/// Runs the operations one after the other, each with its deadline.
async fn cells(run: impl AsyncFn(&'static str) -> Cell) -> Vec<Cell> {
    let mut cells = Vec::new();
    for operation in OPERATIONS {
        let outcome = timeout(DEADLINE * 2, run(operation)).await;
        cells.push(outcome.unwrap_or_else(|_| Err("no end".to_owned())));
    }
    cells
}

/// The rows of the clients in this process.
async fn rows(gateway: &Gateway, server: Server, way: Front) -> Vec<Row> {
    let mut rows = Vec::new();
    for revision in REVISIONS {
        let seat = Seat {
            gateway,
            server,
            way,
            revision,
        };
        let raw = Raw::connect(&seat).await;
        let rust = RustSdk::connect(&seat).await;
        let raw = cells(async |operation| raw.run(operation).await).await;
        let rust = cells(async |operation| rust.run(operation).await).await;
        rows.extend([("raw", raw), ("rmcp", rust)].map(|(name, cells)| Row {
            client: format!("{name} {revision}"),
            server: server.name,
            cells,
        }));
    }
    rows
}

/// All rows through one way, those of one client beside each other.
async fn all_rows(way: Front) -> Vec<Row> {
    let gateways = SERVERS.map(|server| async move {
        let behind = server.behind("fixture", "");
        (server, Gateway::start(way, vec![behind], &[]).await.unwrap())
    });
    let gateways = join_all(gateways).await;
    let running = gateways
        .iter()
        .map(|(server, gateway)| rows(gateway, *server, way));
    let mut all: Vec<Row> = join_all(running).await.into_iter().flatten().collect();
    if let Some(packages) = python_sdk::packages() {
        for (revision, mode) in python_sdk::MODES {
            let seats: Vec<Seat<'_>> = gateways
                .iter()
                .map(|(server, gateway)| Seat {
                    gateway,
                    server: *server,
                    way,
                    revision,
                })
                .collect();
            let rows = python_sdk::rows(&packages, mode, &seats).await;
            all.extend(rows.into_iter().zip(SERVERS).map(|(cells, server)| Row {
                client: format!("Python {revision}"),
                server: server.name,
                cells,
            }));
        }
    }
    all.sort_by(|one, other| one.client.cmp(&other.client));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d66_d67_d68_every_client_works_with_every_server() {
    let envoy = all_rows(Front::Envoy).await;
    let front = all_rows(Front::Direct).await;
    let mut failures = Vec::new();
    let title = OPERATIONS.join(" | ");
    let mut table = format!("\n| client → server (through Envoy / the broker's front) | {title} |\n");
    for (envoy, front) in envoy.iter().zip(&front) {
        let name = format!("{} → {}", envoy.client, envoy.server);
        assert_eq!((&envoy.client, envoy.server), (&front.client, front.server));
        let mut words = Vec::new();
        for (position, operation) in OPERATIONS.into_iter().enumerate() {
            let word = |row: &Row| row.cells[position].clone().unwrap_or("FAIL");
            let (one, other) = (word(envoy), word(front));
            words.push(if one == other {
                one.to_owned()
            } else {
                format!("{one} / {other}")
            });
            for (way, row) in [("Envoy", envoy), ("front", front)] {
                if let Err(why) = &row.cells[position] {
                    failures.push(format!("{name} ({way}), {operation}: {why}"));
                }
            }
        }
        writeln!(table, "| {name} | {} |", words.join(" | ")).unwrap();
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the client without an SDK sees of the lists, by name, without the gateway's own tools.
async fn raw_names(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    for (method, member) in [
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
    ] {
        let reply = client.request(method, json!({})).await;
        let items = reply.result()[member].as_array().cloned().unwrap();
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_server_of_each_revision_every_client_sees_the_same_names() {
    let prefix = |server: Server| format!("{}_", server.name.replace('-', "_"));
    let all = SERVERS.map(|server| server.behind(&format!("s{}", server.name), &prefix(server)));
    let gateway = Gateway::start(Front::Envoy, all.to_vec(), &[]).await.unwrap();
    let mut lists = Vec::new();
    for revision in REVISIONS {
        let seat = Seat {
            gateway: &gateway,
            server: SERVERS[0],
            way: Front::Envoy,
            revision,
        };
        let client = Client::connect(&gateway.url(), revision).await;
        lists.push((format!("raw {revision}"), raw_names(&client).await));
        let names = RustSdk::connect(&seat).await.names().await;
        lists.push((format!("rmcp {revision}"), names));
        for server in SERVERS {
            let reply = client
                .call(&format!("{}test_simple_text", prefix(server)), json!({}))
                .await;
            assert!(!reply.text().is_empty(), "{revision}: {reply:?}");
        }
    }
    if let Some(packages) = python_sdk::packages() {
        for (revision, mode) in python_sdk::MODES {
            let names = python_sdk::names(&packages, mode, gateway.url()).await;
            lists.push((format!("Python {revision}"), names));
        }
    }
    for (_, names) in &mut lists {
        names.retain(|name| name != "discover_tools" && name != "select_tools");
    }
    let (_, expected) = lists[0].clone();
    assert!(expected.len() > 100, "{} items", expected.len());
    for (client, names) in &lists {
        assert_eq!(*names, expected, "{client}");
    }
    let status = gateway.status().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |server: &Value| {
        (
            text(&server["era"]),
            text(&server["protocolValidation"]["supportedVersion"]),
        )
    };
    let eras: Vec<_> = status["servers"].as_array().unwrap().iter().map(of).collect();
    let expected = ["2025-03-26", "2025-06-18", "2025-11-25", STATELESS, STATELESS].map(|revision| {
        let era = if revision == STATELESS { "modern" } else { "legacy" };
        (era.to_owned(), revision.to_owned())
    });
    assert_eq!(eras, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d65_d69_discovery_names_all_versions_and_a_foreign_name_reaches_no_server() {
    let gateway = Gateway::start(Front::Envoy, vec![Behind::only(Options::default())], &[])
        .await
        .unwrap();
    let client = Client::connect(&gateway.url(), "2026-07-28").await;
    let found = client.request("server/discover", json!({})).await;
    assert_eq!(
        found.result()["supportedVersions"],
        json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"])
    );
    let journal = gateway.seen_by("fixture").unwrap();
    journal.clear();
    let params = json!({"name": "test_simple_text", "arguments": {}});
    let mut request = client.send("tools/call", params, &json!(7)).build().unwrap();
    request
        .headers_mut()
        .insert("mcp-name", "test_error_handling".parse().unwrap());
    let response = reqwest::Client::new().execute(request).await.unwrap();
    assert_eq!(response.status(), 400);
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!((&body["error"]["code"], &body["id"]), (&json!(-32020), &json!(7)));
    assert!(journal.entries().iter().all(|entry| entry.method != "tools/call"));
}
