//! Claims: the protocol that makes exclusivity exact under concurrency (design.md 3.3, operator.md 3.3). One Lease
//! for each key that an extension may hold alone. Pure: the caller reads, this module decides, the caller writes with
//! the precondition that it is given.
//!
//! Order of reads, on which correctness rests: **first the Lease, then the holder by a live GET**, never the other way
//! round and never from a cache. A write always carries the resourceVersion of the Lease that was read; a
//! create, which succeeds only where none is, needs no read before it.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use sha2::{Digest, Sha256};

use crate::{
    gateway::{Gateway, Scope},
    object_key::ObjectKey,
};

mod lease;
#[cfg(test)]
mod model;

pub use lease::{deletable_at, lease_of};

/// Label of every claim Lease, with the value `true`.
pub const CLAIM_LABEL: &str = "mcp.kuadrant.io/claim";
/// Annotation of a claim Lease: the key in clear.
pub const KEY_ANNOTATION: &str = "mcp.kuadrant.io/claim-key";
/// Annotation of a claim Lease: UID of the holder that took it.
pub const HOLDER_UID_ANNOTATION: &str = "mcp.kuadrant.io/holder-uid";
/// Annotation of a claim Lease: `true` once the operator has seen that UID stored and wanting the key.
pub const CONFIRMED_ANNOTATION: &str = "mcp.kuadrant.io/confirmed";
/// Seconds for which an unconfirmed claim is respected although its holder is not there: longer than the API server
/// lets a write run after admission (34 s), with some seconds for clocks that differ.
pub const GRACE_SECONDS: i64 = 40;

/// What may be held by one extension only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKey {
    /// The namespace rule.
    Namespace(String),
    /// The Gateway rule in scope `Gateway`.
    Gateway(ObjectKey),
    /// The Gateway rule in scope `Listener`.
    Port(ObjectKey, i32),
    /// The Gateway rule in scope `Listener` while the listener does not exist.
    Section(ObjectKey, String),
}

impl ClaimKey {
    /// Name of the Lease: `mcp-claim-` and the first 40 hex digits of the key's SHA-256.
    #[must_use]
    pub fn lease_name(&self) -> String {
        let digest = hex::encode(Sha256::digest(self.to_string().as_bytes()));
        let head: String = digest.chars().take(40).collect();
        format!("mcp-claim-{head}")
    }

    /// The Gateway that the key is about; `None` for a namespace key.
    #[must_use]
    pub fn gateway(&self) -> Option<&ObjectKey> {
        match self {
            Self::Namespace(_) => None,
            Self::Gateway(gateway) | Self::Port(gateway, _) | Self::Section(gateway, _) => Some(gateway),
        }
    }

    /// Reads the annotation form back; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["namespace", namespace] => Some(Self::Namespace((*namespace).to_owned())),
            ["gateway", namespace, name] => Some(Self::Gateway(ObjectKey::new(*namespace, *name))),
            ["gateway", namespace, name, "port", port] => port
                .parse()
                .ok()
                .map(|port| Self::Port(ObjectKey::new(*namespace, *name), port)),
            ["gateway", namespace, name, "section", section] => Some(Self::Section(
                ObjectKey::new(*namespace, *name),
                (*section).to_owned(),
            )),
            _ => None,
        }
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(namespace) => write!(f, "namespace/{namespace}"),
            Self::Gateway(gateway) => write!(f, "gateway/{gateway}"),
            Self::Port(gateway, port) => write!(f, "gateway/{gateway}/port/{port}"),
            Self::Section(gateway, section) => write!(f, "gateway/{gateway}/section/{section}"),
        }
    }
}

/// The key of the Gateway rule for an extension on `section` of `target`. `gateway` is the target by a live GET. One that
/// does not exist, or is being deleted, counts as scope `Gateway` (operator.md 3.3).
#[must_use]
pub fn gateway_key(target: &ObjectKey, section: &str, gateway: Option<&Gateway>) -> ClaimKey {
    match gateway {
        Some(gateway) if gateway.live && gateway.scope() == Scope::Listener => {
            match gateway.listener(section) {
                Some(listener) => ClaimKey::Port(target.clone(), listener.port),
                None => ClaimKey::Section(target.clone(), section.to_owned()),
            }
        }
        _ => ClaimKey::Gateway(target.clone()),
    }
}

/// All keys that an extension in `namespace` wants, sorted: the order in which they are taken.
#[must_use]
pub fn wanted_keys(
    namespace: &str,
    target: &ObjectKey,
    section: &str,
    gateway: Option<&Gateway>,
) -> BTreeSet<ClaimKey> {
    BTreeSet::from([
        ClaimKey::Namespace(namespace.to_owned()),
        gateway_key(target, section, gateway),
    ])
}

/// A claim as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.resourceVersion`: the precondition of every write that follows from this reading.
    pub resource_version: String,
    /// What is claimed; `None` when the annotation is missing or not ours.
    pub key: Option<ClaimKey>,
    /// Who claims it.
    pub holder: Option<ObjectKey>,
    /// UID of the object for which it was claimed.
    pub holder_uid: String,
    /// The operator has seen that UID stored and wanting the key.
    pub confirmed: bool,
    /// When it was taken last.
    pub renewed: Option<Timestamp>,
    /// `spec.acquireTime`, kept while the holder stays the same.
    pub acquired: Option<Timestamp>,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
}

impl Claim {
    /// Reads a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        lease::claim_of(lease)
    }

    /// True when no write for which this claim was taken can still be on its way.
    #[must_use]
    pub fn settled(&self, now: Timestamp) -> bool {
        self.confirmed
            || self
                .renewed
                .is_none_or(|renewed| now.as_second().saturating_sub(renewed.as_second()) >= GRACE_SECONDS)
    }
}

/// What a live GET of a claim's holder gave, read **after** the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// No such object.
    Gone,
    /// It is being deleted.
    Terminating {
        /// Its UID.
        uid: String,
    },
    /// It is stored and live.
    Live {
        /// Its UID.
        uid: String,
        /// It wants the claimed key (by [`wanted_keys`] with the live Gateway).
        wants: bool,
    },
}

/// The holder of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderFacts {
    /// What the API server says about it.
    pub state: HolderState,
    /// Its namespace is the Gateway's own or holds a ReferenceGrant to it. True for a namespace key.
    pub granted: bool,
}

/// Who asks for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The object that is being written.
    pub key: ObjectKey,
    /// Its UID; the API server sets it before validating admission.
    pub uid: String,
    /// As in [`HolderFacts::granted`].
    pub granted: bool,
}

/// What to do with a claim at admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimStep {
    /// There is none: create it (the create fails when somebody else was faster: read again).
    Create,
    /// It is ours: write it again, unconfirmed and with the present time, under this precondition. Not given back
    /// when the request is denied later, because another request for the same object may rest on it.
    Renew {
        /// Precondition.
        resource_version: String,
    },
    /// Its holder has no right to it any more: write it with us as holder, under this precondition.
    TakeOver {
        /// Precondition.
        resource_version: String,
    },
    /// Somebody took it moments ago and is not stored yet: refuse, and say that a retry may help.
    Busy,
    /// Somebody has it: refuse.
    Refused {
        /// Who.
        holder: ObjectKey,
    },
}

/// Decides about one key of one request. `holder` is what was read about [`Claim::holder`]; it is ignored when there
/// is no claim.
#[must_use]
pub fn decide(
    claim: Option<&Claim>,
    holder: &HolderFacts,
    requester: &Requester,
    now: Timestamp,
) -> ClaimStep {
    let Some(claim) = claim else {
        return ClaimStep::Create;
    };
    let resource_version = claim.resource_version.clone();
    let Some(held_by) = claim.holder.as_ref() else {
        return ClaimStep::TakeOver { resource_version };
    };
    if *held_by == requester.key {
        // A second create under the same name is another request: while the first may still land, both would rest on
        // one claim, and the end of one would free it under the other.
        let first_landed = stored_uid(&holder.state) == Some(claim.holder_uid.as_str());
        let renew = claim.holder_uid == requester.uid || first_landed || claim.settled(now);
        return if renew {
            ClaimStep::Renew { resource_version }
        } else {
            ClaimStep::Busy
        };
    }
    if is_stale(claim, &holder.state, now) || (requester.granted && !holder.granted) {
        return ClaimStep::TakeOver { resource_version };
    }
    match holder.state {
        HolderState::Live { wants: true, .. } => ClaimStep::Refused {
            holder: held_by.clone(),
        },
        _ => ClaimStep::Busy,
    }
}

/// True when the claim protects nobody: its holder does not exist, is being deleted or does not want the key, and
/// nothing for which it was taken can still be on its way (operator.md 3.3).
#[must_use]
pub fn is_stale(claim: &Claim, holder: &HolderState, now: Timestamp) -> bool {
    match holder {
        HolderState::Live { wants: true, .. } => false,
        // The write for which it was taken has landed, so nothing of it is on its way.
        HolderState::Terminating { uid } if *uid == claim.holder_uid => true,
        _ => claim.settled(now),
    }
}

/// What the operator does with one claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upkeep {
    /// Nothing.
    Keep,
    /// Create it, confirmed, for the winner.
    Create,
    /// Write it with the winner as holder, confirmed, under this precondition.
    Assert {
        /// Precondition.
        resource_version: String,
    },
    /// Delete it under this precondition.
    Release {
        /// Precondition.
        resource_version: String,
    },
}

/// The operator re-asserts and confirms a key of a stored extension that lost no contest: it must have been read live
/// **after** the claim, be live and want the key; `holder` is what was read about the claim's holder when that is
/// another object. Only an `accepted` one (rows 1–9 of operator.md 2.1) takes a claim from a live holder that wants it:
/// one that still waits for its Gateway or grant would otherwise take turns with the one that is served.
#[must_use]
pub fn uphold(
    claim: Option<&Claim>,
    holder: &HolderState,
    winner: &Requester,
    accepted: bool,
    now: Timestamp,
) -> Upkeep {
    let Some(claim) = claim else { return Upkeep::Create };
    let assert = || Upkeep::Assert {
        resource_version: claim.resource_version.clone(),
    };
    match claim.holder.as_ref() {
        None => assert(),
        Some(held_by) if *held_by == winner.key => match (claim.holder_uid == winner.uid, claim.confirmed) {
            (true, true) => Upkeep::Keep,
            (true, false) => assert(),
            // Taken by a create of the same name that may still be on its way.
            (false, _) if claim.settled(now) => assert(),
            (false, _) => Upkeep::Keep,
        },
        // Stored and wanting it, but the rules say that the winner is another one.
        Some(_) if accepted && matches!(holder, HolderState::Live { wants: true, .. }) => assert(),
        Some(_) if is_stale(claim, holder, now) => assert(),
        Some(_) => Upkeep::Keep,
    }
}

/// The operator's sweep: releases a claim that protects nobody. The right call for a claim whose extension was
/// deleted, retargeted or lost, and for every claim once a minute.
#[must_use]
pub fn sweep(claim: &Claim, holder: &HolderState, now: Timestamp) -> Upkeep {
    if claim.holder.is_none() || is_stale(claim, holder, now) {
        Upkeep::Release {
            resource_version: claim.resource_version.clone(),
        }
    } else {
        Upkeep::Keep
    }
}

fn stored_uid(state: &HolderState) -> Option<&str> {
    match state {
        HolderState::Gone => None,
        HolderState::Terminating { uid } | HolderState::Live { uid, .. } => Some(uid),
    }
}

#[cfg(test)]
mod tests;
