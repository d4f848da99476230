//! Flags and environment of the operator (operator.md 11.1).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use mcp_gateway_api::{log_level, names};

const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Operator of the MCP gateway.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-gateway-operator", version)]
pub struct Options {
    /// Log level: debug, info, warn, error, or -4, 0, 4, 8.
    #[arg(long, default_value = "0", allow_hyphen_values = true)]
    pub log_level: String,
    /// Log format.
    #[arg(long, value_enum, default_value_t = LogFormat::Txt)]
    pub log_format: LogFormat,
    /// Work only while holding the Lease; off for a single process in development.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// Address of `/healthz` and `/readyz`.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of `/metrics`.
    #[arg(long, default_value = "0.0.0.0:8082")]
    pub metrics_addr: SocketAddr,
    /// The cluster's DNS domain.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Everything is evaluated again after this time.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub resync_interval: Duration,
    /// Brokers that serve everything are asked again after this time.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub status_interval: Duration,
    /// Who issues the certificate of the admission webhook.
    #[arg(long, value_enum, default_value_t = WebhookCerts::Managed)]
    pub webhook_certs: WebhookCerts,
    /// Kubeconfig; default: the pod's own service account.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text.
    Txt,
    /// One JSON object a line.
    Json,
}

/// Who issues the webhook's certificate and writes its configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookCerts {
    /// The operator.
    Managed,
    /// OLM, cert-manager or a person.
    External,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Image of the broker.
    pub broker_image: String,
    /// Default of the broker's `--log-level`.
    pub broker_log_level: Option<i32>,
    /// Namespace that the operator runs in.
    pub namespace: String,
    /// Name of the pod.
    pub pod: Option<String>,
    /// ClusterRole that owns the webhook configurations which the operator makes, so that they go with the release.
    pub webhook_configuration_owner: Option<String>,
    /// Name of the OperatorCondition in the own namespace (olm.md 2.4); OLM sets it, nobody else does.
    pub operator_condition: Option<String>,
}

impl Environment {
    /// Reads the environment through `variable`, and the service account's namespace from its file.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let default_image = || format!("{}:{}", names::BROKER_IMAGE, env!("CARGO_PKG_VERSION"));
        let from_file = || {
            std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE)
                .ok()
                .map(|text| text.trim().to_owned())
        };
        Self {
            broker_image: named("RELATED_IMAGE_ROUTER_BROKER").unwrap_or_else(default_image),
            broker_log_level: named("BROKER_ROUTER_LOG_LEVEL").and_then(|text| {
                let level = log_level::parse(&text);
                if level.is_none() {
                    tracing::warn!("BROKER_ROUTER_LOG_LEVEL is not a level and is ignored");
                }
                level
            }),
            namespace: named("POD_NAMESPACE")
                .or_else(|| named("NAMESPACE"))
                .or_else(from_file)
                .unwrap_or_else(|| "mcp-system".to_owned()),
            pod: named("POD_NAME"),
            webhook_configuration_owner: named("WEBHOOK_CONFIGURATION_OWNER"),
            operator_condition: named("OPERATOR_CONDITION_NAME"),
        }
    }
}

/// `90`, `90s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.trim() {
        text if text.ends_with("ms") => return Err("milliseconds are too fine".to_owned()),
        text if text.ends_with('s') => (text.trim_end_matches('s'), 1),
        text if text.ends_with('m') => (text.trim_end_matches('m'), 60),
        text if text.ends_with('h') => (text.trim_end_matches('h'), 3600),
        text => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 30s or 10m"))?;
    if number == 0 {
        return Err("zero would never rest".to_owned());
    }
    Ok(Duration::from_secs(number.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("45"), Ok(Duration::from_secs(45)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }

    #[test]
    fn t63_an_invalid_environment_value_is_ignored() {
        let read = |level: &'static str| {
            Environment::read(move |name| (name == "BROKER_ROUTER_LOG_LEVEL").then(|| level.to_owned()))
        };
        assert_eq!(read("loud").broker_log_level, None);
        assert_eq!(read("debug").broker_log_level, Some(-4));
        assert_eq!(read("8").broker_log_level, Some(8));
    }

    #[test]
    fn flags_parse_as_the_manifests_write_them() {
        let parsed = Options::try_parse_from([
            "mcp-gateway-operator",
            "--log-level=-4",
            "--leader-elect=false",
            "--status-interval=5s",
            "--webhook-certs=external",
        ])
        .expect("flags");
        assert!(!parsed.leader_elect);
        assert_eq!(parsed.webhook_certs, WebhookCerts::External);
        assert!(
            Options::try_parse_from(["x", "--leader-elect"])
                .expect("flags")
                .leader_elect
        );
    }
}
