//! What the ServiceMonitors of the observability kit lead Prometheus to: pods behind Services with certain labels, at the
//! port that is named, where metrics of ours are served.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{delete, get, kubectl};
use mcp_gateway_kit::eventually;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/observability");
/// How long a Service may take until it has found its pods.
const FOUND: Duration = Duration::from_secs(30);

/// The label selector of a monitor, as kubectl takes it.
fn selector(monitor: &Value) -> anyhow::Result<String> {
    let labels = monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .context("no matchLabels")?;
    let terms: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    ensure!(!terms.is_empty(), "everything is selected");
    Ok(terms.join(","))
}

/// Names of the ready pods behind a Service.
fn pods_of(service: &str, namespace: &str) -> anyhow::Result<Vec<String>> {
    let slices = get(&format!(
        "endpointslices -n {namespace} -l kubernetes.io/service-name={service}"
    ))?;
    let endpoints = slices["items"].as_array().into_iter().flatten();
    Ok(endpoints
        .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .filter_map(|endpoint| endpoint["targetRef"]["name"].as_str().map(str::to_owned))
        .collect())
}

/// Asks a pod for its metrics at the container port of this name.
async fn scraped(pod: &str, namespace: &str, port_name: &str) -> anyhow::Result<()> {
    let pod = get(&format!("pod {pod} -n {namespace}"))?;
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let port = containers
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|port| port["name"] == port_name)
        .with_context(|| format!("no port {port_name} in {pod}"))?;
    let address = pod["status"]["podIP"].as_str().context("no address")?;
    let url = format!("http://{address}:{}/metrics", port["containerPort"]);
    let client = reqwest::Client::builder().no_proxy().timeout(FOUND).build()?;
    let text = client.get(&url).send().await?.error_for_status()?.text().await?;
    ensure!(text.contains("# TYPE mcp_"), "{url}: {text}");
    Ok(())
}

/// What a monitor leads to in a namespace: how many pods were scraped.
async fn followed(monitor: &Value, namespace: &str) -> anyhow::Result<usize> {
    let services = get(&format!("services -n {namespace} -l {}", selector(monitor)?))?;
    let mut pods = 0;
    for service in services["items"].as_array().into_iter().flatten() {
        let endpoint = &monitor["spec"]["endpoints"][0];
        // Without `targetPort`, `port` is one of the Service, which leads to the pods' port of the name that stands there.
        let port = match endpoint["targetPort"].as_str() {
            Some(name) => name,
            None => service["spec"]["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|port| port["name"] == endpoint["port"])
                .and_then(|port| port["targetPort"].as_str())
                .context("the Service has no such port")?,
        };
        for pod in pods_of(
            service["metadata"]["name"].as_str().context("no name")?,
            namespace,
        )? {
            scraped(&pod, namespace, port).await?;
            pods += 1;
        }
    }
    Ok(pods)
}

/// The monitors find the brokers of the namespace `of_brokers`, the operator, and the webhook.
pub(crate) async fn lead_to_metrics(of_brokers: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(Path::new(FOLDER).join("service_monitors.yaml"))?;
    let monitors: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    kubectl(&format!("apply -n mcp-system -f {FOLDER}/metrics_service.yaml"))?;
    for (name, namespace, least) in [
        ("mcp-gateway-brokers", of_brokers, 1),
        // One operator, two replicas of the webhook.
        ("mcp-gateway-control-plane", "mcp-system", 3),
    ] {
        let monitor = monitors
            .iter()
            .find(|monitor| monitor["metadata"]["name"] == name)
            .with_context(|| name.to_owned())?;
        let found = async || match followed(monitor, namespace).await {
            Ok(pods) if pods >= least => Ok(()),
            Ok(pods) => Err(format!("{pods} pods")),
            Err(error) => Err(format!("{error:#}")),
        };
        eventually(FOUND, name, found).await?;
    }
    delete("service mcp-gateway-metrics -n mcp-system").map(drop)
}
