use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{fixtures::WorldBuilder, route::HttpRoute};

fn base() -> WorldBuilder {
    WorldBuilder::default()
        .gateway(Some("Listener"))
        .extension("infra/ext", 1, "infra/gw", "mcp")
        .service("team/weather", &json!({"ports": [{"port": 8000}]}))
        .route(
            "team/weather",
            "weather.mcp.local",
            Some("mcps"),
            &json!({"name": "weather", "port": 8000}),
        )
}

fn spec(route: &str, prefix: &str) -> Value {
    json!({"targetRef": {"name": route}, "prefix": prefix})
}

fn resolution(world: &World, key: &str) -> Resolution {
    let plan = Plan::compute(world, "cluster.local");
    plan.resolution(&ObjectKey::parse(key).expect("a key"))
        .expect("resolved")
        .clone()
}

fn problem(world: &World, key: &str) -> String {
    resolution(world, key).problem.expect("a problem").message
}

#[test]
fn a_server_on_another_listener_of_the_same_port_is_served() {
    let world = base()
        .registration("team/weather", 1, &spec("weather", "weather_"))
        .0;
    let resolution = resolution(&world, "team/weather");
    assert_eq!(resolution.problem, None);
    assert_eq!(resolution.served_by, [ObjectKey::new("infra", "ext")]);
    let backend = resolution.backend.expect("located");
    assert_eq!(backend.url, "http://weather.team.svc.cluster.local:8000/mcp");
    assert_eq!(backend.hostname, "weather.mcp.local");
}

#[test]
fn t39_the_loser_of_a_prefix_or_duplicate_route_conflict_has_no_entry() {
    let two_routes = base()
        .route(
            "team/second",
            "second.mcp.local",
            Some("mcps"),
            &json!({"name": "weather", "port": 8000}),
        )
        .registration("team/a", 1, &spec("weather", "w_"))
        .registration("team/b", 2, &spec("second", "w_"));
    let loser = resolution(&two_routes.0, "team/b");
    assert_eq!(loser.served_by, []);
    assert_eq!(
        loser.problem.expect("a problem").reason,
        RegistrationReason::PrefixConflict
    );
    let mut world = base()
        .registration("team/a", 1, &spec("weather", "a_"))
        .registration("team/b", 2, &spec("weather", "b_"))
        .0;
    assert_eq!(
        problem(&world, "team/b"),
        "conflict: HTTPRoute team/weather path /mcp is already registered by MCPServerRegistration team/a"
    );
    world.remove_registration(&ObjectKey::new("team", "a"));
    assert_eq!(resolution(&world, "team/b").problem, None);
}

#[test]
fn a_loser_takes_nothing_from_those_who_come_after_it() {
    let world = base()
        .route(
            "team/third",
            "third.mcp.local",
            Some("mcps"),
            &json!({"name": "weather", "port": 8000}),
        )
        .registration("team/a", 1, &spec("weather", "a_"))
        .registration("team/b", 2, &spec("weather", "p_"))
        .registration("team/c", 3, &spec("third", "p_"))
        .0;
    assert_eq!(resolution(&world, "team/c").problem, None);
}

#[test]
fn t14_a_service_of_another_namespace_needs_a_grant() {
    let world = base()
        .service("vault/db", &json!({"ports": [{"port": 80}]}))
        .route(
            "team/db",
            "db.mcp.local",
            Some("mcps"),
            &json!({"name": "db", "namespace": "vault", "port": 80}),
        )
        .registration("team/db", 1, &spec("db", ""));
    let refused = resolution(&world.0, "team/db");
    assert_eq!(refused.backend, None);
    assert_eq!(
        refused.problem.expect("a problem").reason,
        RegistrationReason::ReferenceGrantRequired
    );
    let granted = world.grant(
        ("gateway.networking.k8s.io", "HTTPRoute", "team"),
        "vault",
        ("", "Service"),
    );
    assert_eq!(resolution(&granted.0, "team/db").problem, None);
}

#[test]
fn t13_a_route_of_another_namespace_needs_a_grant() {
    let foreign = json!({"targetRef": {"name": "weather", "namespace": "team"}});
    let world = base().registration("other/reg", 1, &foreign);
    let message = problem(&world.0, "other/reg");
    assert!(
        message.starts_with("ReferenceGrant required in namespace team"),
        "{message}"
    );
    let granted = world.grant(
        ("mcp.kuadrant.io", "MCPServerRegistration", "other"),
        "team",
        ("gateway.networking.k8s.io", "HTTPRoute"),
    );
    assert_eq!(resolution(&granted.0, "other/reg").problem, None);
}

#[test]
fn each_missing_piece_is_named() {
    let world = base()
        .route(
            "team/lost",
            "lost.mcp.local",
            Some("mcps"),
            &json!({"name": "nowhere", "port": 80}),
        )
        .route(
            "team/own",
            "mcp.example.com",
            Some("mcp"),
            &json!({"name": "weather", "port": 8000}),
        )
        .route(
            "team/odd",
            "odd.mcp.local",
            Some("mcps"),
            &json!({"name": "b", "kind": "Bucket", "group": "s3.io"}),
        )
        .route(
            "team/nine",
            "nine.other.local",
            Some("other"),
            &json!({"name": "weather", "port": 8000}),
        )
        .registration("team/none", 1, &spec("absent", ""))
        .registration("team/lost", 1, &spec("lost", ""))
        .registration("team/own", 1, &spec("own", ""))
        .registration("team/odd", 1, &spec("odd", ""))
        .registration("team/nine", 1, &spec("nine", ""))
        .0;
    assert!(problem(&world, "team/none").starts_with("HTTPRoute team/absent not found"));
    assert!(problem(&world, "team/lost").starts_with("service team/nowhere not found"));
    assert!(
        problem(&world, "team/own").starts_with("hostname mcp.example.com is used by MCPGatewayExtension")
    );
    assert!(problem(&world, "team/odd").contains("unsupported backend reference kind Bucket"));
    assert!(
        problem(&world, "team/nine").starts_with("no matching mcpgatewayextensions for attached listener")
    );
}

#[test]
fn backends_become_urls() {
    let https = json!({"ports": [{"port": 443, "name": "HTTPS"}]});
    let external = json!({"type": "ExternalName", "externalName": "api.example.com", "ports": [{"port": 443, "appProtocol": "https"}]});
    let world = base()
        .service("team/tls", &https)
        .service("team/ext", &external)
        .route(
            "team/tls",
            "tls.mcp.local",
            Some("mcps"),
            &json!({"name": "tls", "port": 443}),
        )
        .route(
            "team/ext",
            "ext.mcp.local",
            Some("mcps"),
            &json!({"name": "ext", "port": 443}),
        )
        .route(
            "team/host",
            "host.mcp.local",
            Some("mcps"),
            &json!({"name": "h.example.com", "kind": "Hostname", "group": "networking.istio.io"}),
        )
        .registration("team/tls", 1, &spec("tls", ""))
        .registration("team/ext", 1, &spec("ext", ""))
        .registration("team/host", 1, &spec("host", ""))
        .0;
    let at = |key: &str| resolution(&world, key).backend.expect("located");
    assert_eq!(at("team/tls").url, "https://tls.team.svc.cluster.local:443/mcp");
    assert_eq!(
        at("team/ext"),
        Backend {
            url: "https://api.example.com:443/mcp".into(),
            hostname: "api.example.com".into()
        }
    );
    assert_eq!(at("team/host").url, "https://h.example.com:443/mcp");
}

#[test]
fn t40_several_parents_on_one_gateway_give_one_entry() {
    let accepted = json!([{"type": "Accepted", "status": "True"}]);
    let parent = |gateway: &str, section: &str| {
        json!({"controllerName": "istio.io/gateway-controller", "conditions": accepted,
            "parentRef": {"name": gateway, "namespace": "infra", "sectionName": section}})
    };
    let mut world = base().registration("team/weather", 1, &spec("weather", "")).0;
    let route = json!({"metadata": {"namespace": "team", "name": "weather"},
        "spec": {"hostnames": ["weather.mcp.local"], "rules": [{"backendRefs": [{"name": "weather", "port": 8000}]}]},
        "status": {"parents": [parent("unknown", "mcp"), parent("gw", "mcp"), parent("gw", "mcps")]}});
    world.set_route(Arc::new(HttpRoute::from_value(&route).expect("a route")));
    let resolution = resolution(&world, "team/weather");
    assert_eq!((resolution.served_by.len(), resolution.problem), (1, None));
}
