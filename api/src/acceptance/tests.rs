use super::*;
use crate::fixtures::{WorldBuilder, extension};

fn findings(world: &World, key: &str) -> Vec<Rule> {
    let key = ObjectKey::parse(key).expect("a key");
    judge(world, world.extension(&key).expect("stored"))
        .findings
        .iter()
        .map(|finding| finding.rule)
        .collect()
}

fn two_teams(scope: Option<&str>, listeners: [&str; 2]) -> World {
    let world = WorldBuilder::default()
        .gateway(scope)
        .gateway_grant("team-a")
        .gateway_grant("team-b");
    let [a, b] = listeners;
    world
        .extension("team-a/ext", 1, "infra/gw", a)
        .extension("team-b/ext", 2, "infra/gw", b)
        .0
}

#[test]
fn the_older_extension_keeps_namespace_and_gateway() {
    let world = WorldBuilder::default()
        .gateway(None)
        .extension("infra/a", 1, "infra/gw", "mcp")
        .extension("infra/b", 2, "infra/gw", "mcp")
        .0;
    assert_eq!(findings(&world, "infra/a"), []);
    assert_eq!(findings(&world, "infra/b"), [Rule::Namespace]);
    let world = two_teams(None, ["mcp", "other"]);
    assert_eq!(findings(&world, "team-a/ext"), []);
    assert_eq!(findings(&world, "team-b/ext"), [Rule::GatewayExclusive]);
}

#[test]
fn t8_in_listener_scope_the_port_is_what_one_extension_has() {
    let world = two_teams(Some("Listener"), ["mcp", "mcps"]);
    assert_eq!(findings(&world, "team-b/ext"), [Rule::PortExclusive]);
    let world = two_teams(Some("Listener"), ["mcp", "other"]);
    assert_eq!(findings(&world, "team-a/ext"), []);
    assert_eq!(findings(&world, "team-b/ext"), []);
    let world = two_teams(Some("Gateway"), ["mcp", "other"]);
    assert_eq!(findings(&world, "team-b/ext"), [Rule::GatewayExclusive]);
}

#[test]
fn t9_who_lacks_grant_gateway_or_listener_makes_nobody_a_loser() {
    let base = || WorldBuilder::default().gateway(None).gateway_grant("team-b");
    let without_grant = base().extension("team-a/ext", 1, "infra/gw", "mcp");
    let without_listener = base()
        .gateway_grant("team-a")
        .extension("team-a/ext", 1, "infra/gw", "nope");
    for builder in [without_grant, without_listener] {
        let world = builder.extension("team-b/ext", 2, "infra/gw", "mcp").0;
        assert_eq!(findings(&world, "team-b/ext"), []);
        assert_eq!(findings(&world, "team-a/ext").len(), 1);
    }
}

#[test]
fn t12_without_a_grant_nothing_depends_on_the_foreign_gateway() {
    let with_gateway = WorldBuilder::default()
        .gateway(None)
        .extension("infra/own", 0, "infra/gw", "mcp");
    let without = WorldBuilder::default();
    let stranger = extension("team-a/ext", 1, "infra/gw", "mcp");
    let messages = |world: &World| judge(world, &stranger).findings;
    assert_eq!(messages(&with_gateway.0), messages(&without.0));
    let findings = messages(&without.0);
    assert_eq!(
        findings[0].message,
        "invalid: ReferenceGrant required in namespace infra to allow cross-namespace reference from team-a"
    );
    assert_eq!(findings[0].reason(), ExtensionReason::ReferenceGrantRequired);
}

#[test]
fn t10_an_absent_target_namespace_is_the_own_one() {
    let mut own = extension("infra/ext", 1, "infra/gw", "mcp");
    own.spec.target_ref.namespace = None;
    let world = WorldBuilder::default().gateway(None).0;
    assert!(judge(&world, &own).accepted.is_some());
}

#[test]
fn t6_a_terminating_extension_holds_nothing() {
    let mut world = two_teams(None, ["mcp", "mcp"]);
    let mut winner = extension("team-a/ext", 1, "infra/gw", "mcp");
    winner.metadata.deletion_timestamp = winner.metadata.creation_timestamp.clone();
    world.set_extension(Arc::new(winner));
    assert_eq!(findings(&world, "team-b/ext"), []);
}

#[test]
fn a_namespace_loser_does_not_compete_for_a_gateway() {
    let world = WorldBuilder::default()
        .gateway(None)
        .gateway_grant("team-a")
        .gateway_grant("team-b")
        .extension("team-a/elsewhere", 1, "team-a/gw", "mcp")
        .extension("team-a/loser", 2, "infra/gw", "mcp")
        .extension("team-b/ext", 3, "infra/gw", "mcp")
        .0;
    assert_eq!(findings(&world, "team-a/loser"), [Rule::Namespace]);
    assert_eq!(findings(&world, "team-b/ext"), []);
}

#[test]
fn messages_carry_the_fixed_words_and_the_names_of_listeners() {
    let world = WorldBuilder::default()
        .gateway(None)
        .extension("infra/ext", 1, "infra/gw", "nope")
        .0;
    let stored = world.extension(&ObjectKey::new("infra", "ext")).expect("stored");
    assert_eq!(
        judge(&world, stored).findings[0].message,
        "invalid: listener nope not found on gateway infra/gw; it has: mcp, mcps, other"
    );
}

#[test]
fn every_spec_violation_is_reported_with_its_field() {
    let mut bad = extension("infra/ext", 1, "infra/gw", "mcp");
    bad.spec.public_host = Some("Bad_Host".to_owned());
    bad.spec.private_host = Some("gw:port".to_owned());
    let fields: Vec<&str> = spec_findings(&bad.spec)
        .iter()
        .map(|finding| finding.field)
        .collect();
    assert_eq!(fields, ["spec.publicHost", "spec.privateHost"]);
}

#[test]
fn a_grant_of_the_retired_group_is_pointed_out() {
    let world = WorldBuilder::default()
        .grant(
            ("mcp.kagenti.com", "MCPGatewayExtension", "team-a"),
            "infra",
            ("gateway.networking.k8s.io", "Gateway"),
        )
        .0;
    let message = judge(&world, &extension("team-a/ext", 1, "infra/gw", "mcp"))
        .findings
        .remove(0)
        .message;
    assert!(
        message.ends_with("names group mcp.kagenti.com, expected mcp.kuadrant.io"),
        "{message}"
    );
}
