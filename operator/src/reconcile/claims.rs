//! Upkeep of the exclusivity claims (operator.md 3.3): winners hold theirs, confirmed; stale ones are swept once a
//! minute and whenever extensions or Gateways change. Every decision is `api::claims`'; before anything is written, its
//! holder is read live. What is in order costs one list and nothing else.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use mcp_gateway_api::{
    acceptance::{Rule, missing_grant},
    admission::exclusivity::keys_of,
    claims::{
        CLAIM_LABEL, Claim, ClaimKey, HolderState, Requester, Upkeep, deletable_at, lease_of, sweep, uphold,
    },
    extension::MCPGatewayExtension,
    gateway::Gateway,
    object_key::{ObjectKey, is_live},
    world::gateway_of,
};
use serde_json::Value;

use crate::{
    apply::raw, context::Context, kinds::Kind, queue::Outcome, reconcile::ReconcileError, snapshot::Snapshot,
};

/// How often stale claims are swept.
const SWEEP: Duration = Duration::from_secs(60);

pub(crate) async fn reconcile(context: &Context) -> Result<Outcome, ReconcileError> {
    let upkeep = Upkeeper {
        context,
        leases: Api::namespaced(context.client.clone(), &context.settings.namespace),
        snapshot: &context.snapshot(),
    };
    let held = upkeep.sweep().await?;
    upkeep.assert(&held).await?;
    Ok(Outcome::After(SWEEP))
}

struct Upkeeper<'a> {
    context: &'a Context,
    leases: Api<Lease>,
    snapshot: &'a Snapshot,
}

impl Upkeeper<'_> {
    /// Deletes claims whose holder has no right to them any more; returns all as listed, by the name of their Lease.
    async fn sweep(&self) -> Result<BTreeMap<String, Claim>, ReconcileError> {
        let params = ListParams::default().labels(&format!("{CLAIM_LABEL}=true"));
        let leases = self
            .leases
            .list(&params)
            .await
            .map_err(ReconcileError::request("list claims"))?;
        let claims: BTreeMap<String, Claim> = leases
            .items
            .iter()
            .map(|lease| (lease.name_any(), Claim::of(lease)))
            .collect();
        let confirmed = claims.values().filter(|claim| claim.confirmed).count();
        let metrics = &self.context.metrics;
        metrics.claimed("confirmed", confirmed);
        metrics.claimed("unconfirmed", claims.len() - confirmed);
        for (name, claim) in &claims {
            if self.is_in_order(claim) {
                continue;
            }
            let holder = self.holder(claim).await?;
            self.act(name, claim, sweep(claim, &holder, Timestamp::now()))
                .await?;
        }
        Ok(claims)
    }

    /// True when the holder, as last seen, still wants the claim: nothing has to be read to leave it as it is.
    fn is_in_order(&self, claim: &Claim) -> bool {
        let (Some(key), Some(holder)) = (&claim.key, &claim.holder) else {
            return false;
        };
        let world = &self.snapshot.world;
        world.extension(holder).is_some_and(|extension| {
            let gateway = world.gateway(&gateway_of(extension));
            is_live(&extension.metadata)
                && extension.metadata.uid.as_deref() == Some(claim.holder_uid.as_str())
                && keys_of(extension, gateway.map(AsRef::as_ref)).contains(key)
        })
    }

    async fn act(&self, name: &str, claim: &Claim, step: Upkeep) -> Result<(), ReconcileError> {
        let Upkeep::Release { resource_version } = step else {
            return Ok(());
        };
        match self.leases.delete(name, &deletable_at(&resource_version)).await {
            Ok(_) => {
                let key = claim.key.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::info!(claim = key, "Stale claim released");
                Ok(())
            }
            // Somebody was faster; the next sweep looks again.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(source) => Err(ReconcileError::request("release claim")(source)),
        }
    }

    /// Makes every winner hold its keys, confirmed; one that does according to `held` costs nothing.
    async fn assert(&self, held: &BTreeMap<String, Claim>) -> Result<(), ReconcileError> {
        let winners: Vec<_> = self
            .snapshot
            .world
            .extensions()
            .filter(|extension| self.wins(extension))
            .collect();
        for extension in winners {
            let gateway = self.snapshot.world.gateway(&gateway_of(extension));
            for key in keys_of(extension, gateway.map(AsRef::as_ref)) {
                let claim = held.get(&key.lease_name());
                if !claim.is_some_and(|claim| holds(extension, claim)) {
                    self.assert_key(extension, &key).await?;
                }
            }
        }
        Ok(())
    }

    /// True for a live extension that lost neither its namespace nor its Gateway.
    fn wins(&self, extension: &MCPGatewayExtension) -> bool {
        let judgement = self.snapshot.judgement(&ObjectKey::of(&extension.metadata));
        let lost = |rule: Rule| {
            matches!(
                rule,
                Rule::Namespace | Rule::GatewayExclusive | Rule::PortExclusive
            )
        };
        is_live(&extension.metadata)
            && judgement.is_some_and(|judgement| !judgement.findings.iter().any(|finding| lost(finding.rule)))
    }

    async fn assert_key(
        &self,
        extension: &MCPGatewayExtension,
        key: &ClaimKey,
    ) -> Result<(), ReconcileError> {
        let name = key.lease_name();
        let lease = self
            .leases
            .get_opt(&name)
            .await
            .map_err(ReconcileError::request("read claim"))?;
        let claim = lease.as_ref().map(Claim::of);
        let winner = Requester {
            key: ObjectKey::of(&extension.metadata),
            uid: extension.metadata.uid.clone().unwrap_or_default(),
            granted: missing_grant(&self.snapshot.world, extension).is_none(),
        };
        let holder = match &claim {
            Some(claim) if claim.holder.as_ref() != Some(&winner.key) => self.holder(claim).await?,
            _ => HolderState::Gone,
        };
        let now = Timestamp::now();
        let accepted = self
            .snapshot
            .judgement(&winner.key)
            .is_some_and(|judgement| judgement.accepted.is_some());
        let step = uphold(claim.as_ref(), &holder, &winner, accepted, now);
        if !matches!(step, Upkeep::Create | Upkeep::Assert { .. }) || !self.still_wants(&winner, key).await? {
            return Ok(());
        }
        let wanted = lease_of(
            key,
            &self.context.settings.namespace,
            &winner,
            claim.as_ref(),
            (now, true),
        );
        let written = match step {
            Upkeep::Create => self.leases.create(&PostParams::default(), &wanted).await,
            _ => self.leases.replace(&name, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(source) => Err(ReconcileError::request("assert claim")(source)),
        }
    }

    async fn still_wants(&self, winner: &Requester, key: &ClaimKey) -> Result<bool, ReconcileError> {
        let state = self.state(&winner.key, Some(key)).await?;
        Ok(matches!(state, HolderState::Live { ref uid, wants: true } if *uid == winner.uid))
    }

    /// What the API server says about a claim's holder, read after the claim.
    async fn holder(&self, claim: &Claim) -> Result<HolderState, ReconcileError> {
        match &claim.holder {
            Some(holder) => self.state(holder, claim.key.as_ref()).await,
            None => Ok(HolderState::Gone),
        }
    }

    async fn state(&self, holder: &ObjectKey, key: Option<&ClaimKey>) -> Result<HolderState, ReconcileError> {
        let found = self.read(Kind::Extension, holder).await?;
        let Some(object) = found else {
            return Ok(HolderState::Gone);
        };
        let uid = object
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(HolderState::Terminating { uid });
        }
        // An object that cannot be decoded keeps what it has: nobody can say that it does not want it.
        let Ok(extension) = serde_json::from_value::<MCPGatewayExtension>(object) else {
            return Ok(HolderState::Live { uid, wants: true });
        };
        let Some(key) = key else {
            return Ok(HolderState::Live { uid, wants: false });
        };
        let gateway = match key.gateway() {
            Some(gateway) => self.read(Kind::Gateway, gateway).await?,
            None => None,
        };
        let gateway = gateway.and_then(|object| Gateway::from_value(&object).ok());
        let wants = keys_of(&extension, gateway.as_ref()).contains(key);
        Ok(HolderState::Live { uid, wants })
    }

    async fn read(&self, kind: Kind, key: &ObjectKey) -> Result<Option<Value>, ReconcileError> {
        let found = self.context.api(kind, &key.namespace).get_opt(&key.name).await;
        found
            .map(|object| object.map(raw))
            .map_err(ReconcileError::request("read holder of claim"))
    }
}

/// True when the claim is the extension's, and confirmed.
fn holds(extension: &MCPGatewayExtension, claim: &Claim) -> bool {
    claim.confirmed
        && claim.holder.as_ref() == Some(&ObjectKey::of(&extension.metadata))
        && extension.metadata.uid.as_deref() == Some(claim.holder_uid.as_str())
}
