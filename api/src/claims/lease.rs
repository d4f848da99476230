//! A claim to and from its Lease.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::core::params::{DeleteParams, Preconditions};

use super::{
    CLAIM_LABEL, CONFIRMED_ANNOTATION, Claim, ClaimKey, HOLDER_UID_ANNOTATION, KEY_ANNOTATION, Requester,
};
use crate::object_key::ObjectKey;

pub(super) fn claim_of(lease: &Lease) -> Claim {
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation = |name: &str| {
        lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(name))
            .map(String::as_str)
    };
    Claim {
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        key: annotation(KEY_ANNOTATION).and_then(ClaimKey::parse),
        holder: spec.holder_identity.as_deref().and_then(ObjectKey::parse),
        holder_uid: annotation(HOLDER_UID_ANNOTATION).unwrap_or_default().to_owned(),
        confirmed: annotation(CONFIRMED_ANNOTATION) == Some("true"),
        renewed: spec.renew_time.map(|time| time.0),
        acquired: spec.acquire_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// The Lease to write in `lease_namespace` so that `requester` holds `key`. With `previous` it is a replacement under
/// its resourceVersion, without it a create. `confirmed` is for the operator only ([`super::uphold`]).
#[must_use]
pub fn lease_of(
    key: &ClaimKey,
    lease_namespace: &str,
    requester: &Requester,
    previous: Option<&Claim>,
    (now, confirmed): (Timestamp, bool),
) -> Lease {
    let same = previous.filter(|claim| claim.holder.as_ref() == Some(&requester.key));
    let mut annotations = vec![
        (KEY_ANNOTATION.to_owned(), key.to_string()),
        (HOLDER_UID_ANNOTATION.to_owned(), requester.uid.clone()),
    ];
    if confirmed {
        annotations.push((CONFIRMED_ANNOTATION.to_owned(), "true".to_owned()));
    }
    Lease {
        metadata: ObjectMeta {
            name: Some(key.lease_name()),
            namespace: Some(lease_namespace.to_owned()),
            resource_version: previous.map(|claim| claim.resource_version.clone()),
            labels: Some([(CLAIM_LABEL.to_owned(), "true".to_owned())].into()),
            annotations: Some(annotations.into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(requester.key.to_string()),
            acquire_time: Some(MicroTime(same.and_then(|claim| claim.acquired).unwrap_or(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(previous.map_or(0, |claim| {
                claim
                    .transitions
                    .saturating_add(i32::from(claim.holder.as_ref() != Some(&requester.key)))
            })),
            ..LeaseSpec::default()
        }),
    }
}

/// Parameters of a delete that only hits the Lease as it was read.
#[must_use]
pub fn deletable_at(resource_version: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            resource_version: Some(resource_version.to_owned()),
            uid: None,
        }),
        ..DeleteParams::default()
    }
}
