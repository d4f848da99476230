//! Which routes can lead to an MCP server, and to which listeners they are attached (operator.md 8.1–8.3, 8.5).

use crate::{
    acceptance::{self, Accepted},
    gateway::Gateway,
    grant::Reference,
    hosts, names,
    object_key::ObjectKey,
    registration::MCPServerRegistration,
    resolution::Problem,
    route::{HttpRoute, ParentRef},
    world::{World, route_of},
};

/// A registration's route, once it has the shape that we support.
pub struct Routed<'a> {
    /// The route.
    pub route: &'a HttpRoute,
    /// `hostnames[0]`.
    pub hostname: &'a str,
    /// Gateways that accepted it.
    pub gateways: Vec<ObjectKey>,
}

/// The route of a registration, when it exists, may be referred to, has the supported shape and is accepted by some
/// Gateway (operator.md 8.1–8.3).
///
/// # Errors
/// The first thing that is wrong.
pub fn routed<'a>(world: &'a World, registration: &MCPServerRegistration) -> Result<Routed<'a>, Problem> {
    let key = route_of(registration);
    let namespace = registration.metadata.namespace.as_deref().unwrap_or_default();
    let reference = Reference {
        from: (names::GROUP, "MCPServerRegistration"),
        from_namespace: namespace,
        to: (names::GATEWAY_API_GROUP, "HTTPRoute"),
        target: &key,
    };
    if let Some(hint) = acceptance::missing_grant_for(world, &reference) {
        return Err(Problem::ungranted(&key.namespace, namespace, &hint));
    }
    let route = world.route(&key).filter(|route| route.live).ok_or_else(|| {
        Problem::not_ready(format!(
            "HTTPRoute {key} not found; create it or correct spec.targetRef"
        ))
    })?;
    let hostname = shape(route).map_err(|what| Problem::not_ready(format!("HTTPRoute {key} has {what}")))?;
    let mut gateways: Vec<ObjectKey> = route.accepted_parents().map(|(gateway, _)| gateway).collect();
    gateways.sort();
    gateways.dedup();
    if gateways.is_empty() {
        return Err(Problem::not_ready(format!(
            "no valid gateways for httproute {key}: no parent has Accepted=True"
        )));
    }
    Ok(Routed {
        route,
        hostname,
        gateways,
    })
}

fn shape(route: &HttpRoute) -> Result<&str, &'static str> {
    let [rule] = route.rules.as_slice() else {
        return Err(if route.rules.is_empty() {
            "no rules"
        } else {
            "> 1 rule, which is unsupported"
        });
    };
    if rule.backend_refs.len() != 1 {
        let none = "no backendRefs; one is needed";
        return Err(if rule.backend_refs.is_empty() {
            none
        } else {
            "> 1 backendRefs, which is unsupported"
        });
    }
    match route.hostnames.first() {
        None => Err("no hostnames; one is needed"),
        Some(hostname) if hostname.starts_with("*.") => {
            Err("wildcard hostname, which is unsupported; put an exact one first")
        }
        Some(hostname) if !hosts::is_dns1123_subdomain(hostname) => {
            Err("a hostname that is not a DNS-1123 subdomain; put a valid one first")
        }
        Some(hostname) => Ok(hostname),
    }
}

pub(super) fn unresolved_refs(route: &HttpRoute) -> Option<Problem> {
    let key = &route.key;
    let condition = route
        .accepted_parents()
        .flat_map(|(_, parent)| &parent.conditions)
        .find(|condition| condition.kind == "ResolvedRefs" && condition.status == "False")?;
    Some(Problem::not_ready(format!(
        "HTTPRoute {key}: {}",
        condition.message
    )))
}

/// True when an accepted parent of `route` is on the listener port of the extension (operator.md 8.5).
#[must_use]
pub fn attached(world: &World, route: &HttpRoute, accepted: &Accepted) -> bool {
    route
        .accepted_parents()
        .any(|(_, parent)| attached_by(world, route, &parent.parent_ref, accepted))
}

/// True when the parentRef `parent` of `route` leads to the Gateway and listener port of the extension.
#[must_use]
pub fn attached_by(world: &World, route: &HttpRoute, parent: &ParentRef, accepted: &Accepted) -> bool {
    let (gateway, port) = (accepted.gateway(), accepted.listener().port);
    parent.gateway(&route.key.namespace).as_ref() == Some(&gateway.key)
        && on_port(world, route, parent, gateway, port)
}

fn on_port(world: &World, route: &HttpRoute, parent: &ParentRef, gateway: &Gateway, port: i32) -> bool {
    if let Some(section) = &parent.section_name {
        return gateway
            .listener(section)
            .is_some_and(|listener| listener.port == port);
    }
    if let Some(named) = parent.port {
        return named == port;
    }
    let namespace = &route.key.namespace;
    let labels = world.namespace_labels(namespace);
    gateway
        .listeners
        .iter()
        .filter(|listener| listener.port == port)
        .any(|listener| {
            let meets = |host: &String| hosts::intersect(Some(host), listener.hostname.as_deref());
            route.hostnames.iter().any(meets)
                && listener
                    .allowed_routes
                    .allow(namespace, &labels, &gateway.key.namespace)
        })
}
