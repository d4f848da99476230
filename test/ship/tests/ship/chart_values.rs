//! What single values of the chart do (operator.md 12).

use mcp_gateway_ship::{
    chart::Rendered,
    combinations::{EVERY, INSTALL},
    helm::{Helm, root},
};
use serde_json::{Value, json};

use crate::chart::render;

/// Paths of all values that the schema describes.
fn paths(schema: &Value, path: &str, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        found.push(path.to_owned());
        return;
    };
    for (name, schema) in properties {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        paths(schema, &below, found);
    }
}

#[test]
fn every_value_of_the_schema_is_in_a_combination_that_a_real_api_server_sees() {
    let schema = std::fs::read_to_string(root().join("charts/mcp-gateway/values.schema.json")).unwrap();
    let mut described = Vec::new();
    paths(&serde_json::from_str(&schema).unwrap(), "", &mut described);
    assert!(described.len() > 50, "{described:?}");
    let set = |path: &String| {
        let below = |value: &&str| {
            value
                .strip_prefix(path.as_str())
                .map(|rest| rest.starts_with(['=', '.', '[']))
        };
        EVERY
            .iter()
            .copied()
            .flatten()
            .any(|value| below(value) == Some(true))
    };
    let missing: Vec<_> = described.iter().filter(|path| !set(path)).collect();
    assert!(missing.is_empty(), "in no combination: {missing:?}");
}

#[test]
fn every_default_is_described_by_the_schema() {
    let read = |path: &str| std::fs::read_to_string(root().join("charts/mcp-gateway").join(path)).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let mut missing = Vec::new();
    undescribed(&schema, &values, "", &mut missing);
    assert!(missing.is_empty(), "not in values.schema.json: {missing:?}");
}

fn undescribed(schema: &Value, values: &Value, path: &str, missing: &mut Vec<String>) {
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else {
        return;
    };
    for (name, value) in values {
        let below = format!("{path}.{name}");
        match properties.get(name) {
            Some(schema) => undescribed(schema, value, &below, missing),
            None => missing.push(below),
        }
    }
}

#[test]
fn the_port_of_a_public_host_is_no_part_of_the_listeners_hostname() {
    let values = ["gateway.create=true", "gateway.publicHost=mcp.example.com:8080"];
    let release = render("mcp-gateway", "mcp-system", &values);
    let gateway = release.one("Gateway", "mcp-gateway").unwrap();
    assert_eq!(gateway["spec"]["listeners"][0]["hostname"], "mcp.example.com");
}

#[test]
fn images_of_webhook_and_hook_can_have_their_own_repository_tag_and_policy() {
    let values = [
        "webhook.image.repository=mirror.example.com/admission",
        "webhook.image.tag=1.2.3",
        "webhook.image.pullPolicy=Always",
        "uninstall.image.repository=mirror.example.com/mcpgw",
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
    assert_eq!(
        container("Deployment", webhook, "image"),
        "mirror.example.com/admission:1.2.3"
    );
    assert_eq!(container("Deployment", webhook, "imagePullPolicy"), "Always");
    assert_eq!(container("Job", hook, "image"), "mirror.example.com/mcpgw:4.5.6");
    assert_eq!(container("Job", hook, "imagePullPolicy"), "Never");
    let operator = container("Deployment", "mcp-gateway-controller", "imagePullPolicy");
    assert_eq!(operator, "IfNotPresent");
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
    let hook = &release.one("Job", "mcp-gateway-uninstall").unwrap()["spec"]["template"];
    assert_eq!(hook["metadata"]["labels"]["team"], "x");
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
