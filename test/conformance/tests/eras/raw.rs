//! The cells of the client without an SDK.

use super::client::{Client, accepted};
use super::seat::{Cell, Seat, WORKS, expect};
use serde_json::{Value, json};

/// A client at its place.
pub(crate) struct Raw<'a> {
    pub(crate) seat: &'a Seat<'a>,
    client: Client,
}

impl<'a> Raw<'a> {
    pub(crate) async fn connect(seat: &'a Seat<'a>) -> Self {
        let client = Client::connect(&seat.gateway.url(), seat.revision).await;
        Self { seat, client }
    }

    pub(crate) async fn run(&self, operation: &str) -> Cell {
        match operation {
            "list" => self.list().await,
            "call" => {
                let reply = self.client.call("test_simple_text", json!({})).await;
                expect(self.is_result(reply.result()) && !reply.text().is_empty(), reply)
            }
            "get" => {
                let params = json!({"name": "test_simple_prompt"});
                let reply = self.client.request("prompts/get", params).await;
                let good = self.is_result(reply.result()) && reply.result()["messages"].is_array();
                expect(good, reply)
            }
            "read" => {
                let params = json!({"uri": "test://static-text"});
                let reply = self.client.request("resources/read", params).await;
                let hints = reply.result().get("ttlMs").is_some() == self.client.is_stateless();
                let text = reply.result()["contents"][0]["text"].is_string();
                expect(self.is_result(reply.result()) && hints && text, reply)
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
        let params = json!({"uri": "test://none"});
        let missing = self.client.request("resources/read", params).await;
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
        let of_call = |message: &&Value| message["params"]["progressToken"] == "tok";
        let seen = reply.messages.iter().filter(of_call).count();
        let good = seen >= 3 && self.is_result(reply.result()) && reply.answer()["id"] == 7;
        expect(good, reply)
    }

    async fn cancel(&self) -> Cell {
        self.seat.forget();
        let params = json!({"name": "test_sleep", "arguments": {"milliseconds": 60_000}, "_meta": {"progressToken": 1}});
        let call = tokio::spawn(self.client.send("tools/call", params, &json!("c")).send());
        self.seat.running().await?;
        if self.client.is_stateless() {
            call.abort();
            // A reply that has begun is in the task's outcome: it closes with that.
            drop(call);
            return self.seat.cancelled().await;
        }
        let params = json!({"requestId": "c"});
        self.client.notify("notifications/cancelled", params).await;
        let outcome = self.seat.cancelled().await;
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
        let rounds = self.client.is_stateless() && !self.seat.is_documented("ask");
        let last = if rounds {
            let requests = first.result()["inputRequests"].as_object();
            let key = requests.and_then(|map| map.keys().next().cloned());
            let key = key.ok_or(format!("{first:?}"))?;
            let mut params = json!({"name": "test_elicitation", "arguments": arguments, "inputResponses": {key: accepted()}});
            if let Some(state) = first.result().get("requestState") {
                params["requestState"] = state.clone();
            }
            self.client.request("tools/call", params).await
        } else {
            first
        };
        if !self.is_result(last.result()) {
            return Err(format!("{last:?}"));
        }
        self.seat.asked(last.text(), last.result()["isError"] == true)
    }
}
