use super::*;
use crate::{cluster::Listed, lint::parse};

const MANIFESTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: istio, listeners: [{name: mcp, hostname: mcp.example.com, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata: {name: ext, namespace: infra}
spec: {targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: mcp}}
status: {conditions: [{type: Ready, status: 'True', reason: ValidMCPGatewayExtension, message: fine, lastTransitionTime: '2026-01-01T00:00:00Z'}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mcp-gateway, namespace: infra}
spec: {replicas: 2, template: {spec: {containers: [{image: 'ghcr.io/x/broker:0.1.0@sha256:abc'}]}}}
status: {readyReplicas: 1}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: weather, namespace: apps}
spec: {prefix: weather_, targetRef: {name: weather}}
status: {discoveredTools: 4, discoveredPrompts: 3, discoveredResources: 2, discoveredResourceTemplates: 1, era: legacy, protocolVersion: '2025-11-25', conditions: [{type: Ready, status: 'False', reason: NotReady, message: HTTPRoute apps/weather not found, lastTransitionTime: '2026-01-01T00:00:00Z'}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: off, namespace: apps}
spec: {state: Disabled, targetRef: {name: off}}
";

fn snapshot() -> Snapshot {
    let mut lists = std::collections::BTreeMap::<&'static str, Vec<Value>>::new();
    for document in parse("-", MANIFESTS) {
        let object = document.object.expect("an object");
        let kinds = [
            "Gateway",
            "MCPGatewayExtension",
            "Deployment",
            "MCPServerRegistration",
        ];
        let kind = kinds
            .into_iter()
            .find(|kind| object["kind"] == *kind)
            .expect("a kind");
        lists.entry(kind).or_default().push(object);
    }
    Snapshot::of(
        lists
            .into_iter()
            .map(|(kind, objects)| (kind, Listed::Found(objects))),
    )
}

#[test]
fn gateways_servers_and_what_is_wrong_are_on_one_screen() {
    let mut out = Vec::new();
    print(&mut out, &report(&snapshot(), None)).unwrap();
    let text = String::from_utf8(out).unwrap();
    let words: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        words[1],
        [
            "infra/ext",
            "infra/gw",
            "mcp",
            "http://mcp.example.com:8080/mcp",
            "True",
            "1/2",
            "0.1.0"
        ]
    );
    assert!(
        words.contains(&vec![
            "apps/weather",
            "weather_",
            "False",
            "4",
            "3",
            "3",
            "legacy",
            "2025-11-25"
        ]),
        "{text}"
    );
    assert!(
        text.contains("problem MCPServerRegistration apps/weather: HTTPRoute apps/weather not found")
            && text.contains("to mend it: create HTTPRoute apps/weather"),
        "{text}"
    );
    assert!(!text.contains("problem MCPServerRegistration apps/off"), "{text}");
}

#[test]
fn one_namespace_shows_its_own_objects_only() {
    let report = report(&snapshot(), Some("infra"));
    assert_eq!(
        (
            report.extensions.len(),
            report.servers.len(),
            report.troubles.len()
        ),
        (1, 0, 0)
    );
    assert_eq!(
        as_json(&report)["extensions"][0]["url"],
        "http://mcp.example.com:8080/mcp"
    );
}
