//! Who was first: one extension for a namespace, for a Gateway or for a listener port (rows 2, 8 and 9 of operator.md 2.1).

use std::sync::Arc;

use super::{Finding, Rule, Site, spec_findings};
use crate::{
    extension::MCPGatewayExtension,
    gateway::Scope,
    object_key::{Age, ObjectKey, is_live},
    world::World,
};

/// Row 2: an older live extension has the namespace.
pub(super) fn namespace_finding(world: &World, extension: &MCPGatewayExtension) -> Option<Finding> {
    let key = ObjectKey::of(&extension.metadata);
    let winner = oldest_rival(world.extensions_in(&key.namespace), extension)?;
    let namespace = &key.namespace;
    Some(Finding {
        rule: Rule::Namespace,
        field: "metadata.namespace",
        message: format!(
            "conflict: namespace {namespace} already has MCPGatewayExtension {winner}; only one per namespace allowed"
        ),
        winner: Some(winner),
    })
}

/// Rows 8 and 9: an older extension that could be accepted has the Gateway, or the port.
pub(super) fn exclusive_finding(
    world: &World,
    extension: &MCPGatewayExtension,
    site: &Site<'_>,
) -> Option<Finding> {
    let (gateway, port) = (&site.gateway.key, site.listener.port);
    let scope = site.gateway.scope();
    let competes = |rival: &&Arc<MCPGatewayExtension>| {
        is_live(&rival.metadata)
            && spec_findings(&rival.spec).is_empty()
            && namespace_finding(world, rival).is_none()
            && super::site(world, rival)
                .is_ok_and(|theirs| scope == Scope::Gateway || theirs.listener.port == port)
    };
    let winner = oldest_rival(world.extensions_of(gateway).filter(competes), extension)?;
    let (rule, message) = match scope {
        Scope::Gateway => (
            Rule::GatewayExclusive,
            format!(
                "conflict: gateway {gateway} already has MCPGatewayExtension {winner}; only one per Gateway allowed"
            ),
        ),
        Scope::Listener => {
            let listener = world
                .extension(&winner)
                .map_or_else(String::new, |winner| winner.spec.target_ref.section_name.clone());
            let message = format!(
                "conflict: listener port {port} on gateway {gateway} is already configured by MCPGatewayExtension {winner} (listener {listener})"
            );
            (Rule::PortExclusive, message)
        }
    };
    let field = match scope {
        Scope::Gateway => "spec.targetRef.name",
        Scope::Listener => "spec.targetRef.sectionName",
    };
    Some(Finding {
        rule,
        field,
        message,
        winner: Some(winner),
    })
}

/// The oldest live extension among `candidates` that is older than `extension` and not the same object.
fn oldest_rival<'a>(
    candidates: impl Iterator<Item = &'a Arc<MCPGatewayExtension>>,
    extension: &MCPGatewayExtension,
) -> Option<ObjectKey> {
    let own_key = ObjectKey::of(&extension.metadata);
    let own_age = Age::of(&extension.metadata);
    candidates
        .filter(|rival| is_live(&rival.metadata) && ObjectKey::of(&rival.metadata) != own_key)
        .map(|rival| (Age::of(&rival.metadata), ObjectKey::of(&rival.metadata)))
        .filter(|(age, _)| age.older(&own_age))
        .reduce(|a, b| if b.0.older(&a.0) { b } else { a })
        .map(|(_, key)| key)
}
