//! Which MCP servers does which extension serve, and where are they? Section 8 of operator.md as a pure plan over the
//! whole world; what is not served says why.

mod backend;
mod routed;
mod spec;
mod taken;

pub use routed::{Routed, attached, attached_by, routed};

use std::collections::BTreeMap;

use crate::{
    acceptance::{self, Accepted, Judgement},
    conditions::RegistrationReason,
    object_key::{Age, ObjectKey, is_live},
    registration::MCPServerRegistration,
    world::World,
};
use taken::Taken;

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
        let mut taken = Taken::new(world);
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
        let spec = spec::check(&registration.spec);
        let located = spec
            .and_then(|()| routed(world, registration))
            .and_then(|routed| {
                let extensions = self.extensions_for(world, &routed)?;
                let backend = backend::locate(world, registration, &routed, cluster_domain)?;
                Ok((routed, extensions, backend))
            });
        match located {
            Ok((routed, extensions, backend)) => {
                let (served_by, problem) = taken.admit(registration, &routed, extensions);
                let problem = problem.or_else(|| routed::unresolved_refs(routed.route));
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

#[cfg(test)]
mod tests;
