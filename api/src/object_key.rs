//! Namespaced identity of an object and the one order by which every contest is decided.

use std::fmt;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use serde::{Deserialize, Serialize};

/// `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl ObjectKey {
    /// Key of the object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Key of the object that `meta` belongs to; absent parts are empty.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// Parses `<namespace>/<name>`; `None` when there is no `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split_once('/')
            .map(|(namespace, name)| Self::new(namespace, name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Age of an object: `(creationTimestamp, UID)`. The smaller one is older and wins every contest (operator.md 14,
/// T1). An object that is not stored yet has neither and is younger than every stored one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    created: Option<Timestamp>,
    uid: String,
}

impl Age {
    /// Age of the object that `meta` belongs to.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// True when `self` wins against `other`.
    #[must_use]
    pub fn older(&self, other: &Self) -> bool {
        match (self.created, other.created) {
            (Some(mine), Some(theirs)) => (mine, &self.uid) < (theirs, &other.uid),
            (mine, theirs) => mine.is_some() && theirs.is_none(),
        }
    }
}

/// True while the object is not being deleted.
#[must_use]
pub fn is_live(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(seconds: Option<i64>, uid: &str) -> Age {
        Age {
            created: seconds.map(|s| Timestamp::from_second(s).expect("in range")),
            uid: uid.to_owned(),
        }
    }

    #[test]
    fn t1_every_contest_has_one_winner_from_either_side() {
        let ages = [
            age(Some(1), "b"),
            age(Some(1), "a"),
            age(Some(2), "0"),
            age(None, ""),
        ];
        for (i, a) in ages.iter().enumerate() {
            for (j, b) in ages.iter().enumerate() {
                assert_eq!(a.older(b) || b.older(a), i != j, "{a:?} {b:?}");
                assert!(!(a.older(b) && b.older(a)));
            }
        }
        assert!(age(Some(1), "a").older(&age(Some(1), "b")));
        assert!(age(Some(9), "z").older(&age(None, "")));
    }
}
