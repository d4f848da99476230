//! Clients that people use, through Envoy: the SDKs for Python, TypeScript and Rust list and call tools of a server on the
//! Python SDK and of `server-everything`, follow progress, answer a question of a server, and cancel.

use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, Site, apply};
use mcp_gateway_kit::eventually;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationCapability, Implementation,
    ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestContext, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData, ServiceExt as _};
use serde_json::{Value, json};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(90);

/// A site with both servers; returns the URL of its endpoint.
async fn served(name: &str) -> anyhow::Result<String> {
    let site = Site::create(name)?;
    apply(&site.extension(name, "ext", "mcp", ""))?;
    site.server("weather")?;
    site.everything("everything")?;
    site.register("weather", "weather_")?;
    site.register("everything", "all_")?;
    site.wait_ready(&format!("mcpge/ext -n {name}"))?;
    site.wait_ready(&format!("mcpsr/weather mcpsr/everything -n {name}-servers"))?;
    site.url().await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await??;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run this by make e2e"))
}

fn script(name: &str) -> String {
    format!("{}/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_python_sdk_calls_asks_and_cancels() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let url = served("python").await?;
    let python = variable("MCPGW_PYTHON")?;
    let mut client = Command::new(python);
    client
        .args([script("python.py"), url, "weather_".to_owned(), "all_".to_owned()])
        .env("PYTHONPATH", variable("MCPGW_PYTHON_PATH")?);
    run(&mut client).await
}

#[tokio::test]
async fn the_typescript_sdk_calls_asks_and_cancels() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let url = served("typescript").await?;
    let sdk = format!("{}/@modelcontextprotocol/sdk", variable("MCPGW_NODE_MODULES")?);
    let mut client = Command::new(variable("MCPGW_NODE")?);
    let prefixes = ["weather_".to_owned(), "all_".to_owned()];
    client.args([script("typescript.mjs"), sdk, url]).args(prefixes);
    run(&mut client).await
}

/// A client that answers questions and notes progress.
#[derive(Default)]
struct Person {
    asked: Mutex<Vec<String>>,
    progress: Mutex<Vec<f64>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("e2e", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::FormElicitationParams { message, .. } = request {
            self.asked.lock().unwrap().push(message);
        }
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"days": 3})))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.lock().unwrap().push(params.progress);
    }
}

type Client = RunningService<RoleClient, Person>;

fn calling(tool: &'static str, arguments: &Value) -> CallToolRequestParams {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

async fn text(client: &Client, tool: &'static str, arguments: Value) -> anyhow::Result<String> {
    let result = client.call_tool(calling(tool, &arguments)).await?;
    let first = serde_json::to_value(&result)?["content"][0]["text"].clone();
    Ok(first.as_str().unwrap_or_default().to_owned())
}

async fn interruptions(client: &Client) -> anyhow::Result<String> {
    text(client, "weather_interrupted", json!({})).await
}

#[tokio::test]
async fn the_rust_sdk_calls_asks_and_cancels() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let url = served("rust").await?;
    let transport = StreamableHttpClientTransport::from_uri(url);
    let client = tokio::time::timeout(LIMIT, Person::default().serve(transport)).await??;
    let tools = client.list_all_tools().await?;
    let has = |name: &str| tools.iter().any(|tool| tool.name == name);
    assert!(has("weather_add") && has("all_echo"), "{tools:?}");
    assert_eq!(
        text(&client, "weather_add", json!({"a": 19, "b": 23})).await?,
        "42"
    );
    assert_eq!(
        text(&client, "all_echo", json!({"message": "hi"})).await?,
        "Echo: hi"
    );
    let slow = json!({"text": "x", "seconds": 0.3, "steps": 3});
    assert_eq!(text(&client, "weather_slow_echo", slow).await?, "x");
    eventually(Duration::from_secs(10), "the progress", async || {
        let progress = client.service().progress.lock().unwrap().clone();
        (progress.last() == Some(&3.0))
            .then_some(())
            .ok_or(format!("{progress:?}"))
    })
    .await?;
    let trip = text(&client, "weather_plan_trip", json!({"city": "Rome"})).await?;
    assert_eq!(trip, "3 days in Rome");
    assert_eq!(
        *client.service().asked.lock().unwrap(),
        ["[rust-servers/weather] How many days in Rome?"]
    );
    cancels(&client).await?;
    client.cancel().await?;
    Ok(())
}

/// A call that would last a minute ends at the server when the client takes it back.
async fn cancels(client: &Client) -> anyhow::Result<()> {
    let before = interruptions(client).await?;
    client.service().progress.lock().unwrap().clear();
    let never = calling(
        "weather_slow_echo",
        &json!({"text": "never", "seconds": 60, "steps": 600}),
    );
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(never));
    let running = client
        .send_cancellable_request(request, PeerRequestOptions::no_options())
        .await?;
    eventually(Duration::from_secs(10), "its first progress", async || {
        let progress = client.service().progress.lock().unwrap().len();
        (progress > 0).then_some(()).ok_or("none".to_owned())
    })
    .await?;
    running.cancel(Some("changed my mind".to_owned())).await?;
    eventually(Duration::from_secs(10), "the end of the call", async || {
        let now = interruptions(client).await.map_err(|error| error.to_string())?;
        (now != before).then_some(()).ok_or(now)
    })
    .await?;
    Ok(())
}
