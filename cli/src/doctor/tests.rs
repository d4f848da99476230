use serde_json::{Value, json};

use super::{
    access::Permissions,
    evidence::{Evidence, Probe},
    *,
};
use crate::{
    cluster::{Listed, Snapshot},
    lint::parse,
};

/// A cluster that is in order, but for certificates, which nothing here can read.
const CLUSTER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: istio, listeners: [{name: mcp, hostname: '*.example.com', port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
status: {addresses: [{value: 10.0.0.1}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata: {name: ext, namespace: infra}
spec: {publicHost: mcp.example.com, targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: mcp}}
status: {conditions: [{type: Ready, status: 'True', reason: ValidMCPGatewayExtension, message: fine, lastTransitionTime: '2026-01-01T00:00:00Z'}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mcp-gateway-route, namespace: infra}
spec: {hostnames: [mcp.example.com], rules: []}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mcp-gateway, namespace: infra}
spec: {replicas: 1}
status: {readyReplicas: 1}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: mcp-ext-proc-infra-gateway, namespace: infra}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mcp-gateway-controller, namespace: mcp-system, labels: {app.kubernetes.io/name: mcp-gateway-operator}}
spec: {replicas: 1, template: {spec: {serviceAccountName: mcp-gateway-controller, containers: [{image: 'x/operator:0.1.0'}]}}}
status: {readyReplicas: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: mcp-gateway-webhook, namespace: mcp-system, labels: {app.kubernetes.io/name: mcp-gateway-webhook}}
spec: {template: {spec: {containers: [{image: 'x/webhook:0.1.0'}]}}}
status: {readyReplicas: 2}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: mcp-gateway-webhook}
webhooks: [{name: defaults.mcp.kuadrant.io, clientConfig: {url: 'https://x'}}]
";

fn snapshot(manifests: &str) -> Snapshot {
    let mut lists: std::collections::BTreeMap<&'static str, Vec<Value>> = std::collections::BTreeMap::new();
    for kind in [
        "MCPGatewayExtension",
        "MCPServerRegistration",
        "MCPVirtualServer",
        "Gateway",
        "HTTPRoute",
        "ReferenceGrant",
        "Service",
        "Deployment",
        "EndpointSlice",
        "EnvoyFilter",
        "MutatingWebhookConfiguration",
        "CustomResourceDefinition",
    ] {
        lists.insert(kind, Vec::new());
    }
    for document in parse("-", manifests) {
        let object = document.object.expect("an object");
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let list = lists.iter_mut().find(|(known, _)| **known == kind);
        list.expect("a known kind").1.push(object);
    }
    Snapshot::of(
        lists
            .into_iter()
            .map(|(kind, objects)| (kind, Listed::Found(objects))),
    )
}

fn problems(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = judge(evidence);
    // The certificate needs a real one, definitions a real API server; both are planted in the end-to-end test.
    findings.retain(|finding| {
        finding.verdict != Verdict::Good && !["certificate", "crds"].contains(&finding.check)
    });
    findings
}

fn found(manifests: &str) -> Vec<Finding> {
    problems(&Evidence::of(snapshot(manifests)))
}

#[test]
fn a_cluster_in_order_has_no_problem() {
    assert_eq!(found(CLUSTER), []);
}

/// What is replaced, by what, and what the doctor must say: the check and a part of the fix.
const FAULTS: [[&str; 4]; 13] = [
    [
        "name: gw, sectionName: mcp}",
        "name: gone, sectionName: mcp}",
        "gateway",
        "there are: infra/gw",
    ],
    [
        "sectionName: mcp}",
        "sectionName: nope}",
        "listener",
        "set spec.targetRef.sectionName of infra/ext",
    ],
    [
        "publicHost: mcp.example.com",
        "publicHost: mcp.other.com",
        "names",
        "set spec.publicHost to a host that *.example.com covers",
    ],
    [
        "name: mcp-ext-proc-infra-gateway",
        "name: other",
        "filter",
        "start the operator",
    ],
    [
        "name: mcp-gateway-route",
        "name: other",
        "route",
        "start the operator",
    ],
    [
        "spec: {replicas: 1}",
        "spec: {replicas: 0}",
        "broker",
        "kubectl scale deployment/mcp-gateway -n infra --replicas=1",
    ],
    [
        "spec: {replicas: 1}",
        "spec: {replicas: 2}",
        "broker",
        "set spec.sessionStore",
    ],
    [
        "status: {readyReplicas: 2}",
        "status: {}",
        "webhook",
        "kubectl describe pods -n mcp-system",
    ],
    [
        "spec: {replicas: 1, template",
        "spec: {replicas: 0, template",
        "operator",
        "--replicas=1",
    ],
    [
        "defaults.mcp.kuadrant.io",
        "others.example.com",
        "webhook",
        "kubectl apply -k config/install",
    ],
    [
        "status: {addresses: [{value: 10.0.0.1}]}",
        "",
        "gateway",
        "kubectl describe gateway gw -n infra",
    ],
    [
        "metadata: {name: gw, namespace: infra}",
        "metadata: {name: gw, namespace: infra, annotations: {mcp.kuadrant.io/extension-scope: port}}",
        "gateway",
        "set it to Gateway or Listener",
    ],
    [
        "status: 'True', reason: ValidMCPGatewayExtension, message: fine",
        "status: 'False', reason: SecretInvalid, message: 'secret infra/x: missing required label mcp.kuadrant.io/secret=true'",
        "secret",
        "kubectl label secret",
    ],
];

#[test]
fn each_fault_is_found_with_its_fix() {
    for [before, after, check, fix] in FAULTS {
        assert!(CLUSTER.contains(before), "{before}");
        let findings = found(&CLUSTER.replacen(before, after, 1));
        assert!(
            findings
                .iter()
                .any(|finding| finding.check == check && finding.fix.contains(fix)),
            "{after}: {findings:#?}"
        );
    }
}

const SERVER: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: weather, namespace: apps}
spec: {hostnames: [weather.example.com], rules: [{backendRefs: [{name: weather, port: 9000}]}]}
status: {parents: [{controllerName: istio, parentRef: {name: gw, namespace: infra, sectionName: mcp}, conditions: [{type: Accepted, status: 'True'}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: weather, namespace: apps}
spec: {ports: [{port: 9000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: weather-x, namespace: apps, labels: {kubernetes.io/service-name: weather}}
endpoints: [{conditions: {ready: true}}]
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: weather, namespace: apps}
spec: {prefix: weather_, targetRef: {name: weather}}
status: {conditions: [{type: Ready, status: 'True', reason: Ready, message: 4 tools, lastTransitionTime: '2026-01-01T00:00:00Z'}]}
";

/// What is replaced, by what, and what the doctor must say: the check and a part of the fix.
const FAULTS_OF_SERVERS: [[&str; 4]; 6] = [
    [
        "targetRef: {name: weather}",
        "targetRef: {name: gone}",
        "route",
        "create HTTPRoute apps/gone",
    ],
    [
        "status: 'True'}]}]}",
        "status: 'False', message: not allowed}]}]}",
        "route",
        "the Gateway says: not allowed",
    ],
    [
        "sectionName: mcp}, conditions",
        "port: 9, conditions: []}, conditions",
        "route",
        "infra/gw port 8080",
    ],
    [
        "backendRefs: [{name: weather",
        "backendRefs: [{name: gone",
        "backend",
        "create the Service",
    ],
    [
        "conditions: {ready: true}",
        "conditions: {ready: false}",
        "backend",
        "start the server's pods",
    ],
    [
        "status: 'True', reason: Ready, message: 4 tools",
        "status: 'False', reason: NotReady, message: 'failed to connect to upstream mcp x'",
        "backend",
        "spec.path is its MCP path",
    ],
];

#[test]
fn each_fault_of_a_server_is_found_with_its_fix() {
    let whole = format!("{CLUSTER}{SERVER}");
    assert_eq!(found(&whole), []);
    for [before, after, check, fix] in FAULTS_OF_SERVERS {
        assert!(SERVER.contains(before), "{before}");
        let findings = found(&format!("{CLUSTER}{}", SERVER.replacen(before, after, 1)));
        assert!(
            findings
                .iter()
                .any(|finding| finding.check == check && finding.fix.contains(fix)),
            "{after}: {findings:#?}"
        );
    }
}

#[test]
fn a_missing_grant_is_answered_with_the_grant() {
    let moved = CLUSTER
        .replace(
            "metadata: {name: ext, namespace: infra}",
            "metadata: {name: ext, namespace: team}",
        )
        .replace(
            "name: gw, sectionName: mcp}",
            "name: gw, namespace: infra, sectionName: mcp}",
        );
    let findings = found(&moved);
    let grant = findings
        .iter()
        .find(|finding| finding.check == "grant")
        .expect("a grant");
    let manifest = grant.fix.split_once(": ").expect("a manifest").1;
    let object: Value = serde_saphyr::from_str(manifest).expect("YAML");
    assert_eq!(
        (
            &object["kind"],
            &object["metadata"]["namespace"],
            &object["spec"]["from"][0]["namespace"]
        ),
        (&json!("ReferenceGrant"), &json!("infra"), &json!("team"))
    );
}

#[test]
fn what_was_asked_of_the_api_server_is_told() {
    let mut evidence = Evidence::of(snapshot(CLUSTER));
    evidence.probe = Probe::Failed("failed calling webhook: no endpoints".to_owned());
    let lacking = ["patch a", "patch b", "patch c", "patch d", "patch e", "patch f"].map(str::to_owned);
    evidence.permissions = Permissions::Asked(vec![("ServiceAccount x/y".to_owned(), lacking.to_vec())]);
    let findings = problems(&evidence);
    let rbac = findings
        .iter()
        .find(|finding| finding.check == "rbac")
        .expect("rbac");
    assert!(
        rbac.message.ends_with("patch e, and 1 more") && rbac.fix.contains("kubectl apply -k config/rbac")
    );
    let webhook = findings
        .iter()
        .find(|finding| finding.object == "admission")
        .expect("admission");
    assert!(webhook.message.contains("no endpoints"), "{webhook:?}");
}

#[test]
fn a_kind_that_may_not_be_read_is_no_problem_but_said() {
    let mut lists = vec![("Deployment", Listed::Unreadable("forbidden".to_owned()))];
    lists.push(("MCPGatewayExtension", Listed::Found(Vec::new())));
    let findings = problems(&Evidence::of(Snapshot::of(lists)));
    assert!(
        findings.iter().all(|finding| finding.verdict == Verdict::Unknown),
        "{findings:?}"
    );
    assert!(
        findings
            .iter()
            .any(|finding| finding.object == "Deployment" && finding.message == "forbidden")
    );
}
