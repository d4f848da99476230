//! The builders, against explicit expectations of operator.md 5.

use std::sync::Arc;

use mcp_gateway_api::extension::MCPGatewayExtension;
use serde_json::json;

use super::*;
use crate::blueprint::{Settings, SigningKey};

/// A blueprint for the extension `team-a/ext` with `spec` merged over a minimal one.
pub(crate) fn blueprint(spec: &Value) -> Blueprint {
    let mut full = json!({"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}});
    if let (Value::Object(full), Value::Object(spec)) = (&mut full, spec) {
        full.extend(spec.clone());
    }
    let extension: MCPGatewayExtension = serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"name": "ext", "namespace": "team-a", "uid": "u-1", "generation": 1},
        "spec": full,
    }))
    .expect("an extension");
    Blueprint {
        extension: Arc::new(extension),
        key: ObjectKey::new("team-a", "ext"),
        gateway: ObjectKey::new("infra", "gw"),
        bound_port: 8080,
        public_host: "mcp.example.com".to_owned(),
        private_host: "gw-istio.infra.svc.cluster.local:8080".to_owned(),
        revision: None,
        config_yaml: "servers: []\n".into(),
        env_secrets_hash: "hash".to_owned(),
        fresh_signing_key: SigningKey::new(b"0123456789abcdef0123456789abcdef".to_vec()),
        broker_image: "broker:1".to_owned(),
        users_max_body: None,
        settings: Arc::new(Settings {
            broker_image: "broker:1".to_owned(),
            manages_webhook: true,
            webhook_configuration_owner: None,
            operator_condition: None,
            broker_log_level: None,
            cluster_domain: "cluster.local".to_owned(),
            namespace: "mcp-system".to_owned(),
        }),
    }
}

fn command_of(body: &Value) -> Vec<String> {
    deployment::live_tokens(body, "command").expect("a command")
}

#[test]
fn the_command_is_that_of_the_contract() {
    let body = deployment::build(&blueprint(&json!({})), None).body(None);
    assert_eq!(
        command_of(&body),
        [
            "./mcp_gateway",
            "--mcp-broker-public-address=0.0.0.0:8080",
            "--mcp-gateway-private-host=gw-istio.infra.svc.cluster.local:8080",
            "--mcp-gateway-config=/config/config.yaml",
            "--mcp-check-interval=60",
            "--mcp-gateway-public-host=mcp.example.com",
            "--mcp-gateway-config-secret=team-a/mcp-gateway-config",
        ]
    );
    assert_eq!(
        body["metadata"]["annotations"][names::OWNED_FLAGS_ANNOTATION],
        "--mcp-broker-public-address,--mcp-check-interval,--mcp-gateway-config,--mcp-gateway-config-secret,\
         --mcp-gateway-private-host,--mcp-gateway-public-host"
    );
}

#[test]
fn optional_flags_follow_their_fields() {
    let spec = json!({"urlElicitation": "Enabled", "logLevel": "debug", "maxBodyBytes": 8388608, "dataPath": "Direct"});
    let body = deployment::build(&blueprint(&spec), None).body(None);
    let command = command_of(&body);
    let tail: Vec<&str> = command.iter().skip(6).map(String::as_str).collect();
    assert_eq!(
        tail,
        [
            "--enable-url-elicitation",
            "--log-level=-4",
            "--max-request-body-size=8388608",
            "--mcp-gateway-config-secret=team-a/mcp-gateway-config",
            "--data-path=direct",
        ]
    );
}

#[test]
fn s27_the_broker_runs_without_root_and_without_a_place_to_write() {
    let body = deployment::build(&blueprint(&json!({})), None).body(None);
    let pod = &body["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(container["securityContext"], expected);
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
    let volumes = pod["volumes"].as_array().expect("volumes");
    let read_only = |volume: &&Value| volume.get("secret").or(volume.get("projected")).is_some();
    assert_eq!(
        volumes.iter().filter(read_only).count(),
        volumes.len(),
        "{volumes:?}"
    );
}

#[test]
fn t21_the_install_guides_patch_survives_a_change_of_the_spec() {
    let mut live = deployment::build(&blueprint(&json!({})), None).body(None);
    let pod = live.pointer_mut("/spec/template/spec").expect("a pod");
    let flag = "--gateway-ca-cert=/certs/gateway-ca.crt";
    pod["containers"][0]["command"]
        .as_array_mut()
        .expect("a list")
        .push(json!(flag));
    let changed = deployment::build(
        &blueprint(&json!({"backendPingIntervalSeconds": 30})),
        Some(&live),
    );
    let command = command_of(&changed.body(None));
    assert!(command.contains(&"--mcp-check-interval=30".to_owned()));
    assert_eq!(command.last().map(String::as_str), Some(flag));
}

#[test]
fn a_budget_takes_one_broker_at_a_time_until_a_user_says_otherwise() {
    let blueprint = blueprint(&json!({}));
    let spec = |live: Option<&Value>| disruption_budget::build(&blueprint, live).body(None)["spec"].clone();
    let ours = json!({"maxUnavailable": 1, "selector": {"matchLabels": common_labels()}});
    assert_eq!(spec(None), ours);
    assert_eq!(spec(Some(&json!({"spec": ours}))), ours);
    assert_eq!(
        spec(Some(&json!({"spec": {}}))),
        ours,
        "without numbers it would allow nothing"
    );
    for users in [json!({"minAvailable": 2}), json!({"maxUnavailable": "50%"})] {
        let selector = json!({"selector": {"matchLabels": common_labels()}});
        assert_eq!(spec(Some(&json!({"spec": users}))), selector, "{users}");
    }
}

#[test]
fn t20_the_container_is_found_by_name_behind_a_sidecar() {
    let mut live = deployment::build(&blueprint(&json!({})), None).body(None);
    let containers = live
        .pointer_mut("/spec/template/spec/containers")
        .expect("containers");
    let containers = containers.as_array_mut().expect("a list");
    containers[0]["command"]
        .as_array_mut()
        .expect("a list")
        .push(json!("--mine"));
    containers.insert(
        0,
        json!({"name": "sidecar", "command": ["other", "--log-level=1"]}),
    );
    let body = deployment::build(&blueprint(&json!({})), Some(&live)).body(None);
    assert_eq!(command_of(&body).last().map(String::as_str), Some("--mine"));
    let containers = body
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array)
        .expect("a list");
    assert_eq!(containers.len(), 1, "the sidecar is not in our body");
}

#[test]
fn t24_replicas_resources_and_policies_are_never_in_the_body() {
    let body = deployment::build(&blueprint(&json!({})), None).body(None);
    let spec = body["spec"].as_object().expect("a spec");
    assert_eq!(spec.keys().collect::<Vec<_>>(), ["selector", "template"]);
    let text = body.to_string();
    for absent in [
        "replicas",
        "resources",
        "affinity",
        "imagePullPolicy",
        "strategy",
        "tolerations",
    ] {
        assert!(!text.contains(&format!("\"{absent}\"")), "{absent}");
    }
}

#[test]
fn t25_the_services_type_is_never_in_the_body() {
    let body = service::build(&blueprint(&json!({}))).body(None);
    assert_eq!(
        body["spec"],
        json!({
            "selector": common_labels(),
            "ports": [
                {"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"},
                {"name": "grpc", "port": 50051, "targetPort": 50051, "protocol": "TCP"},
            ],
        })
    );
}

#[test]
fn children_carry_labels_and_one_controller() {
    let blueprint = blueprint(&json!({}));
    for child in [
        config_secret::build(&blueprint),
        signing_key::build(&blueprint, None),
        service_account::build(&blueprint),
        role::build(&blueprint),
        role_binding::build(&blueprint),
        network_policy::build(&blueprint),
        service::build(&blueprint),
        deployment::build(&blueprint, None),
        route::build(&blueprint),
        tokens_route::build(&blueprint),
    ] {
        let body = child.body(Some("7"));
        let labels = &body["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "mcp-gateway");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "mcp-gateway-controller");
        let owner = &body["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["uid"], &owner["controller"]),
            (&json!("u-1"), &json!(true))
        );
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["metadata"]["namespace"], "team-a");
    }
}

#[test]
fn t34_only_the_endpoint_and_its_metadata_are_routed() {
    let body = route::build(&blueprint(&json!({}))).body(None);
    let rules = body
        .pointer("/spec/rules")
        .and_then(Value::as_array)
        .expect("rules");
    let paths: Vec<&str> = rules
        .iter()
        .filter_map(|rule| rule.pointer("/matches/0/path/value").and_then(Value::as_str))
        .collect();
    assert_eq!(paths, ["/mcp", "/.well-known/oauth-protected-resource"]);
    assert_eq!(
        rules[0]["filters"][0]["requestHeaderModifier"]["remove"],
        json!(["mcp-init-host", "router-key"])
    );
    assert!(rules.iter().all(|rule| rule.get("name").is_none()));
}

#[test]
fn the_envoy_filter_lies_beside_the_gateway_and_names_its_extension() {
    let body = envoy_filter::build(&blueprint(&json!({})), Some("ns-uid")).body(None);
    assert_eq!(body["metadata"]["name"], "mcp-ext-proc-team-a-gateway");
    assert_eq!(body["metadata"]["namespace"], "infra");
    assert_eq!(body["metadata"]["ownerReferences"][0]["kind"], "Namespace");
    assert_eq!(body["metadata"]["ownerReferences"][0].get("controller"), None);
    let patches = body
        .pointer("/spec/configPatches")
        .and_then(Value::as_array)
        .expect("patches");
    let operations: Vec<&str> = patches
        .iter()
        .filter_map(|patch| patch.pointer("/patch/operation").and_then(Value::as_str))
        .collect();
    assert_eq!(
        operations,
        ["INSERT_FIRST", "INSERT_BEFORE", "INSERT_BEFORE", "MERGE"]
    );
    assert!(body["metadata"]["labels"].get("istio.io/rev").is_none());
}

#[test]
fn t35_the_listeners_buffer_fits_the_body_limit() {
    let limit = |spec: Value| {
        let body = envoy_filter::build(&blueprint(&spec), None).body(None);
        body.pointer("/spec/configPatches/3/patch/value/per_connection_buffer_limit_bytes")
            .cloned()
    };
    assert_eq!(
        limit(json!({"maxBodyBytes": 8388608})),
        Some(json!(8388608 + 65536))
    );
    assert_eq!(limit(json!({})), Some(json!(5242880 + 65536)));
    assert_eq!(limit(json!({"maxBodyBytes": 4096})), None);
}

#[test]
fn env_follows_the_features() {
    let names = |spec: Value| -> Vec<String> {
        let variables = env::variables(&blueprint(&spec));
        variables
            .iter()
            .filter_map(|variable| variable["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        names(json!({})),
        [
            "GATEWAY_SIGNING_KEY",
            "GATEWAY_SIGNING_KEY_PREVIOUS",
            "POD_NAME",
            "POD_NAMESPACE"
        ]
    );
    let all = names(json!({
        "trustedHeadersKey": {"secretName": "t"}, "sessionStore": {"secretName": "s"},
        "oauthProtectedResource": {"authorizationServers": ["https://idp.example"]},
    }));
    for name in [
        "TRUSTED_HEADER_PUBLIC_KEY",
        "CACHE_CONNECTION_STRING",
        "OAUTH_RESOURCE",
        "OAUTH_SCOPES_SUPPORTED",
    ] {
        assert!(all.contains(&name.to_owned()), "{name}");
    }
}

#[test]
fn a_variable_that_a_user_added_beside_ours_is_named() {
    let blueprint = blueprint(&json!({}));
    let mut live = deployment::build(&blueprint, None).body(None);
    assert!(env::repeated_variables(&live, &blueprint).is_empty());
    if let Some(list) = live
        .pointer_mut("/spec/template/spec/containers/0/env")
        .and_then(Value::as_array_mut)
    {
        list.push(json!({"name": "POD_NAME", "value": "mine"}));
        list.push(json!({"name": "MINE", "value": "1"}));
    }
    assert_eq!(env::repeated_variables(&live, &blueprint), ["POD_NAME"]);
}
