//! Takes the claims that a write needs, by the protocol of `mcp_gateway_api::claims`: all keys in sorted order, each
//! created, or else read, decided and written under its precondition; on denial what was taken is given back. A dry run
//! only looks.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::Timestamp;
use mcp_gateway_api::{
    admission::{Violation, exclusivity},
    claims::{self, Claim, ClaimKey, ClaimStep, HolderFacts, HolderState, Requester},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    object_key::{ObjectKey, is_live},
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    cache::WorldReader,
    cluster::{Cluster, ClusterError},
};

/// Attempts at one key when others keep changing it in between; each one means that somebody else made progress.
const MAX_ATTEMPTS: usize = 16;
/// Time for giving one claim back: it is done after the deadline of the request if need be.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// One write that needs claims.
pub struct Claimant<'a, C> {
    /// Live access.
    pub cluster: &'a C,
    /// The rules' view, for grants.
    pub world: &'a WorldReader,
    /// The object that is being written.
    pub new: &'a MCPGatewayExtension,
    /// Its Gateway by a live GET.
    pub gateway: Option<&'a Gateway>,
    /// When the API server stops waiting.
    pub deadline: Instant,
    /// Wall clock.
    pub now: fn() -> Timestamp,
}

/// A claim that goes back on denial.
struct Taken {
    key: ClaimKey,
    resource_version: String,
}

/// What became of one attempt at one key.
enum Attempt {
    /// It is ours; with a version when it is to be given back on denial.
    Ours(Option<Taken>),
    /// Somebody changed it in between.
    Again,
    /// No.
    Denied(Violation),
}

impl<C: Cluster> Claimant<'_, C> {
    /// Takes every key, or none.
    ///
    /// # Errors
    /// The violation to answer with.
    pub async fn take(&self, keys: &BTreeSet<ClaimKey>) -> Result<(), Violation> {
        let mut taken = Vec::new();
        for key in keys {
            match self.take_one(key).await {
                Ok(Ok(one)) => taken.extend(one),
                Ok(Err(violation)) => {
                    self.give_back(taken).await;
                    return Err(violation);
                }
                Err(error) => {
                    tracing::warn!(%key, %error, "Claim cannot be decided");
                    self.give_back(taken).await;
                    return Err(exclusivity::undecidable());
                }
            }
        }
        Ok(())
    }

    /// What [`Self::take`] would say, without writing anything. Claims that cannot be read are no obstacle here.
    ///
    /// # Errors
    /// The violation to answer with.
    pub async fn look(&self, keys: &BTreeSet<ClaimKey>) -> Result<(), Violation> {
        for key in keys {
            match self.decide(key).await {
                Ok((step, _)) => self.refusal(key, &step).map_or(Ok(()), Err)?,
                Err(error) => tracing::info!(%key, %error, "Claim cannot be read for a dry run"),
            }
        }
        Ok(())
    }

    async fn take_one(&self, key: &ClaimKey) -> Result<Result<Option<Taken>, Violation>, ClusterError> {
        // Most claims are new, and a create says by itself whether there is one: no need to read first.
        if let Some(taken) = self.write(key, None).await? {
            return Ok(Ok(Some(taken)));
        }
        for _ in 0..MAX_ATTEMPTS {
            match self.attempt(key).await? {
                Attempt::Ours(taken) => return Ok(Ok(taken)),
                Attempt::Denied(violation) => return Ok(Err(violation)),
                Attempt::Again => {}
            }
        }
        Ok(Err(self
            .world
            .read(|world| exclusivity::undecided(world, self.new, key))))
    }

    async fn attempt(&self, key: &ClaimKey) -> Result<Attempt, ClusterError> {
        let (step, claim) = self.decide(key).await?;
        if let Some(violation) = self.refusal(key, &step) {
            return Ok(Attempt::Denied(violation));
        }
        let Some(taken) = self.write(key, claim.as_ref()).await? else {
            return Ok(Attempt::Again);
        };
        let returnable = !matches!(step, ClaimStep::Renew { .. });
        Ok(Attempt::Ours(returnable.then_some(taken)))
    }

    /// Writes the claim as ours over `former`; `None` when that is not what is stored.
    async fn write(&self, key: &ClaimKey, former: Option<&Claim>) -> Result<Option<Taken>, ClusterError> {
        let namespace = self.cluster.claims_namespace();
        let lease = claims::lease_of(
            key,
            namespace,
            &self.requester(key),
            former,
            ((self.now)(), false),
        );
        let written = self.in_time(self.cluster.write_claim(lease)).await?;
        Ok(written.map(|resource_version| Taken {
            key: key.clone(),
            resource_version,
        }))
    }

    /// Reads the claim, then its holder, and decides: in this order (see `mcp_gateway_api::claims`).
    async fn decide(&self, key: &ClaimKey) -> Result<(ClaimStep, Option<Claim>), ClusterError> {
        let claim = self.in_time(self.cluster.claim(key)).await?;
        let facts = match claim.as_ref().and_then(|claim| claim.holder.as_ref()) {
            Some(holder) => self.facts(key, holder).await?,
            None => HolderFacts {
                state: HolderState::Gone,
                granted: true,
            },
        };
        Ok((
            claims::decide(claim.as_ref(), &facts, &self.requester(key), (self.now)()),
            claim,
        ))
    }

    async fn facts(&self, key: &ClaimKey, holder: &ObjectKey) -> Result<HolderFacts, ClusterError> {
        let granted = self
            .world
            .read(|world| exclusivity::is_granted_key(world, &holder.namespace, key));
        let state = match self.in_time(self.cluster.extension(holder)).await? {
            None => HolderState::Gone,
            Some(found) => {
                let uid = found.metadata.uid.clone().unwrap_or_default();
                if is_live(&found.metadata) {
                    // A key of ours is about our Gateway; a holder on another one does not want it.
                    let wants = exclusivity::keys_of(&found, self.gateway).contains(key);
                    HolderState::Live { uid, wants }
                } else {
                    HolderState::Terminating { uid }
                }
            }
        };
        Ok(HolderFacts { state, granted })
    }

    fn requester(&self, key: &ClaimKey) -> Requester {
        let own = ObjectKey::of(&self.new.metadata);
        let granted = self
            .world
            .read(|world| exclusivity::is_granted_key(world, &own.namespace, key));
        Requester {
            key: own,
            uid: self.new.metadata.uid.clone().unwrap_or_default(),
            granted,
        }
    }

    fn refusal(&self, key: &ClaimKey, step: &ClaimStep) -> Option<Violation> {
        match step {
            ClaimStep::Create | ClaimStep::Renew { .. } | ClaimStep::TakeOver { .. } => None,
            ClaimStep::Busy => Some(
                self.world
                    .read(|world| exclusivity::undecided(world, self.new, key)),
            ),
            ClaimStep::Refused { holder } => Some(
                self.world
                    .read(|world| exclusivity::refusal(world, self.new, key, holder)),
            ),
        }
    }

    async fn give_back(&self, taken: Vec<Taken>) {
        for Taken {
            key,
            resource_version,
        } in taken.into_iter().rev()
        {
            let returned = timeout(GIVE_BACK, self.cluster.delete_claim(&key, &resource_version)).await;
            match returned {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%key, %error, "Claim not given back; it ends by itself"),
                Err(_) => tracing::warn!(%key, "Claim not given back in time; it ends by itself"),
            }
        }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        timeout_at(self.deadline, call)
            .await
            .unwrap_or(Err(ClusterError::Deadline))
    }
}
