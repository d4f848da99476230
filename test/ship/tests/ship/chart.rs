//! The chart, rendered by Helm 3 and Helm 4 (operator.md 12, seeds 000 and 002).

use mcp_gateway_ship::{
    chart::Rendered,
    combinations::{CONTROLLER, EVERY, INSTALL, TEAM_A},
    helm::{EITHER, Helm, root},
};
use serde_json::{Value, json};

pub(crate) fn render(name: &str, namespace: &str, values: &[&str]) -> Rendered {
    Rendered::new(Helm::V4, name, namespace, values).unwrap()
}

pub(crate) fn generated(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

#[test]
fn helm_lint_is_content_even_when_strict() {
    for helm in EITHER {
        for values in EVERY {
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
    // They order kinds that they know differently.
    let sorted = |helm, values| {
        let release = Rendered::new(helm, "mcp-gateway", "mcp-system", values).unwrap();
        let mut objects: Vec<String> = release.objects().iter().map(Value::to_string).collect();
        objects.sort();
        objects
    };
    for values in EVERY {
        let [three, four] = EITHER.map(|helm| sorted(helm, values));
        let differing: Vec<_> = three
            .iter()
            .zip(&four)
            .filter(|(three, four)| three != four)
            .collect();
        assert!(
            three.len() == four.len() && differing.is_empty(),
            "{values:?}: {differing:?}"
        );
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
