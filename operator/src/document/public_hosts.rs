//! The hosts under which a gateway is known to the router (operator.md 7).

use std::collections::BTreeSet;

use mcp_gateway_api::{
    acceptance::missing_grant_for, grant::Reference, names, object_key::ObjectKey, resolution::attached,
};

use super::Sources;

/// The public host and the exact hostnames of every accepted route on the listener that leads to our Service. A route of
/// another namespace counts only with a grant: its hosts become ours for the router, and origins that browsers may use.
pub(super) fn of(sources: &Sources<'_>) -> Vec<String> {
    let (accepted, world) = (sources.accepted, &sources.snapshot.world);
    let broker = ObjectKey::new(accepted.extension().namespace.as_str(), names::BROKER);
    let granted = |namespace: &str| {
        let reference = Reference {
            from: (names::GATEWAY_API_GROUP, "HTTPRoute"),
            from_namespace: namespace,
            to: ("", "Service"),
            target: &broker,
        };
        missing_grant_for(world, &reference).is_none()
    };
    let custom = world.routes().filter(|route| {
        let namespace = &route.key.namespace;
        let mut backends = route.rules.iter().flat_map(|rule| &rule.backend_refs);
        route.live
            && backends.any(|backend| backend.service(namespace).as_ref() == Some(&broker))
            && granted(namespace)
            && attached(world, route, accepted)
    });
    let hostnames = custom.flat_map(|route| {
        route
            .hostnames
            .iter()
            .filter(|host| !host.starts_with("*."))
            .cloned()
    });
    let hosts: BTreeSet<String> = hostnames.chain([accepted.public_host().to_owned()]).collect();
    hosts.into_iter().collect()
}
