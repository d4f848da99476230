//! Readiness, liveness and startup probes. Counting is pure; asking is HTTP, TCP or a command in the container.
//!
//! One thing is quicker than a kubelet: until its first success a readiness or startup probe asks every half second, so
//! that tests don't wait for a whole period. Failures count once a period all the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::process::Command;

const EAGER_PERIOD: Duration = Duration::from_millis(500);

/// What a row of answers means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
}

/// Counts answers against the thresholds.
#[derive(Debug)]
pub(crate) struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    successes: u32,
    failures: u32,
    outcome: Option<Outcome>,
}

impl Counter {
    pub(crate) fn new(probe: &Probe) -> Self {
        let count =
            |value: Option<i32>, default| value.and_then(|it| u32::try_from(it).ok()).unwrap_or(default);
        Self {
            success_threshold: count(probe.success_threshold, 1).max(1),
            failure_threshold: count(probe.failure_threshold, 3).max(1),
            successes: 0,
            failures: 0,
            outcome: None,
        }
    }

    /// Takes one answer; returns the outcome when it changed.
    pub(crate) fn take(&mut self, success: bool) -> Option<Outcome> {
        let reached = if success {
            self.failures = 0;
            self.successes += 1;
            (self.successes >= self.success_threshold).then_some(Outcome::Success)
        } else {
            self.successes = 0;
            self.failures += 1;
            (self.failures >= self.failure_threshold).then_some(Outcome::Failure)
        };
        let changed = reached.filter(|reached| self.outcome != Some(*reached));
        self.outcome = changed.or(self.outcome);
        changed
    }
}

/// Where a container can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: Ipv4Addr,
    pub(crate) pid: u32,
    pub(crate) http: reqwest::Client,
}

/// Asks until `on_change` returns `false` or the future is dropped. `eager`: ask quickly until the first success.
pub(crate) async fn watch(
    probe: &Probe,
    container: &Container,
    target: &Target,
    eager: bool,
    mut on_change: impl FnMut(Outcome, &str) -> bool,
) {
    let seconds = |value: Option<i32>, default| {
        Duration::from_secs(value.and_then(|it| u64::try_from(it).ok()).unwrap_or(default))
    };
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let mut counter = Counter::new(probe);
    let mut succeeded = false;
    let mut failing_since = tokio::time::Instant::now();
    loop {
        let answer = match tokio::time::timeout(limit, ask(probe, container, target)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        };
        let hurry = eager && !succeeded;
        succeeded |= answer.is_ok();
        // While in a hurry, the failures of one period are one failure.
        let counts = answer.is_ok() || !hurry || failing_since.elapsed() >= period;
        if counts {
            failing_since = tokio::time::Instant::now();
            let message = answer.as_ref().err().map_or("", String::as_str);
            if let Some(outcome) = counter.take(answer.is_ok())
                && !on_change(outcome, message)
            {
                return;
            }
        }
        tokio::time::sleep(if eager && !succeeded {
            EAGER_PERIOD.min(period)
        } else {
            period
        })
        .await;
    }
}

async fn ask(probe: &Probe, container: &Container, target: &Target) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        return http(get, container, target).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = port(&tcp.port, container)?;
        let connected = tokio::net::TcpStream::connect((target.address, port)).await;
        return connected.map(drop).map_err(|error| error.to_string());
    }
    if let Some(exec) = &probe.exec {
        return run_inside(target.pid, exec.command.as_deref().unwrap_or_default()).await;
    }
    Err("the kit plays httpGet, tcpSocket and exec probes".to_owned())
}

async fn http(get: &HTTPGetAction, container: &Container, target: &Target) -> Result<(), String> {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let port = port(&get.port, container)?;
    let path = get.path.as_deref().unwrap_or("/").trim_start_matches('/');
    let mut request = target
        .http
        .get(format!("{scheme}://{}:{port}/{path}", target.address));
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!("HTTP status {status}"))
    }
}

/// A port by number or by the name that the container gives it.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("no port {port:?}"))
}

/// Runs a command in the namespaces and root of the container's process, with its environment.
pub(crate) async fn run_inside(pid: u32, command: &[String]) -> Result<(), String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).map_err(|error| error.to_string())?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.split_once('=')
    });
    let output = Command::new("nsenter")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables)
        .args([
            "--target",
            &pid.to_string(),
            "--mount",
            "--net",
            "--root",
            "--wd",
            "--",
        ])
        .args(command)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(success: i32, failure: i32) -> Counter {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        Counter::new(&probe)
    }

    #[test]
    fn only_a_row_of_failures_changes_the_outcome() {
        let mut counter = counter(1, 3);
        assert_eq!(counter.take(true), Some(Outcome::Success));
        let answers = [false, false, true, false, false, false, false, true];
        let changes: Vec<_> = answers.into_iter().map(|answer| counter.take(answer)).collect();
        let expected = [
            None,
            None,
            None,
            None,
            None,
            Some(Outcome::Failure),
            None,
            Some(Outcome::Success),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_success_threshold_needs_a_row_of_successes() {
        let mut counter = counter(2, 1);
        assert_eq!(counter.take(true), None);
        assert_eq!(counter.take(false), Some(Outcome::Failure));
        assert_eq!(counter.take(true), None);
        assert_eq!(counter.take(true), Some(Outcome::Success));
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(port(&IntOrString::String("http".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::Int(9), &container), Ok(9));
        assert!(port(&IntOrString::String("grpc".into()), &container).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_answers_fails_after_its_threshold_of_periods() {
        let probe: Probe = serde_json::from_value(serde_json::json!(
            {"exec": {"command": ["false"]}, "periodSeconds": 5, "failureThreshold": 2}))
        .unwrap();
        // No process has this id: every question fails at once.
        let target = Target {
            address: Ipv4Addr::LOCALHOST,
            pid: u32::MAX,
            http: client(),
        };
        let begun = tokio::time::Instant::now();
        watch(&probe, &Container::default(), &target, true, |outcome, _| {
            assert_eq!(outcome, Outcome::Failure);
            false
        })
        .await;
        assert!(
            begun.elapsed() >= Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    }

    fn client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
    }
}
