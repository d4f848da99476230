//! The cluster's DNS, played by one hosts file: the names of Services stand for the addresses of their ready pods. That is
//! right for every Service whose port equals its target port; for one that has not, the log says so.

use std::collections::BTreeSet;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tracing::{error, warn};

use crate::objects::Objects;
use crate::state_dir::StateDir;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEAD: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
/// How often files in `hosts.d` are looked for; a test that adds one waits for its line.
const EXTRA_POLL: Duration = Duration::from_millis(200);

/// The text of the hosts file.
#[must_use]
pub(crate) fn render(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], extra: &str) -> String {
    let mut lines = BTreeSet::new();
    for service in services {
        let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace) else {
            continue;
        };
        for address in ready_addresses(slices, namespace, name) {
            lines.insert(format!(
                "{address} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace}\n"
            ));
        }
    }
    let mut text = HEAD.to_owned();
    text.extend(lines);
    text.push_str(extra);
    text
}

fn ready_addresses(slices: &[Arc<EndpointSlice>], namespace: &str, service: &str) -> BTreeSet<String> {
    slices
        .iter()
        .filter(|slice| slice.metadata.namespace.as_deref() == Some(namespace))
        .filter(|slice| {
            slice
                .metadata
                .labels
                .iter()
                .flatten()
                .any(|(k, v)| k == SERVICE_NAME && v == service)
        })
        .flat_map(|slice| slice.endpoints.iter())
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|it| it.ready)
                .unwrap_or(true)
        })
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect()
}

/// The ports of a Service that a name in a hosts file cannot translate, as `port→targetPort`.
fn translated_ports(service: &Service) -> Vec<String> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| match &port.target_port {
            Some(IntOrString::Int(target)) if *target != port.port => Some(format!("{}→{target}", port.port)),
            _ => None,
        })
        .collect()
}

/// Overwrites the file in place, so that bind mounts of it show the new text.
pub(crate) fn write_in_place(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// Keeps the hosts file up to date until the runtime ends.
pub(crate) async fn keep(state: StateDir, objects: Objects) {
    let mut changes = objects.changes();
    let mut written = String::new();
    let mut complained = BTreeSet::new();
    loop {
        let services = objects.services.state();
        complain(&services, &mut complained);
        let text = render(&services, &objects.endpoint_slices.state(), &extra(&state));
        if text != written {
            match write_in_place(&state.hosts(), &text) {
                Ok(()) => written = text,
                Err(error) => error!(%error, "Hosts file cannot be written"),
            }
        }
        // Whichever comes first: a change in the cluster or the next look for extra entries.
        let _ = tokio::time::timeout(EXTRA_POLL, changes.changed()).await;
    }
}

fn complain(services: &[Arc<Service>], complained: &mut BTreeSet<String>) {
    for service in services {
        let ports = translated_ports(service);
        let name = format!(
            "{}/{}",
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default()
        );
        if !ports.is_empty() && name != "default/kubernetes" && complained.insert(name.clone()) {
            warn!(
                service = name,
                ?ports,
                "Service translates ports: its name will not reach its pods here"
            );
        }
    }
}

fn extra(state: &StateDir) -> String {
    let Ok(entries) = std::fs::read_dir(state.hosts_extra()) else {
        return String::new();
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut text = String::new();
    for file in files {
        text.push_str(&std::fs::read_to_string(file).unwrap_or_default());
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(port: i32, target: i32) -> Arc<Service> {
        let ports = json!([{"port": port, "targetPort": target}]);
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"ports": ports}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn slice(service: &str, address: &str, ready: bool) -> Arc<EndpointSlice> {
        let object = json!({
            "metadata": {"name": address, "namespace": "n", "labels": {(SERVICE_NAME): service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_name_stands_for_every_ready_pod_and_no_other() {
        let slices = [
            slice("a", "192.0.2.5", true),
            slice("a", "192.0.2.6", false),
            slice("b", "192.0.2.7", true),
        ];
        let text = render(&[service(80, 80)], &slices, "192.0.2.9 mcp.example.com\n");
        assert!(
            text.contains("192.0.2.5 a.n.svc.cluster.local a.n.svc a.n\n"),
            "{text}"
        );
        assert!(
            !text.contains("192.0.2.6") && !text.contains("192.0.2.7"),
            "{text}"
        );
        assert!(text.starts_with("127.0.0.1 localhost\n") && text.ends_with("192.0.2.9 mcp.example.com\n"));
    }

    #[test]
    fn a_service_that_translates_ports_is_found() {
        assert_eq!(translated_ports(&service(80, 8080)), ["80→8080"]);
        assert!(translated_ports(&service(80, 80)).is_empty());
    }

    #[test]
    fn a_shorter_text_leaves_no_rest_of_the_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        write_in_place(&path, "a long text\n").unwrap();
        write_in_place(&path, "short\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "short\n");
    }
}
