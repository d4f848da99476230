//! The cells of the Rust SDK. With sessions it offers the revision that it is told to, without them there is one.

use super::client::accepted;
use super::seat::{Cell, DEADLINE, Seat, WORKS, eventually, expect};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationCapability, GetPromptRequestParams,
    Implementation, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
    SubscriptionFilter,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions, RequestContext,
    RoleClient, RunningService, ServiceError,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Who answers, and what was heard.
struct Person {
    revision: ProtocolVersion,
    progress: Mutex<Vec<f64>>,
    changed: Notify,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("rmcp", "1"))
            .with_protocol_version(self.revision.clone())
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(accepted()["content"].clone()))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.lock().unwrap().push(params.progress);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

/// A client at its place.
pub(crate) struct RustSdk<'a> {
    seat: &'a Seat<'a>,
    client: RunningService<RoleClient, Person>,
}

fn calling(tool: &'static str, arguments: &Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(arguments.as_object().cloned().unwrap_or_default())
}

fn said(error: &ServiceError) -> String {
    error.to_string()
}

/// Text of the first content, and whether the result says that the call failed.
fn outcome(result: &CallToolResult) -> (String, bool) {
    let result = serde_json::to_value(result).unwrap();
    let text = result["content"][0]["text"].as_str().unwrap_or_default();
    (text.to_owned(), result["isError"] == true)
}

fn is_invalid<T>(outcome: &Result<T, ServiceError>) -> bool {
    matches!(outcome, Err(ServiceError::McpError(error)) if error.code.0 == -32602)
}

impl<'a> RustSdk<'a> {
    pub(crate) async fn connect(seat: &'a Seat<'a>) -> Self {
        let revision: ProtocolVersion = serde_json::from_value(json!(seat.revision)).unwrap();
        let mode = if seat.is_stateless() {
            ClientLifecycleMode::Discover {
                preferred_versions: vec![revision.clone()],
            }
        } else {
            ClientLifecycleMode::Initialize
        };
        let person = Person {
            revision,
            progress: Mutex::default(),
            changed: Notify::new(),
        };
        let transport = StreamableHttpClientTransport::from_uri(seat.gateway.url());
        let opening = person.serve_with_lifecycle(transport, mode);
        let client = timeout(DEADLINE, opening).await.expect("no session").unwrap();
        Self { seat, client }
    }

    /// What it sees of lists, by name.
    pub(crate) async fn names(&self) -> Vec<String> {
        let tools = self.client.list_all_tools().await.unwrap();
        let prompts = self.client.list_all_prompts().await.unwrap();
        let resources = self.client.list_all_resources().await.unwrap();
        let tools = tools.iter().map(|tool| tool.name.to_string());
        let prompts = prompts.iter().map(|prompt| prompt.name.clone());
        let resources = resources.iter().map(|resource| resource.name.clone());
        tools.chain(prompts).chain(resources).collect()
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> Result<(String, bool), String> {
        let result = self.client.call_tool(calling(tool, &arguments)).await;
        result
            .map(|result| outcome(&result))
            .map_err(|error| said(&error))
    }

    pub(crate) async fn run(&self, operation: &str) -> Cell {
        match operation {
            "list" => expect(self.names().await.len() > 10, "few items"),
            "call" => {
                let (text, failed) = self.call("test_simple_text", json!({})).await?;
                expect(!text.is_empty() && !failed, text)
            }
            "get" => {
                let params = GetPromptRequestParams::new("test_simple_prompt");
                let result = self.client.get_prompt(params).await;
                let result = result.map_err(|error| said(&error))?;
                expect(!result.messages.is_empty(), result)
            }
            "read" => {
                let params = ReadResourceRequestParams::new("test://static-text");
                let result = self.client.read_resource(params).await;
                let result = result.map_err(|error| said(&error))?;
                expect(!result.contents.is_empty(), result)
            }
            "error" => self.error().await,
            "progress" => self.progress().await,
            "cancel" => self.cancel().await,
            "change" => self.change().await,
            _ => {
                let (text, failed) = self.call("test_elicitation", json!({"message": "Who?"})).await?;
                self.seat.asked(&text, failed)
            }
        }
    }

    async fn error(&self) -> Cell {
        let unknown = self.client.call_tool(calling("nope", &json!({}))).await;
        let (_, failed) = self.call("test_error_handling", json!({})).await?;
        let params = ReadResourceRequestParams::new("test://none");
        let missing = self.client.read_resource(params).await;
        let good = is_invalid(&unknown) && failed && is_invalid(&missing);
        expect(good, (unknown, failed, missing))
    }

    async fn progress(&self) -> Cell {
        let person = self.client.service();
        person.progress.lock().unwrap().clear();
        self.call("test_tool_with_progress", json!({})).await?;
        // The SDK hands each notice to a task of its own: their order is lost there.
        eventually(|| {
            let mut seen = person.progress.lock().unwrap().clone();
            seen.sort_by(f64::total_cmp);
            seen == [0.0, 50.0, 100.0]
        })
        .await
    }

    async fn cancel(&self) -> Cell {
        self.seat.forget();
        let never = calling("test_sleep", &json!({"milliseconds": 60_000}));
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(never));
        let options = PeerRequestOptions::no_options();
        let running = self.client.send_cancellable_request(request, options).await;
        let running = running.map_err(|error| said(&error))?;
        self.seat.running().await?;
        running.cancel(None).await.map_err(|error| said(&error))?;
        self.seat.cancelled().await
    }

    /// The SDK opens its stream of notices by itself in a session, so the first change may come before it.
    async fn change(&self) -> Cell {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        if self.seat.is_stateless() {
            let listening = self.client.listen(filter).await;
            let mut listening = listening.map_err(|error| said(&error))?;
            self.call("test_trigger_tool_change", json!({})).await?;
            let notice = listening.next().await.map_err(|error| said(&error))?;
            return expect(notice.is_some(), "the stream ended");
        }
        for _ in 0..5 {
            self.call("test_trigger_tool_change", json!({})).await?;
            let heard = self.client.service().changed.notified();
            if timeout(DEADLINE / 10, heard).await.is_ok() {
                return WORKS;
            }
        }
        Err("no notice".to_owned())
    }
}
