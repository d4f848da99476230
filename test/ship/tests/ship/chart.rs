//! The chart, rendered by Helm 3 and Helm 4 (operator.md 12, seeds 000 and 002).

use mcp_gateway_ship::{
    chart::Rendered,
    helm::{EITHER, Helm, root},
};
use serde_json::{Value, json};

/// Step 2 of the install guide.
const INSTALL: &[&str] = &[
    "controller.enabled=true",
    "gateway.publicHost=your-hostname.example.com",
    "mcpGatewayExtension.create=true",
    "mcpGatewayExtension.gatewayRef.name=your-gateway",
    "mcpGatewayExtension.gatewayRef.namespace=gateway-system",
];
/// Step 3 of the guide to isolated gateways.
const CONTROLLER: &[&str] = &[
    "controller.enabled=true",
    "gateway.create=false",
    "httpRoute.create=false",
    "mcpGatewayExtension.create=false",
    "envoyFilter.create=false",
];
/// Step 4 of it.
const TEAM_A: &[&str] = &[
    "controller.enabled=false",
    "broker.create=true",
    "gateway.create=true",
    "gateway.name=team-a-gateway",
    "gateway.namespace=gateway-system",
    "gateway.publicHost=team-a.example.com",
    "gateway.internalHostPattern=*.team-a.mcp.local",
    "httpRoute.create=true",
    "mcpGatewayExtension.create=true",
    "mcpGatewayExtension.gatewayRef.name=team-a-gateway",
    "mcpGatewayExtension.gatewayRef.namespace=gateway-system",
    "envoyFilter.create=true",
    "envoyFilter.name=team-a-gateway",
];

fn render(name: &str, namespace: &str, values: &[&str]) -> Rendered {
    Rendered::new(Helm::V4, name, namespace, values).unwrap()
}

fn generated(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

#[test]
fn helm_lint_is_content_even_when_strict() {
    for helm in EITHER {
        for values in [INSTALL, CONTROLLER, TEAM_A] {
            let mut arguments = vec![
                "lint",
                "--strict",
                "charts/mcp-gateway",
                "--kube-version",
                "1.36.0",
            ];
            arguments.extend(values.iter().flat_map(|value| ["--set", value]));
            helm.output(&arguments).unwrap();
        }
    }
}

#[test]
fn helm_3_and_helm_4_render_the_same() {
    for values in [INSTALL, CONTROLLER, TEAM_A] {
        let [three, four] =
            EITHER.map(|helm| Rendered::new(helm, "mcp-gateway", "mcp-system", values).unwrap());
        assert_eq!(three.objects(), four.objects());
    }
}

#[test]
fn the_install_guide_gets_operator_webhook_extension_and_grant_by_one_command() {
    let release = render("mcp-gateway", "mcp-system", INSTALL);
    let extension = release.one("MCPGatewayExtension", "mcp-gateway").unwrap();
    let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "your-gateway",
        "namespace": "gateway-system", "sectionName": "mcp"});
    assert_eq!(
        extension["spec"],
        json!({"targetRef": target, "publicHost": "your-hostname.example.com", "backendPingIntervalSeconds": 60})
    );
    for (kind, name) in [
        ("Deployment", "mcp-gateway-controller"),
        ("Deployment", "mcp-gateway-webhook"),
        ("Service", "mcp-gateway-webhook"),
        ("PodDisruptionBudget", "mcp-gateway-webhook"),
        ("ReferenceGrant", "allow-mcp-system-your-gateway"),
    ] {
        assert!(release.one(kind, name).is_some(), "{kind} {name}");
    }
}

#[test]
fn with_managed_certificates_no_configuration_is_shipped_and_otherwise_both_are() {
    let configurations = |values: &[&str]| {
        let release = render("mcp-gateway", "mcp-system", values);
        release
            .names()
            .into_iter()
            .filter(|name| name.contains("WebhookConfiguration/"))
            .collect::<Vec<_>>()
    };
    assert!(configurations(&[]).is_empty());
    let both = [
        "MutatingWebhookConfiguration/mcp-gateway-webhook",
        "ValidatingWebhookConfiguration/mcp-gateway-webhook",
    ];
    assert_eq!(configurations(&["webhook.certs=certManager"]), both);
    assert_eq!(configurations(&["webhook.certs=external"]), both);
    assert!(configurations(&["webhook.certs=external", "webhook.enabled=false"]).is_empty());
    let advisory = "ValidatingWebhookConfiguration/mcp-gateway-webhook-advisory";
    assert_eq!(configurations(&["webhook.advisory=true"]), [advisory]);
    let all = configurations(&["webhook.certs=certManager", "webhook.advisory=true"]);
    assert_eq!(all, [both[0], both[1], advisory]);
    let release = render("mcp-gateway", "ns", &["webhook.certs=certManager"]);
    let operator = release.one("Deployment", "mcp-gateway-controller").unwrap();
    let arguments = operator.pointer("/spec/template/spec/containers/0/args").unwrap();
    assert_eq!(
        arguments,
        &json!(["--leader-elect=true", "--webhook-certs=external"])
    );
    assert_eq!(release.kind("Certificate").len(), 1);
}

#[test]
fn without_the_controller_there_is_only_the_instance() {
    let release = render("team-a-mcp-gateway", "team-a", TEAM_A);
    assert_eq!(
        release.names(),
        [
            "Gateway/team-a-gateway",
            "MCPGatewayExtension/team-a-mcp-gateway",
            "ReferenceGrant/allow-team-a-team-a-gateway"
        ]
    );
    let gateway = release.one("Gateway", "team-a-gateway").unwrap();
    let listeners: Vec<_> = gateway["spec"]["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| (listener["name"].clone(), listener["hostname"].clone()))
        .collect();
    assert_eq!(
        listeners,
        [
            (json!("mcp"), json!("team-a.example.com")),
            (json!("mcps"), json!("*.team-a.mcp.local"))
        ]
    );
}

#[test]
fn the_port_of_a_public_host_is_no_part_of_the_listeners_hostname() {
    let values = ["gateway.create=true", "gateway.publicHost=mcp.example.com:8080"];
    let release = render("mcp-gateway", "mcp-system", &values);
    let gateway = release.one("Gateway", "mcp-gateway").unwrap();
    assert_eq!(gateway["spec"]["listeners"][0]["hostname"], "mcp.example.com");
}

#[test]
fn images_of_webhook_and_hook_can_have_their_own_tag_and_policy() {
    let values = [
        "webhook.image.tag=1.2.3",
        "webhook.image.pullPolicy=Always",
        "uninstall.image.tag=4.5.6",
        "uninstall.image.pullPolicy=Never",
    ];
    let release = render("mcp-gateway", "mcp-system", &values);
    let container = |kind: &str, name: &str, member: &str| {
        let object = release.one(kind, name).unwrap();
        let container = object.pointer("/spec/template/spec/containers/0").unwrap();
        container[member].as_str().unwrap().to_owned()
    };
    let (webhook, hook) = ("mcp-gateway-webhook", "mcp-gateway-uninstall");
    assert!(container("Deployment", webhook, "image").ends_with(":1.2.3"));
    assert_eq!(container("Deployment", webhook, "imagePullPolicy"), "Always");
    assert!(container("Job", hook, "image").ends_with(":4.5.6"));
    assert_eq!(container("Job", hook, "imagePullPolicy"), "Never");
    let operator = container("Deployment", "mcp-gateway-controller", "imagePullPolicy");
    assert_eq!(operator, "IfNotPresent");
}

#[test]
fn two_teams_and_a_controller_share_no_object_name() {
    let mut seen = std::collections::BTreeSet::new();
    let team_b: Vec<String> = TEAM_A
        .iter()
        .map(|value| value.replace("team-a", "team-b"))
        .collect();
    let team_b: Vec<&str> = team_b.iter().map(String::as_str).collect();
    for release in [
        render("mcp-controller", "mcp-system", CONTROLLER),
        render("team-a-mcp-gateway", "team-a", TEAM_A),
        render("team-b-mcp-gateway", "team-b", &team_b),
    ] {
        for object in release.objects() {
            let id = format!(
                "{} {} {}",
                object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]
            );
            assert!(seen.insert(id.clone()), "{id}");
        }
    }
}

#[test]
fn cluster_scoped_names_carry_the_full_name_of_the_release() {
    let release = render("x", "mcp-system", CONTROLLER);
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        for object in release.kind(kind) {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(name.starts_with("x-mcp-gateway-"), "{name}");
        }
    }
}

#[test]
fn t64_pods_of_the_chart_have_none_of_the_labels_that_select_a_broker() {
    let release = render("mcp-gateway", "mcp-system", INSTALL);
    for object in release.objects() {
        let pods = match object["kind"].as_str() {
            Some("Pod") => object.pointer("/metadata/labels"),
            Some("Deployment" | "Job") => object.pointer("/spec/template/metadata/labels"),
            _ => continue,
        };
        assert_ne!(
            pods.unwrap()["app.kubernetes.io/name"],
            "mcp-gateway",
            "{}",
            object["metadata"]["name"]
        );
    }
}

#[test]
fn t65_private_host_only_when_asked_a_grant_for_one_gateway_and_old_values_without_effect() {
    let spec = |values: &[&str]| {
        let release = render("mcp-gateway", "mcp-system", values);
        release
            .kind("MCPGatewayExtension")
            .first()
            .map(|extension| extension["spec"].clone())
            .unwrap()
    };
    assert!(spec(INSTALL).get("privateHost").is_none());
    assert_eq!(
        spec(&["gateway.privateHost=gw.ns.svc:8080"])["privateHost"],
        "gw.ns.svc:8080"
    );

    let release = render("mcp-gateway", "mcp-system", INSTALL);
    let grant = release
        .one("ReferenceGrant", "allow-mcp-system-your-gateway")
        .unwrap();
    assert_eq!(grant["metadata"]["namespace"], "gateway-system");
    let to = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "your-gateway"}]);
    assert_eq!(grant["spec"]["to"], to);
    let same = render("mcp-gateway", "gateway-system", INSTALL);
    assert!(same.kind("ReferenceGrant").is_empty());

    let old = [
        "broker.create=true",
        "httpRoute.create=true",
        "envoyFilter.create=true",
        "envoyFilter.name=x",
    ];
    let mut with_old = INSTALL.to_vec();
    with_old.extend(old);
    assert_eq!(
        render("mcp-gateway", "mcp-system", &with_old).objects(),
        release.objects()
    );
}

#[test]
fn every_value_that_is_passed_on_arrives_as_it_was_given() {
    let values = [
        "mcpGatewayExtension.httpRouteManagement=Disabled",
        "mcpGatewayExtension.urlElicitation=Enabled",
        "mcpGatewayExtension.logLevel=debug",
        "mcpGatewayExtension.maxBodyBytes=8388608",
        "mcpGatewayExtension.sessionStore.secretName=redis",
        "mcpGatewayExtension.trustedHeadersKey.secretName=key",
        "mcpGatewayExtension.caCertBundleRef.name=ca",
        "mcpGatewayExtension.oauthProtectedResource.authorizationServers={https://idp.example.com}",
        "mcpGatewayExtension.networkPolicyManagement=Disabled",
        "broker.pollInterval=30",
    ];
    let release = render("mcp-gateway", "mcp-system", &values);
    let mut spec = release.one("MCPGatewayExtension", "mcp-gateway").unwrap()["spec"].clone();
    spec.as_object_mut().unwrap().remove("targetRef");
    assert_eq!(
        spec,
        json!({
            "httpRouteManagement": "Disabled", "urlElicitation": "Enabled", "logLevel": "debug",
            "maxBodyBytes": 8_388_608, "sessionStore": {"secretName": "redis"},
            "trustedHeadersKey": {"secretName": "key"}, "caCertBundleRef": {"name": "ca"},
            "oauthProtectedResource": {"authorizationServers": ["https://idp.example.com"]},
            "networkPolicyManagement": "Disabled", "backendPingIntervalSeconds": 30,
        })
    );
}

#[test]
fn the_deployments_are_those_of_kustomize() {
    let release = render("mcp-gateway", "mcp-system", &[]);
    for (path, name) in [
        ("config/manager/deployment.yaml", "mcp-gateway-controller"),
        ("config/webhook/deployment.yaml", "mcp-gateway-webhook"),
    ] {
        let mut wanted = generated(path).remove(0)["spec"].clone();
        let mut got = release.one("Deployment", name).unwrap()["spec"].clone();
        for spec in [&mut wanted, &mut got] {
            let container = spec.pointer_mut("/template/spec/containers/0").unwrap();
            container.as_object_mut().unwrap().remove("imagePullPolicy");
            container["env"]
                .as_array_mut()
                .unwrap()
                .retain(|entry| entry["name"] != "WEBHOOK_CONFIGURATION_OWNER");
        }
        assert_eq!(got, wanted);
    }
}

#[test]
fn the_rules_are_those_of_kustomize_and_one_read_of_the_own_role() {
    let release = render("mcp-gateway", "mcp-system", &[]);
    for (path, name) in [
        ("config/rbac/operator.yaml", "mcp-gateway-controller"),
        ("config/rbac/webhook.yaml", "mcp-gateway-webhook"),
    ] {
        for role in generated(path)
            .iter()
            .filter(|object| object.get("rules").is_some())
        {
            let got = release.one(role["kind"].as_str().unwrap(), name).unwrap();
            let (mut rules, wanted) = (
                got["rules"].as_array().unwrap().clone(),
                role["rules"].as_array().unwrap(),
            );
            if rules.len() > wanted.len() {
                let own = json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
                    "resourceNames": ["mcp-gateway-controller"], "verbs": ["get"]});
                assert_eq!(rules.pop().unwrap(), own);
            }
            assert_eq!(&rules, wanted, "{name}");
        }
    }
}

#[test]
fn a_node_port_and_more_listeners_come_when_asked() {
    let release = render(
        "mcp-gateway",
        "mcp-system",
        &[
            "gateway.create=true",
            "gateway.nodePort.create=true",
            "gateway.nodePort.statusPort.enabled=true",
            "gateway.nodePort.statusPort.nodePort=30472",
            "gateway.additionalListeners[0].name=extra",
            "gateway.additionalListeners[0].port=9090",
            "gateway.additionalListeners[0].protocol=HTTP",
        ],
    );
    let service = release.one("Service", "mcp-gateway-nodeport").unwrap();
    let ports: Vec<_> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["nodePort"].clone())
        .collect();
    assert_eq!(ports, [json!(30471), json!(30472)]);
    let gateway = release.one("Gateway", "mcp-gateway").unwrap();
    assert_eq!(
        gateway["spec"]["listeners"][0]["hostname"],
        "mcp.127-0-0-1.sslip.io"
    );
    assert_eq!(gateway["spec"]["listeners"][2]["port"], 9090);
}

#[test]
fn one_mirror_value_moves_operator_webhook_and_hook() {
    let release = render(
        "mcp-gateway",
        "mcp-system",
        &[
            "imageController.repository=reg.example.com/mirror/operator",
            "imageController.tag=1",
        ],
    );
    let image = |kind: &str, name: &str| {
        release
            .one(kind, name)
            .and_then(|object| object.pointer("/spec/template/spec/containers/0/image").cloned())
            .unwrap()
    };
    assert_eq!(
        image("Deployment", "mcp-gateway-controller"),
        "reg.example.com/mirror/operator:1"
    );
    assert_eq!(
        image("Deployment", "mcp-gateway-webhook"),
        "reg.example.com/mirror/webhook:1"
    );
    assert_eq!(
        image("Job", "mcp-gateway-uninstall"),
        "reg.example.com/mirror/cli:1"
    );
}

#[test]
fn pods_take_labels_annotations_placement_and_resources_from_values() {
    let release = render(
        "mcp-gateway",
        "mcp-system",
        &[
            "commonLabels.team=x",
            "podAnnotations.note=y",
            "nodeSelector.disk=ssd",
            "resources.limits.memory=1Gi",
            "tolerations[0].operator=Exists",
            "imagePullSecrets[0].name=pull",
            "affinity.nodeAffinity.x=y",
        ],
    );
    for name in ["mcp-gateway-controller", "mcp-gateway-webhook"] {
        let template = &release.one("Deployment", name).unwrap()["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["team"], "x");
        assert_eq!(template["metadata"]["annotations"]["note"], "y");
        let pod = &template["spec"];
        assert_eq!(pod["nodeSelector"]["disk"], "ssd");
        assert_eq!(pod["tolerations"][0]["operator"], "Exists");
        assert_eq!(pod["imagePullSecrets"][0]["name"], "pull");
        assert_eq!(pod["affinity"]["nodeAffinity"]["x"], "y");
        assert_eq!(
            pod["containers"][0]["resources"],
            json!({"limits": {"memory": "1Gi"}})
        );
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_by_the_schema() {
    for (value, word) in [
        ("webhook.certs=maybe", "certs"),
        ("gateway.port=99999", "port"),
        ("broker.pollInterval=1", "pollInterval"),
        ("mcpGatewayExtension.logLevel=loud", "logLevel"),
    ] {
        let error = Rendered::new(Helm::V4, "x", "y", &[value])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(word), "{value}: {error}");
    }
}

#[test]
fn the_hook_before_uninstall_is_there_only_with_the_controller() {
    assert!(
        render("m", "n", &[])
            .one("Job", "mcp-gateway-uninstall")
            .is_some()
    );
    assert!(
        render("m", "n", TEAM_A)
            .one("Job", "mcp-gateway-uninstall")
            .is_none()
    );
}
