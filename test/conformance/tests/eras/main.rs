//! Clients of each revision against servers of each kind, through Envoy and through the broker's own front: every cell of
//! the table works, or fails as it is written down (docs/guides/revisions.md). They need an Envoy (`kit build envoy`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests; JSON is looked into by index, and the table is for people"
)]

mod client;

use client::{Client, DEADLINE, accepted};
use mcp_gateway_conformance::fixture::{EraChoice, Kind, Options};
use mcp_gateway_conformance::harness::gateway::{Behind, Front, Gateway};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const REVISIONS: [&str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
const SERVERS: [(EraChoice, &str); 3] = [
    (EraChoice::Legacy, "sessions"),
    (EraChoice::Modern, "stateless"),
    (EraChoice::Dual, "both"),
];
const OPERATIONS: [&str; 9] = [
    "list", "call", "get", "read", "error", "progress", "cancel", "change", "ask",
];

/// A cell: it works, or it fails as documented.
type Cell = Result<&'static str, String>;
const WORKS: Cell = Ok("ok");
const DOCUMENTED: Cell = Ok("documented");

fn behind(name: &str, prefix: &str, era: EraChoice) -> Behind {
    Behind {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        options: Options {
            era,
            ..Options::default()
        },
    }
}

struct Case<'a> {
    gateway: &'a Gateway,
    client: Client,
    server: EraChoice,
    way: Front,
}

fn expect(condition: bool, what: impl std::fmt::Debug) -> Cell {
    if condition {
        WORKS
    } else {
        Err(format!("{what:?}"))
    }
}

impl Case<'_> {
    /// Client and server share no era.
    fn is_bridged(&self) -> bool {
        match self.server {
            EraChoice::Dual => false,
            EraChoice::Legacy => self.client.is_stateless(),
            EraChoice::Modern => !self.client.is_stateless(),
        }
    }

    async fn run(&self, operation: &str) -> Cell {
        match operation {
            "list" => self.list().await,
            "call" => {
                let reply = self.client.call("test_simple_text", json!({})).await;
                expect(self.is_result(reply.result()) && !reply.text().is_empty(), reply)
            }
            "get" => {
                let reply = self
                    .client
                    .request("prompts/get", json!({"name": "test_simple_prompt"}))
                    .await;
                expect(
                    self.is_result(reply.result()) && reply.result()["messages"].is_array(),
                    reply,
                )
            }
            "read" => {
                let reply = self
                    .client
                    .request("resources/read", json!({"uri": "test://static-text"}))
                    .await;
                let hints = reply.result().get("ttlMs").is_some() == self.client.is_stateless();
                expect(
                    self.is_result(reply.result())
                        && hints
                        && reply.result()["contents"][0]["text"].is_string(),
                    reply,
                )
            }
            "error" => self.error().await,
            "progress" => self.progress().await,
            "cancel" => self.cancel().await,
            "change" => self.change().await,
            _ => self.ask().await,
        }
    }

    /// Every result has what its revision has, and nothing of the other (D68).
    fn is_result(&self, result: &Value) -> bool {
        let server = &result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"];
        if self.client.is_stateless() {
            result["resultType"] == "complete" && server == "Kuadrant MCP Gateway"
        } else {
            result.is_object()
                && ["resultType", "ttlMs", "cacheScope"]
                    .iter()
                    .all(|name| result.get(*name).is_none())
                && server.is_null()
        }
    }

    async fn list(&self) -> Cell {
        for (method, member) in [
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
        ] {
            let reply = self.client.request(method, json!({})).await;
            let hints = reply.result().get("ttlMs").is_some() && reply.result().get("cacheScope").is_some();
            let items = reply.result()[member].as_array().map_or(0, Vec::len);
            if !self.is_result(reply.result()) || hints != self.client.is_stateless() || items == 0 {
                return Err(format!("{reply:?}"));
            }
        }
        WORKS
    }

    async fn error(&self) -> Cell {
        let unknown = self.client.call("nope", json!({})).await;
        let failed = self.client.call("test_error_handling", json!({})).await;
        let missing = self
            .client
            .request("resources/read", json!({"uri": "test://none"}))
            .await;
        let good = unknown.answer()["error"]["code"] == -32602
            && unknown.answer()["id"] == 7
            && failed.result()["isError"] == true
            && (unknown.status, failed.status, missing.status) == (200, 200, 200)
            && missing.answer()["error"]["code"] == -32602;
        expect(good, (unknown, failed, missing))
    }

    async fn progress(&self) -> Cell {
        let params =
            json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "tok"}});
        let reply = self.client.request("tools/call", params).await;
        let seen = reply
            .messages
            .iter()
            .filter(|message| message["params"]["progressToken"] == "tok")
            .count();
        expect(
            seen >= 3 && self.is_result(reply.result()) && reply.answer()["id"] == 7,
            reply,
        )
    }

    async fn cancel(&self) -> Cell {
        let journal = self.gateway.seen_by("fixture").unwrap();
        journal.clear();
        let params = json!({"name": "test_sleep", "arguments": {"milliseconds": 60_000}, "_meta": {"progressToken": 1}});
        let call = tokio::spawn(self.client.send("tools/call", params, &json!("c")).send());
        let running = || {
            journal
                .entries()
                .iter()
                .any(|entry| entry.target.as_deref() == Some("test_sleep"))
        };
        eventually(running).await?;
        if self.client.is_stateless() {
            call.abort();
        } else {
            self.client
                .notify("notifications/cancelled", json!({"requestId": "c"}))
                .await;
        }
        if self.way == Front::Envoy && self.is_bridged() && !self.client.is_stateless() {
            // Nothing that the router can say ends a request that Envoy carries.
            call.abort();
            return DOCUMENTED;
        }
        let cancelled = || {
            journal
                .entries()
                .iter()
                .any(|entry| entry.kind == Kind::Cancelled)
        };
        let outcome = eventually(cancelled).await;
        call.abort();
        outcome
    }

    async fn change(&self) -> Cell {
        let mut notices = self.client.notices().await;
        let reply = self.client.call("test_trigger_tool_change", json!({})).await;
        if !self.is_result(reply.result()) {
            return Err(format!("{reply:?}"));
        }
        let notice = notices.next().await.ok_or("the stream ended")?;
        expect(notice["method"] == "notifications/tools/list_changed", notice)
    }

    async fn ask(&self) -> Cell {
        let arguments = json!({"message": "Who?"});
        let first = self.client.call("test_elicitation", arguments.clone()).await;
        if self.is_bridged() && (self.client.is_stateless() || self.way == Front::Envoy) {
            let said = first.text().contains("elicitation") && first.result()["isError"] == true;
            return if said {
                DOCUMENTED
            } else {
                Err(format!("{first:?}"))
            };
        }
        let last = if self.client.is_stateless() {
            let key = first.result()["inputRequests"]
                .as_object()
                .and_then(|map| map.keys().next().cloned());
            let key = key.ok_or(format!("{first:?}"))?;
            let mut params = json!({"name": "test_elicitation", "arguments": arguments, "inputResponses": {key: accepted()}});
            if let Some(state) = first.result().get("requestState") {
                params["requestState"] = state.clone();
            }
            self.client.request("tools/call", params).await
        } else {
            first
        };
        expect(
            self.is_result(last.result()) && last.text().contains("User response"),
            last,
        )
    }
}

async fn eventually(condition: impl Fn() -> bool) -> Cell {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() > end {
            return Err("it did not happen in time".to_owned());
        }
        sleep(Duration::from_millis(20)).await;
    }
    WORKS
}

async fn matrix(way: Front) {
    let mut failures = Vec::new();
    let mut table = format!("\n| through {way:?} | {} |\n", OPERATIONS.join(" | "));
    for (era, name) in SERVERS {
        let gateway = Gateway::start(way, vec![behind("fixture", "", era)], &[])
            .await
            .unwrap();
        for revision in REVISIONS {
            let case = Case {
                client: Client::connect(&gateway.url(), revision).await,
                gateway: &gateway,
                server: era,
                way,
            };
            let mut row = Vec::new();
            for operation in OPERATIONS {
                let cell = case.run(operation).await;
                row.push(cell.clone().unwrap_or("FAIL"));
                if let Err(why) = cell {
                    failures.push(format!("{revision} → {name}, {operation}: {why}"));
                }
            }
            writeln!(table, "| {revision} → {name} | {} |", row.join(" | ")).unwrap();
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d66_d68_every_client_works_with_every_server_through_envoy() {
    matrix(Front::Envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d66_d67_d68_every_client_works_with_every_server_through_the_front() {
    matrix(Front::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_all_revisions_see_the_same_names_and_the_status_names_eras() {
    let all = SERVERS.map(|(era, name)| behind(name, &format!("{name}_"), era));
    let gateway = Gateway::start(Front::Envoy, all.to_vec(), &[]).await.unwrap();
    let mut lists = Vec::new();
    for revision in REVISIONS {
        let client = Client::connect(&gateway.url(), revision).await;
        let mut names = Vec::new();
        for (method, member) in [
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
        ] {
            let reply = client.request(method, json!({})).await;
            let items = reply.result()[member].as_array().cloned().unwrap();
            let own = ["discover_tools", "select_tools"].map(Value::from);
            names.extend(
                items
                    .iter()
                    .map(|item| item["name"].clone())
                    .filter(|name| !own.contains(name)),
            );
        }
        assert!(names.len() > 60, "{revision}: {} items", names.len());
        lists.push(names);
        for (_, name) in SERVERS {
            let reply = client.call(&format!("{name}_test_simple_text"), json!({})).await;
            assert!(!reply.text().is_empty(), "{revision}: {reply:?}");
        }
    }
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]));
    let status = gateway.status().await.unwrap();
    let eras: Vec<_> = status["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| {
            (
                server["era"].as_str().unwrap(),
                server["protocolValidation"]["supportedVersion"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        eras,
        [
            ("legacy", "2025-11-25"),
            ("modern", "2026-07-28"),
            ("modern", "2026-07-28")
        ]
    );
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
