use mcp_gateway_api::config::{PolicyAction, parse};
use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::Objects,
    kinds::Kind,
    secrets::{Reading, SecretContent},
};

fn key() -> ObjectKey {
    ObjectKey::new("team", "ext")
}

/// The document of `team/ext`.
fn made(objects: &Objects, secrets: &Readings, former: Option<&GatewayConfig>) -> Document {
    let snapshot = Snapshot::compute(objects.0.versioned_world(), "cluster.local");
    let extension = snapshot.world.extension(&key()).expect("stored").clone();
    let accepted = snapshot.accepted(&key()).expect("accepted");
    let sources = Sources {
        snapshot: &snapshot,
        extension: &extension,
        accepted,
        secrets,
        policy_inputs: PolicyInputs {
            secrets,
            config_maps: secrets,
        },
        ca_bundle: "",
        former,
    };
    document(&sources).expect("a document")
}

fn config(document: &Document) -> GatewayConfig {
    parse(&document.rendered.yaml).expect("a document that parses")
}

fn names(document: &Document) -> Vec<String> {
    config(document)
        .servers
        .into_iter()
        .map(|server| server.name)
        .collect()
}

fn registration(name: &str) -> WorkItem {
    WorkItem::Registration(ObjectKey::new("apps", name))
}

fn with_credential() -> Objects {
    let spec = json!({"credentialRef": {"name": "token", "key": "token"}});
    Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &spec)
}

fn token(reading: Reading) -> Readings {
    Readings::from([(ObjectKey::new("apps", "token"), reading)])
}

#[test]
fn servers_are_ordered_by_age_and_equal_input_gives_equal_bytes() {
    let objects = || {
        Objects::default()
            .gateway_and_extension()
            .server("apps/young", 9, &json!({}))
            .server("apps/old", 2, &json!({}))
    };
    let document = made(&objects(), &Readings::new(), None);
    assert_eq!(names(&document), ["apps/old", "apps/young"]);
    assert_eq!(
        made(&objects(), &Readings::new(), None).rendered.yaml,
        document.rendered.yaml
    );
    let server = &config(&document).servers[0];
    assert_eq!(server.url, "http://old.apps.svc.cluster.local:80/mcp");
    assert_eq!(
        (server.hostname.as_str(), server.prefix.as_str()),
        ("old.mcp.local", "old_")
    );
    assert_eq!(config(&document).public_hosts, ["mcp.example.com"]);
}

#[test]
fn t42_a_secret_that_cannot_be_read_keeps_the_former_entry_and_an_absent_one_removes_it() {
    let objects = with_credential();
    let content = SecretContent::for_test(&[("token", b"Bearer x\n")], true);
    let good = made(&objects, &token(Reading::Present(content)), None);
    let former = config(&good);
    assert_eq!(former.servers[0].credential.expose(), "Bearer x");
    let unreadable = made(&objects, &token(Reading::Unknown), Some(&former));
    assert_eq!(unreadable.rendered.yaml, good.rendered.yaml);
    assert!(unreadable.inconclusive);
    assert!(unreadable.contents.problems.contains_key(&registration("one")));
    let absent = made(&objects, &token(Reading::Absent), Some(&former));
    assert!(names(&absent).is_empty() && !absent.inconclusive);
    assert!(absent.contents.problems[&registration("one")].contains("not found"));
}

#[test]
fn t39_the_loser_of_a_prefix_has_no_entry() {
    let objects = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({"prefix": "same_"}))
        .server("apps/two", 2, &json!({"prefix": "same_"}));
    assert_eq!(names(&made(&objects, &Readings::new(), None)), ["apps/one"]);
}

#[test]
fn t41_a_document_beyond_the_limit_serves_the_oldest_and_names_the_rest() {
    let mut objects = Objects::default().gateway_and_extension();
    for number in 0..30 {
        let hint = "x".repeat(40_000);
        objects = objects.server(&format!("apps/s{number:02}"), number, &json!({"hint": hint}));
    }
    let policy = json!({"spec": {"targetRefs": [{"group": "mcp.kuadrant.io", "kind": "MCPServerRegistration", "name": "s00"}]}});
    let objects = objects.put(Kind::AuthPolicy, "apps/policy", &policy);
    let document = made(&objects, &Readings::new(), None);
    assert!(document.rendered.yaml.len() <= CONFIG_MAX_BYTES);
    let served = names(&document);
    assert!(served.len() > 15 && served.len() < 30, "{}", served.len());
    assert_eq!(served.first().map(String::as_str), Some("apps/s00"));
    assert_eq!(document.contents.problems.len() + served.len(), 30);
    assert!(document.contents.problems[&registration("s29")].starts_with("config too large"));
    assert_eq!(
        config(&document).auth_policies.len(),
        1,
        "a policy is never dropped"
    );
}

#[test]
fn t45_virtual_servers_of_every_namespace_are_in_and_terminating_ones_are_not() {
    let spec = json!({"spec": {"tools": ["a", "b", "a"], "prompts": []}});
    let mut leaving = spec.clone();
    leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:01:00Z"});
    let objects = Objects::default()
        .gateway_and_extension()
        .put(Kind::VirtualServer, "any/where", &spec)
        .put(Kind::VirtualServer, "any/leaving", &leaving);
    let servers = config(&made(&objects, &Readings::new(), None)).virtual_servers;
    assert_eq!(servers.len(), 1);
    assert_eq!(
        (servers[0].name.as_str(), servers[0].tools.len()),
        ("any/where", 2)
    );
    assert_eq!(
        (servers[0].prompts.as_deref(), servers[0].resources.as_deref()),
        (Some(&[] as &[String]), None)
    );
}

#[test]
fn a_policy_goes_to_the_extensions_that_it_concerns() {
    let policy = |kind: &str, group: &str, name: &str| json!({"spec": {"targetRefs": [{"group": group, "kind": kind, "name": name}]}});
    let open = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({}));
    assert!(!config(&made(&open, &Readings::new(), None)).auth_required);
    let on_server = policy("MCPServerRegistration", "mcp.kuadrant.io", "one");
    let one_closed = open.put(Kind::AuthPolicy, "apps/policy", &on_server);
    assert!(!config(&made(&one_closed, &Readings::new(), None)).auth_required);
    let on_gateway = policy("Gateway", "gateway.networking.k8s.io", "gw");
    let closed = one_closed.put(Kind::AuthPolicy, "infra/policy", &on_gateway);
    let elsewhere = closed
        .put(
            Kind::AuthPolicy,
            "other/policy",
            &policy("Gateway", "gateway.networking.k8s.io", "gw"),
        )
        .put(
            Kind::AuthPolicy,
            "other/server",
            &policy("MCPServerRegistration", "mcp.kuadrant.io", "one"),
        );
    let config = config(&made(&elsewhere, &Readings::new(), None));
    let named: Vec<(&str, bool, &str)> = config
        .auth_policies
        .iter()
        .map(|policy| {
            (
                policy.name.as_str(),
                policy.valid,
                policy.targets[0].name.as_str(),
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            ("apps/policy", true, "apps/one"),
            ("infra/policy", true, "infra/gw")
        ]
    );
}

#[test]
fn a_policy_that_cannot_be_read_closes_what_it_names() {
    let strange = json!({"spec": {
        "targetRefs": [{"group": "mcp.kuadrant.io", "kind": "MCPServerRegistration", "name": "one"}, {"kind": "Unheard"}],
        "defaultAction": "Perhaps", "rules": [{"resource": {"kind": "tool", "name": "*"}}],
    }});
    let objects = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({}))
        .put(Kind::AuthPolicy, "apps/policy", &strange);
    let policies = config(&made(&objects, &Readings::new(), None)).auth_policies;
    let [policy] = policies.as_slice() else {
        panic!("one policy: {policies:?}")
    };
    assert_eq!(policy.targets[0].name, "apps/one");
    assert!(policy.rules.is_empty() && policy.default_action == PolicyAction::Deny);
}

#[test]
fn a_call_timeout_is_written_and_sse_needs_the_direct_path() {
    let timed = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({"callTimeoutSeconds": 30}))
        .server("apps/old", 2, &json!({"transport": "sse"}));
    let document = made(&timed, &Readings::new(), None);
    assert_eq!(config(&document).servers[0].call_timeout, "30s");
    assert_eq!(names(&document), ["apps/one"]);
    assert!(document.contents.problems[&registration("old")].contains("dataPath Direct"));
    let direct = json!({"spec": {"dataPath": "Direct",
        "targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
    let document = made(
        &timed.put(Kind::Extension, "team/ext", &direct),
        &Readings::new(),
        None,
    );
    assert_eq!(config(&document).servers[1].transport, "sse");
}

#[test]
fn client_credentials_are_forwarded_only_where_the_extension_allows_it() {
    let spec = json!({"forwardHeaders": ["authorization"]});
    let foreign = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &spec);
    assert!(
        config(&made(&foreign, &Readings::new(), None)).servers[0]
            .forward_headers
            .is_empty()
    );
    let allowing: Value = json!({"spec": {"forwardHeadersFrom": ["apps"],
        "targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
    let allowed = foreign.put(Kind::Extension, "team/ext", &allowing);
    assert_eq!(
        config(&made(&allowed, &Readings::new(), None)).servers[0].forward_headers,
        ["authorization"]
    );
}

/// A virtual server of about 2 MB.
fn huge() -> Value {
    let resources: Vec<String> = (0..1024)
        .map(|number| format!("file:///{number}/{}", "x".repeat(2000)))
        .collect();
    json!({"tools": ["a"], "resources": resources})
}

#[test]
fn a_virtual_server_that_is_too_large_changes_nothing_and_gets_the_message() {
    let objects = Objects::default()
        .gateway_and_extension()
        .server("apps/one", 1, &json!({}))
        .put_at(
            Kind::VirtualServer,
            "apps/small",
            2,
            &json!({"spec": {"tools": ["a"]}}),
        );
    let good = made(&objects, &Readings::new(), None);
    let former = config(&good);
    let objects = objects
        .put_at(Kind::VirtualServer, "apps/huge", 9, &json!({"spec": huge()}))
        .server("apps/two", 3, &json!({}));
    let kept = made(&objects, &Readings::new(), Some(&former));
    assert_eq!(kept.rendered.yaml, good.rendered.yaml);
    let contents = &kept.contents;
    assert_eq!(
        contents.served,
        BTreeMap::from([(ObjectKey::new("apps", "one"), 1)])
    );
    let held = |name: &str| contents.virtual_servers[&ObjectKey::new("apps", name)];
    assert_eq!(held("small"), 1);
    assert_ne!(held("huge"), 1, "no broker holds it");
    let problem = |item: &WorkItem| contents.problems.get(item).map_or("", String::as_str);
    let youngest = WorkItem::VirtualServer(ObjectKey::new("apps", "huge"));
    assert!(
        problem(&youngest).starts_with("config too large: 2"),
        "{:?}",
        contents.problems
    );
    assert!(problem(&youngest).contains("of 900000 bytes"));
    assert!(problem(&registration("two")).ends_with("shorten or delete MCPVirtualServer apps/huge"));
    assert_eq!(contents.problems.len(), 2);
    assert!(kept.oversize.is_some());
}

#[test]
fn a_document_that_was_never_small_enough_is_empty_and_closed() {
    let objects = Objects::default().gateway_and_extension().put(
        Kind::VirtualServer,
        "apps/huge",
        &json!({"spec": huge()}),
    );
    let empty = config(&made(&objects, &Readings::new(), None));
    assert!(empty.auth_required && empty.servers.is_empty() && empty.virtual_servers.is_empty());
}

/// An accepted HTTPRoute on the Gateway that leads to the extension's broker.
fn to_broker(host: &str, parent: &Value) -> Value {
    json!({
        "spec": {"hostnames": [host], "rules": [{"backendRefs": [
            {"name": "mcp-gateway", "namespace": "team", "port": 8080}]}]},
        "status": {"parents": [{"controllerName": "istio.io/gateway-controller", "parentRef": parent,
            "conditions": [{"type": "Accepted", "status": "True"}]}]},
    })
}

#[test]
fn a_foreign_namespace_adds_public_hosts_only_with_a_grant() {
    let parent = json!({"name": "gw", "namespace": "infra", "sectionName": "mcp"});
    let objects = Objects::default()
        .gateway_and_extension()
        .put(
            Kind::HttpRoute,
            "team/own",
            &to_broker("own.example.com", &parent),
        )
        .put(
            Kind::HttpRoute,
            "evil/theirs",
            &to_broker("evil.example.com", &parent),
        );
    let hosts = |objects: &Objects| config(&made(objects, &Readings::new(), None)).public_hosts;
    assert_eq!(hosts(&objects), ["mcp.example.com", "own.example.com"]);
    let grant = json!({"spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "evil"}],
        "to": [{"group": "", "kind": "Service", "name": "mcp-gateway"}],
    }});
    let granted = objects.put(Kind::ReferenceGrant, "team/allow", &grant);
    assert_eq!(
        hosts(&granted),
        ["evil.example.com", "mcp.example.com", "own.example.com"]
    );
}

#[test]
fn a_custom_route_on_another_port_adds_no_public_host() {
    let parent = |port: i64| json!({"name": "gw", "namespace": "infra", "port": port});
    let objects = Objects::default()
        .gateway_and_extension()
        .put(
            Kind::HttpRoute,
            "team/here",
            &to_broker("here.example.com", &parent(8080)),
        )
        .put(
            Kind::HttpRoute,
            "team/there",
            &to_broker("there.example.com", &parent(9090)),
        );
    let hosts = config(&made(&objects, &Readings::new(), None)).public_hosts;
    assert_eq!(hosts, ["here.example.com", "mcp.example.com"]);
}
