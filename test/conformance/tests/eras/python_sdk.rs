//! The cells of the Python SDK, which `python_sdk.py` runs. It offers the newest revision with sessions, or has none. The kit
//! fetches the SDK (`kit build python-mcp`); without it these cells are missing from the table, and a line says so.

use super::seat::{Cell, OPERATIONS, STATELESS, Seat, WORKS};
use mcp_gateway_conformance::harness::install::cached;
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Longest silence of the program: a cell has 20 s, and starting it takes a few.
const SILENCE: Duration = Duration::from_secs(60);
/// Revisions of the SDK, and how its client is told.
pub(crate) const MODES: [(&str, &str); 2] = [("2025-11-25", "legacy"), (STATELESS, STATELESS)];

#[derive(Deserialize)]
struct Line {
    place: usize,
    operation: String,
    failure: Option<String>,
}

/// Where the SDK is; nothing is said to have passed without it.
pub(crate) fn packages() -> Option<PathBuf> {
    let found = cached("python-mcp-", "site");
    if found.is_none() {
        println!("\nSKIPPED: no Python SDK in the cache (kit build python-mcp), its cells are missing\n");
    }
    found
}

/// The running program, and its lines.
struct Program {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(packages: &PathBuf, what: &str, mode: &str, places: &[String]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/eras/python_sdk.py");
        let mut child = Command::new("python3")
            .args([script, what, mode])
            .args(places)
            .env("PYTHONPATH", packages)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> Option<String> {
        let line = timeout(SILENCE, self.lines.next_line()).await;
        line.expect("the Python client is silent").unwrap()
    }

    async fn succeeded(&mut self) -> bool {
        let status = timeout(SILENCE, self.child.wait()).await;
        status.expect("the Python client does not end").unwrap().success()
    }
}

/// What a client of this mode sees of the lists, by name.
pub(crate) async fn names(packages: &PathBuf, mode: &str, url: String) -> Vec<String> {
    let mut program = Program::start(packages, "names", mode, &[url]);
    let line = program.next().await.expect("the Python client said nothing");
    assert!(program.succeeded().await);
    serde_json::from_str(&line).unwrap()
}

/// The rows of a client of this mode at each of the places.
pub(crate) async fn rows(packages: &PathBuf, mode: &str, seats: &[Seat<'_>]) -> Vec<Vec<Cell>> {
    let place = |seat: &Seat<'_>| {
        seat.forget();
        let refused = if seat.is_documented("ask") { "#ask" } else { "" };
        format!("{}{refused}", seat.gateway.url())
    };
    let places: Vec<String> = seats.iter().map(place).collect();
    let mut program = Program::start(packages, "cells", mode, &places);
    let mut rows = vec![vec![Err("the client did not get so far".to_owned()); OPERATIONS.len()]; seats.len()];
    while let Some(line) = program.next().await {
        let line: Line = serde_json::from_str(&line).unwrap();
        let seat = &seats[line.place];
        let cell = match (line.failure, line.operation.as_str()) {
            (Some(why), _) => Err(why),
            (None, "cancel") => seat.cancelled().await,
            (None, operation) if seat.is_documented(operation) => super::seat::DOCUMENTED,
            (None, _) => WORKS,
        };
        let position = OPERATIONS.iter().position(|one| *one == line.operation);
        rows[line.place][position.unwrap()] = cell;
    }
    assert!(program.succeeded().await, "the Python client failed: {rows:?}");
    rows
}
