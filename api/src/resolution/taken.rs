//! Who has a prefix, an endpoint or a hostname already (operator.md 8.2, 8.9): registrations come oldest first.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    acceptance::Accepted,
    conditions::RegistrationReason,
    object_key::ObjectKey,
    registration::MCPServerRegistration,
    resolution::{Problem, Routed},
    route::HttpRoute,
    world::World,
};

/// What older registrations already have, per extension.
pub(super) struct Taken<'a> {
    prefixes: BTreeMap<(ObjectKey, String), ObjectKey>,
    endpoints: BTreeMap<(ObjectKey, ObjectKey, String), ObjectKey>,
    routes_by_host: BTreeMap<&'a str, Vec<&'a Arc<HttpRoute>>>,
}

impl<'a> Taken<'a> {
    /// Nothing is taken yet but the hostnames of routes.
    pub(super) fn new(world: &'a World) -> Self {
        let mut routes_by_host: BTreeMap<&str, Vec<&Arc<HttpRoute>>> = BTreeMap::new();
        for route in world
            .routes()
            .filter(|route| route.live && route.accepted_parents().next().is_some())
        {
            for hostname in &route.hostnames {
                routes_by_host.entry(hostname).or_default().push(route);
            }
        }
        Self {
            prefixes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            routes_by_host,
        }
    }

    /// Gives the registration a place at each extension where nothing older is in its way.
    pub(super) fn admit(
        &mut self,
        registration: &MCPServerRegistration,
        routed: &Routed<'_>,
        extensions: Vec<&Accepted>,
    ) -> (Vec<ObjectKey>, Option<Problem>) {
        let (mut served_by, mut problem) = (Vec::new(), None);
        for accepted in extensions {
            match self.conflict(registration, routed, accepted) {
                Some(conflict) => problem = problem.or(Some(conflict)),
                None => {
                    self.take(registration, routed, accepted.extension());
                    served_by.push(accepted.extension().clone());
                }
            }
        }
        (served_by, problem)
    }

    fn conflict(
        &self,
        registration: &MCPServerRegistration,
        routed: &Routed<'_>,
        accepted: &Accepted,
    ) -> Option<Problem> {
        let extension = accepted.extension();
        let host_taken = || {
            let by = if routed.hostname == accepted.public_host() {
                Some(format!("MCPGatewayExtension {extension}"))
            } else {
                self.foreign_route(routed, accepted)
                    .map(|route| format!("HTTPRoute {route}"))
            };
            let hostname = routed.hostname;
            by.map(|by| {
                Problem::not_ready(format!("hostname {hostname} is used by {by}; choose another one"))
            })
        };
        let endpoint = (
            extension.clone(),
            routed.route.key.clone(),
            registration.spec.path.clone(),
        );
        let endpoint_taken = || {
            self.endpoints.get(&endpoint).map(|winner| {
                let (route, path) = (&endpoint.1, &endpoint.2);
                Problem::not_ready(format!(
                    "conflict: HTTPRoute {route} path {path} is already registered by MCPServerRegistration {winner}"
                ))
            })
        };
        let prefix_taken = || {
            let prefix = registration
                .spec
                .prefix
                .as_deref()
                .filter(|prefix| !prefix.is_empty())?;
            let winner = self.prefixes.get(&(extension.clone(), prefix.to_owned()))?;
            Some(Problem {
                reason: RegistrationReason::PrefixConflict,
                message: format!("conflict: prefix {prefix} is used by MCPServerRegistration {winner}"),
            })
        };
        host_taken().or_else(endpoint_taken).or_else(prefix_taken)
    }

    /// An older accepted route of another namespace on the same Gateway that has the hostname.
    fn foreign_route(&self, routed: &Routed<'_>, accepted: &Accepted) -> Option<&ObjectKey> {
        let port = accepted.listener().port;
        let on_gateway = |route: &HttpRoute| {
            route.accepted_parents().any(|(gateway, parent)| {
                gateway == accepted.gateway().key
                    && parent.parent_ref.port.is_none_or(|named| named == port)
                    && parent.parent_ref.section_name.as_deref().is_none_or(|section| {
                        accepted
                            .gateway()
                            .listener(section)
                            .is_some_and(|listener| listener.port == port)
                    })
            })
        };
        self.routes_by_host
            .get(routed.hostname)?
            .iter()
            .find(|other| {
                other.key.namespace != routed.route.key.namespace
                    && other.age.older(&routed.route.age)
                    && on_gateway(other)
            })
            .map(|other| &other.key)
    }

    fn take(&mut self, registration: &MCPServerRegistration, routed: &Routed<'_>, extension: &ObjectKey) {
        let key = ObjectKey::of(&registration.metadata);
        if let Some(prefix) = registration
            .spec
            .prefix
            .clone()
            .filter(|prefix| !prefix.is_empty())
        {
            self.prefixes.insert((extension.clone(), prefix), key.clone());
        }
        let endpoint = (
            extension.clone(),
            routed.route.key.clone(),
            registration.spec.path.clone(),
        );
        self.endpoints.insert(endpoint, key);
    }
}
