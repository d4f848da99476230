//! Which MCP servers does which extension serve, and where are they? Section 8 of operator.md as a pure plan over the
//! whole world; what is not served says why.

mod backend;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    acceptance::{self, Accepted, Judgement},
    conditions::RegistrationReason,
    gateway::Gateway,
    grant::Reference,
    hosts, names,
    object_key::{Age, ObjectKey, is_live},
    registration::MCPServerRegistration,
    route::{HttpRoute, ParentRef},
    world::{World, route_of},
};

/// Why a registration is not served, or not served fully.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of `Ready`.
    pub reason: RegistrationReason,
    /// Message of `Ready`.
    pub message: String,
}

impl Problem {
    pub(crate) fn not_ready(message: String) -> Self {
        Self {
            reason: RegistrationReason::NotReady,
            message,
        }
    }

    fn ungranted(namespace: &str, from: &str, hint: &str) -> Self {
        Self {
            reason: RegistrationReason::ReferenceGrantRequired,
            message: format!(
                "ReferenceGrant required in namespace {namespace} to allow cross-namespace reference from {from}{hint}"
            ),
        }
    }
}

/// Where an MCP server is (operator.md 8.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// URL that the broker connects to.
    pub url: String,
    /// Host of the HTTPRoute, used as `:authority` of calls.
    pub hostname: String,
}

/// The outcome for one registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where the server is; absent when that is not known.
    pub backend: Option<Backend>,
    /// Extensions whose config holds the server, by key.
    pub served_by: Vec<ObjectKey>,
    /// What stands in the way of `Ready`; with a non-empty `served_by` the entry is kept all the same.
    pub problem: Option<Problem>,
}

/// The verdicts on every extension and registration of a world.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    judgements: BTreeMap<ObjectKey, Judgement>,
    resolutions: BTreeMap<ObjectKey, Resolution>,
}

/// A registration's route, once it has the shape that we support.
pub struct Routed<'a> {
    /// The route.
    pub route: &'a HttpRoute,
    /// `hostnames[0]`.
    pub hostname: &'a str,
    /// Gateways that accepted it.
    pub gateways: Vec<ObjectKey>,
}

impl Plan {
    /// Judges everything. `cluster_domain` is the DNS domain of the cluster, such as `cluster.local`.
    #[must_use]
    pub fn compute(world: &World, cluster_domain: &str) -> Self {
        let judgements = world
            .extensions()
            .map(|extension| {
                (
                    ObjectKey::of(&extension.metadata),
                    acceptance::judge(world, extension),
                )
            })
            .collect();
        let mut plan = Self {
            judgements,
            resolutions: BTreeMap::new(),
        };
        let mut registrations: Vec<_> = world
            .registrations()
            .filter(|registration| is_live(&registration.metadata))
            .collect();
        registrations.sort_by_cached_key(|registration| Age::of(&registration.metadata));
        let mut taken = Taken {
            routes_by_host: routes_by_host(world),
            ..Taken::default()
        };
        for registration in registrations {
            let resolution = plan.resolve(world, registration, &mut taken, cluster_domain);
            plan.resolutions
                .insert(ObjectKey::of(&registration.metadata), resolution);
        }
        plan
    }

    /// The verdict on an extension.
    #[must_use]
    pub fn judgement(&self, extension: &ObjectKey) -> Option<&Judgement> {
        self.judgements.get(extension)
    }

    /// Every accepted extension.
    pub fn accepted(&self) -> impl Iterator<Item = &Accepted> {
        self.judgements
            .values()
            .filter_map(|judgement| judgement.accepted.as_ref())
    }

    /// The outcome for a registration; `None` for one that is unknown or being deleted.
    #[must_use]
    pub fn resolution(&self, registration: &ObjectKey) -> Option<&Resolution> {
        self.resolutions.get(registration)
    }

    /// The registrations that an extension serves.
    pub fn served_by<'a>(
        &'a self,
        extension: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Backend)> {
        self.resolutions.iter().filter_map(move |(key, resolution)| {
            resolution.served_by.contains(extension).then_some(())?;
            Some((key, resolution.backend.as_ref()?))
        })
    }

    fn resolve<'a>(
        &self,
        world: &'a World,
        registration: &MCPServerRegistration,
        taken: &mut Taken<'a>,
        cluster_domain: &str,
    ) -> Resolution {
        let located = routed(world, registration).and_then(|routed| {
            let extensions = self.extensions_for(world, &routed)?;
            let backend = backend::locate(world, registration, &routed, cluster_domain)?;
            Ok((routed, extensions, backend))
        });
        match located {
            Ok((routed, extensions, backend)) => {
                let (served_by, problem) = taken.admit(registration, &routed, extensions);
                let problem = problem.or_else(|| unresolved_refs(routed.route));
                Resolution {
                    backend: Some(backend),
                    served_by,
                    problem,
                }
            }
            Err(problem) => Resolution {
                backend: None,
                served_by: Vec::new(),
                problem: Some(problem),
            },
        }
    }

    /// Accepted extensions whose listener port the route is attached to.
    fn extensions_for<'p>(
        &'p self,
        world: &World,
        routed: &Routed<'_>,
    ) -> Result<Vec<&'p Accepted>, Problem> {
        let on_gateways: Vec<&Accepted> = self
            .accepted()
            .filter(|accepted| routed.gateways.contains(&accepted.gateway().key))
            .collect();
        if on_gateways.is_empty() {
            let gateways = crate::conditions::name_list(
                routed
                    .gateways
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str),
            );
            return Err(Problem::not_ready(format!(
                "no valid mcpgatewayextensions configured for gateway {gateways}"
            )));
        }
        let matching: Vec<&Accepted> = on_gateways
            .into_iter()
            .filter(|accepted| attached(world, routed.route, accepted))
            .collect();
        if matching.is_empty() {
            let message = "no matching mcpgatewayextensions for attached listener; attach the route to a listener on the port of an extension";
            return Err(Problem::not_ready(message.to_owned()));
        }
        Ok(matching)
    }
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
        Some(hostname) => Ok(hostname),
    }
}

fn unresolved_refs(route: &HttpRoute) -> Option<Problem> {
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

fn routes_by_host(world: &World) -> BTreeMap<&str, Vec<&Arc<HttpRoute>>> {
    let mut by_host: BTreeMap<&str, Vec<&Arc<HttpRoute>>> = BTreeMap::new();
    for route in world
        .routes()
        .filter(|route| route.live && route.accepted_parents().next().is_some())
    {
        for hostname in &route.hostnames {
            by_host.entry(hostname).or_default().push(route);
        }
    }
    by_host
}

/// What older registrations already have, per extension.
#[derive(Default)]
struct Taken<'a> {
    prefixes: BTreeMap<(ObjectKey, String), ObjectKey>,
    endpoints: BTreeMap<(ObjectKey, ObjectKey, String), ObjectKey>,
    routes_by_host: BTreeMap<&'a str, Vec<&'a Arc<HttpRoute>>>,
}

impl Taken<'_> {
    /// Gives the registration a place at each extension where nothing older is in its way.
    fn admit(
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

#[cfg(test)]
mod tests;
