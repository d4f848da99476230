//! From a request to a verdict: read, look up, judge, claim.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mcp_gateway_api::{
    admission::{
        self, Facts, Subject, Verdict, Write, defaults,
        exclusivity::{self, Rival},
    },
    claims::ClaimKey,
    extension::MCPGatewayExtension,
    gateway::Gateway,
    object_key::is_live,
    world::gateway_of,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    cache::WorldReader,
    claims::Claimant,
    cluster::{Cluster, ClusterError},
    lookup,
    review::Request,
};

/// Kept back from the API server's deadline, so that an answer still arrives.
const MARGIN: Duration = Duration::from_millis(300);
/// Rivals of the cache that are verified live before they count; more than that means that the cache is far behind.
const MAX_VERIFIED: usize = 32;

/// Decides requests.
pub struct Decider<C> {
    cluster: C,
    world: WorldReader,
    now: fn() -> Timestamp,
}

/// How a decision came about, for span and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to judge: terminating, or the spec is unchanged.
    Exempt,
    /// Judged.
    Judged(Verdict),
}

impl<C: Cluster> Decider<C> {
    /// Decides over `world` and `cluster`; `now` is the wall clock of claims.
    pub fn new(cluster: C, world: WorldReader, now: fn() -> Timestamp) -> Self {
        Self { cluster, world, now }
    }

    /// The patch of the mutating endpoint.
    pub fn defaults(&self, request: &Request) -> json_patch::Patch {
        defaults::patch(request.kind, &request.namespace, &request.object)
    }

    /// The verdict of the validating endpoint. `patience` is how long the API server waits.
    pub async fn validate(&self, request: &Request, patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience.saturating_sub(MARGIN);
        if admission::is_exempt(request.old.as_ref(), &request.object) {
            return Outcome::Exempt;
        }
        let subject = match Subject::read(request.kind, &request.object) {
            Ok(subject) => subject,
            Err(violations) => return Outcome::Judged(Verdict::deny(violations)),
        };
        let mut facts = lookup::facts(&self.cluster, &request.namespace, &subject).await;
        facts.envoy_filter_served = match self.world.envoy_filter_served() {
            // The watch looks seldom; nobody is told that something is missing which has come since.
            Some(false) => lookup::envoy_filter_served(&self.cluster).await,
            known => known,
        };
        Outcome::Judged(match &subject {
            Subject::Extension(new) => self.exclusive(request, (&subject, new), facts, deadline).await,
            _ => self.judge(request, &subject, &facts),
        })
    }

    fn judge(&self, request: &Request, subject: &Subject, facts: &Facts) -> Verdict {
        let write = Write {
            old: request.old.as_ref(),
            new: subject,
        };
        self.world.read(|world| admission::judge(world, write, facts))
    }

    /// An extension: the rules over live facts, and then the claims.
    async fn exclusive(
        &self,
        request: &Request,
        (subject, new): (&Subject, &MCPGatewayExtension),
        mut facts: Facts,
        deadline: Instant,
    ) -> Verdict {
        let contest = exclusivity::contest(request.old.as_ref(), new);
        if !contest.namespace && !contest.gateway {
            return self.judge(request, subject, &facts);
        }
        if let Err(error) = self.read_live(new, contest, &mut facts, deadline).await {
            tracing::warn!(%error, "Exclusivity cannot be decided");
            return self.undecidable(request, subject, &facts);
        }
        let verdict = self.judge(request, subject, &facts);
        if !verdict.allowed() {
            return verdict;
        }
        let gateway = facts.live_gateway.as_ref().and_then(Option::as_ref);
        let keys = exclusivity::keys(contest, new, gateway);
        let claimant = Claimant {
            cluster: &self.cluster,
            world: &self.world,
            new,
            gateway,
            deadline,
            now: self.now,
        };
        let claimed = if request.dry_run {
            claimant.look(&keys).await
        } else {
            claimant.take(&keys).await
        };
        match claimed {
            Ok(()) => verdict,
            Err(violation) => Verdict {
                violations: vec![violation],
                ..verdict
            },
        }
    }

    /// Reads the Gateway live, and every rival that the cache shows, until those that are left are really there.
    async fn read_live(
        &self,
        new: &MCPGatewayExtension,
        contest: exclusivity::Contest,
        facts: &mut Facts,
        deadline: Instant,
    ) -> Result<(), ClusterError> {
        let in_time = |_: tokio::time::error::Elapsed| ClusterError::Deadline;
        let target = gateway_of(new);
        let gateway = timeout_at(deadline, self.cluster.gateway(&target))
            .await
            .map_err(in_time)??;
        facts.live_gateway = Some(gateway.clone());
        let keys = exclusivity::keys(contest, new, gateway.as_ref());
        for _ in 0..MAX_VERIFIED {
            let rivals = self
                .world
                .read(|world| exclusivity::rivals(world, new, &keys, facts));
            let mut verified = true;
            for Rival { extension, key } in rivals {
                let found = timeout_at(deadline, self.cluster.extension(&extension))
                    .await
                    .map_err(in_time)??;
                if !found.is_some_and(|found| still_wants(&found, &key, gateway.as_ref())) {
                    facts.former_rivals.insert(extension);
                    verified = false;
                }
            }
            if verified {
                break;
            }
        }
        Ok(())
    }

    /// The API server cannot be asked: a dry run hears what the cache says, anything else is refused.
    fn undecidable(&self, request: &Request, subject: &Subject, facts: &Facts) -> Verdict {
        let mut verdict = self.judge(request, subject, facts);
        if !request.dry_run && verdict.allowed() {
            verdict.violations.push(exclusivity::undecidable());
        }
        verdict
    }
}

fn still_wants(found: &MCPGatewayExtension, key: &ClaimKey, gateway: Option<&Gateway>) -> bool {
    is_live(&found.metadata) && exclusivity::keys_of(found, gateway).contains(key)
}
