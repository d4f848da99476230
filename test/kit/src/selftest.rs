//! The kit's own integration test, run inside a sandbox: a Gateway, a server on the Python SDK, a route, an answer through
//! Envoy; then everything that tests will rely on is broken once and must heal.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use gateway_api::apis::standard::gateways::Gateway;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::apply::{apply, apply_yaml};
use crate::eventually::eventually;
use crate::kit::{Component, Kit};
use crate::node::images::Image;
use crate::progress::Step;

const MANIFESTS: &str = include_str!("../manifests/selftest.yaml");
const NAMESPACE: &str = "selftest";
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs every step and prints its time; the first failure ends it.
pub(crate) async fn run() -> anyhow::Result<()> {
    let kit = Kit::from_env()?;
    let test = Selftest {
        client: kit.client().await?,
        kit,
    };
    let outcome = test.steps().await;
    if outcome.is_err() {
        test.show_pods().await;
    }
    outcome
}

struct Selftest {
    kit: Kit,
    client: Client,
}

/// Times an awaited step.
async fn step<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let step = Step::quiet(what);
    let done = work.await.with_context(|| what.to_owned())?;
    step.done();
    Ok(done)
}

impl Selftest {
    async fn steps(&self) -> anyhow::Result<()> {
        step("manifests are applied", self.apply()).await?;
        step("Gateway is Programmed", self.programmed()).await?;
        step("initialize is answered through Envoy", self.answered()).await?;
        step("the HTTPS listener has its Secret", self.answered_over_tls()).await?;
        step(
            "a pod sees its Secret, environment and token",
            self.logged("secret=one user=system:serviceaccount"),
        )
        .await?;
        step(
            "a changed Secret reaches the volume and the audit log",
            self.change_secret(),
        )
        .await?;
        step(
            "a killed Envoy comes back",
            self.killed("selftest-istio", "istio-proxy"),
        )
        .await?;
        step("a killed server comes back", self.killed("weather", "server")).await?;
        step(
            "Envoy answers while the API server is down",
            self.without_api_server(),
        )
        .await?;
        step("a host name is added", self.host()).await?;
        step(
            "a deleted pod gets SIGTERM and its grace period",
            self.delete_pod(),
        )
        .await
    }

    async fn apply(&self) -> anyhow::Result<()> {
        let shell = Image {
            entrypoint: vec!["/bin/sh".to_owned()],
            env: BTreeMap::new(),
            ..Image::default()
        };
        self.kit.add_image("selftest/shell", &shell)?;
        apply_yaml(&self.client, MANIFESTS, "selftest", NAMESPACE).await?;
        let pair = rcgen::generate_simple_self_signed(["weather.example.com".to_owned()])?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "listener"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": pair.cert.pem(), "tls.key": pair.signing_key.serialize_pem()},
        });
        apply(&self.client, secret, "selftest", NAMESPACE).await?;
        Ok(())
    }

    async fn programmed(&self) -> anyhow::Result<()> {
        let gateways: Api<Gateway> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually(DEADLINE, "the Gateway to be Programmed", async || {
            let gateway = gateways
                .get("selftest")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = gateway
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let programmed = conditions
                .iter()
                .any(|it| it.type_ == "Programmed" && it.status == "True");
            let shown: Vec<String> = conditions
                .iter()
                .map(|it| format!("{}={} {}", it.type_, it.status, it.message))
                .collect();
            if programmed { Ok(()) } else { Err(shown.join("; ")) }
        })
        .await?;
        Ok(())
    }

    async fn answered(&self) -> anyhow::Result<()> {
        let url = format!(
            "{}/mcp",
            self.kit.gateway_url(NAMESPACE, "selftest", "istio", 8001)
        );
        let answer = eventually(DEADLINE, "an answer of the server", async || {
            initialize(&url).await
        })
        .await?;
        ensure!(
            answer.contains("\"weather\""),
            "the answer is not the server's: {answer}"
        );
        Ok(())
    }

    /// istiod gives the Secret only to a proxy that has shown its token.
    async fn answered_over_tls(&self) -> anyhow::Result<()> {
        self.kit
            .add_host(&self.gateway_address().await?, "weather.example.com")
            .await?;
        let url = "https://weather.example.com:8443/mcp";
        eventually(DEADLINE, "an answer over TLS", async || initialize(url).await).await?;
        Ok(())
    }

    async fn gateway_address(&self) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let pod = pods.get(&self.pod("selftest-istio").await?).await?;
        pod.status
            .and_then(|status| status.pod_ip)
            .context("the Gateway's pod has no address")
    }

    /// Waits until the shell pod has said `text`.
    async fn logged(&self, text: &str) -> anyhow::Result<()> {
        let log = self.kit.pod_log(NAMESPACE, "shell", "main");
        eventually(DEADLINE, "the pod's log to have the words", async || {
            let said = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            if said.contains(text) { Ok(()) } else { Err(said) }
        })
        .await?;
        Ok(())
    }

    async fn change_secret(&self) -> anyhow::Result<()> {
        let mark = self.kit.audit_mark()?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({"stringData": {"word": "two"}}));
        secrets.patch("words", &PatchParams::default(), &patch).await?;
        self.logged("secret=two").await?;
        let writes = self.kit.writes_since(mark)?;
        let ours =
            |write: &crate::audit::Request| write.resource == "secrets" && write.user == "kubernetes-admin";
        ensure!(
            writes.iter().any(ours),
            "the audit log lacks the patch: {writes:?}"
        );
        Ok(())
    }

    async fn killed(&self, prefix: &str, container: &str) -> anyhow::Result<()> {
        let pod = self.pod(prefix).await?;
        let before = self.kit.container_pid(NAMESPACE, &pod, container)?;
        self.kit.kill_container(NAMESPACE, &pod, container)?;
        eventually(DEADLINE, "a new process", async || {
            match self.kit.container_pid(NAMESPACE, &pod, container) {
                Ok(pid) if pid != before => Ok(()),
                Ok(_) => Err("the old process is still named".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        self.answered().await
    }

    async fn pod(&self, prefix: &str) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let list = pods.list(&ListParams::default()).await?;
        let found = list
            .items
            .iter()
            .map(|pod| pod.name_any())
            .find(|name| name.starts_with(prefix));
        found.with_context(|| format!("no pod {prefix}…"))
    }

    async fn without_api_server(&self) -> anyhow::Result<()> {
        let stopped = self.kit.stop_component(Component::KubeApiserver).await?;
        let down = self.client.apiserver_version().await;
        ensure!(down.is_err(), "the API server answers although it is stopped");
        self.answered().await?;
        drop(stopped);
        eventually(DEADLINE, "the API server to be back", async || {
            self.client
                .apiserver_version()
                .await
                .map_err(|error| error.to_string())
        })
        .await?;
        Ok(())
    }

    async fn host(&self) -> anyhow::Result<()> {
        self.kit.add_host("192.0.2.1", "kit.example.test").await?;
        let mut found = tokio::net::lookup_host("kit.example.test:80").await?;
        ensure!(
            found.any(|address| address.ip().to_string() == "192.0.2.1"),
            "another address was found"
        );
        Ok(())
    }

    async fn delete_pod(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        pods.delete("shell", &DeleteParams::default()).await?;
        self.logged("goodbye").await?;
        eventually(DEADLINE, "the pod to be gone", async || {
            match pods.get_opt("shell").await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it is there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        Ok(())
    }

    /// What a reader of the failure asks first.
    async fn show_pods(&self) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        for pod in pods.list(&ListParams::default()).await.into_iter().flatten() {
            let status = serde_json::to_string(&pod.status).unwrap_or_default();
            crate::progress::say(format!("    pod {}: {status}", pod.name_any()));
        }
    }
}

async fn initialize(url: &str) -> Result<String, String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "selftest", "version": "0"}}});
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client
        .post(url)
        .header("host", "weather.example.com")
        .header("accept", "application/json, text/event-stream")
        .json(&body)
        .timeout(Duration::from_secs(5))
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}
