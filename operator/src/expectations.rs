//! What the operator wanted of each child when it last found or made it so, as a hash. A child that differs was changed by
//! somebody else only while this stayed the same (operator.md 6.8); kept in memory, so after a start nobody is blamed.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mcp_gateway_api::object_key::ObjectKey;
use serde_json::Value;

use crate::kinds::Kind;

type Children = BTreeMap<(Kind, ObjectKey), u64>;

/// Hashes of bodies by extension and child. Bounded by the children of the extensions that exist.
#[derive(Default)]
pub(crate) struct Expectations {
    children: Mutex<BTreeMap<ObjectKey, Children>>,
}

impl Expectations {
    /// Remembers the body that a child of `extension` has now, without anything of the live object.
    pub(crate) fn note(&self, extension: &ObjectKey, (kind, child): (Kind, &ObjectKey), body: &Value) {
        let mut all = self.lock();
        let children = all.entry(extension.clone()).or_default();
        children.insert((kind, child.clone()), hash(body));
    }

    /// True when the child had this body when it was last brought to its wanted state.
    pub(crate) fn is_noted(
        &self,
        extension: &ObjectKey,
        (kind, child): (Kind, &ObjectKey),
        body: &Value,
    ) -> bool {
        let all = self.lock();
        let noted = all
            .get(extension)
            .and_then(|children| children.get(&(kind, child.clone())));
        noted == Some(&hash(body))
    }

    /// True when something is remembered of the child.
    pub(crate) fn knows(&self, extension: &ObjectKey, (kind, child): (Kind, &ObjectKey)) -> bool {
        let all = self.lock();
        let children = all.get(extension);
        children.is_some_and(|children| children.contains_key(&(kind, child.clone())))
    }

    /// Forgets the children of an extension that is gone.
    pub(crate) fn forget(&self, extension: &ObjectKey) {
        self.lock().remove(extension);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Children>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    hasher.finish()
}
