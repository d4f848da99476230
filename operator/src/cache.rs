//! The one owner of everything that the watches deliver: objects by kind, the [`World`] that the rules read, and
//! which kinds the cluster serves. Invariant: an object that cannot be decoded is remembered with its error and
//! changes nothing else (T63). The mutex is held for lookups and single updates only, never across an await.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mcp_gateway_api::{
    gateway::Gateway, grant::ReferenceGrant, intake::Watched, object_key::ObjectKey, route::HttpRoute,
    selector::Labels, service::Service, world::World,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    affected::{affected, extension_of},
    kinds::Kind,
    packed::Packed,
    queue::WorkItem,
    rollouts::Running,
};

/// What is known about a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Served {
    /// The first list is still under way.
    #[default]
    Unknown,
    /// Listed completely at least once.
    Synced,
    /// The cluster does not serve it.
    Missing,
}

/// A count of changes that others can read.
pub(crate) type Version = Arc<AtomicU64>;

/// The store.
#[derive(Default)]
pub(crate) struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Kind, BTreeMap<ObjectKey, Packed>>,
    /// What runs in each namespace: every evaluation looks at all of them.
    running: BTreeMap<ObjectKey, Running>,
    world: Arc<World>,
    served: BTreeMap<Kind, Served>,
    undecodable: BTreeMap<(Kind, ObjectKey), String>,
    /// Counts the changes of `world`; the queue reads it.
    version: Version,
}

impl Cache {
    /// The rules' view of now.
    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.lock().world)
    }

    /// The rules' view of now, and how many changes it has seen.
    pub(crate) fn versioned_world(&self) -> (Arc<World>, u64) {
        let inner = self.lock();
        (Arc::clone(&inner.world), inner.version.load(Ordering::SeqCst))
    }

    /// How many changes the rules' view has seen.
    pub(crate) fn version(&self) -> Version {
        Arc::clone(&self.lock().version)
    }

    /// The object as last seen: whole, or metadata only for the kinds that are watched that way.
    pub(crate) fn get(&self, kind: Kind, key: &ObjectKey) -> Option<Value> {
        let packed = self.lock().objects.get(&kind)?.get(key).cloned();
        packed.map(|packed| packed.open())
    }

    /// Whether there is such an object.
    pub(crate) fn contains(&self, kind: Kind, key: &ObjectKey) -> bool {
        let inner = self.lock();
        inner.objects.get(&kind).is_some_and(|all| all.contains_key(key))
    }

    /// Every object of a kind whose key is `wanted`.
    pub(crate) fn list(&self, kind: Kind, wanted: impl Fn(&ObjectKey) -> bool) -> Vec<(ObjectKey, Value)> {
        self.select(kind, |key, _| wanted(key))
    }

    /// Every object of a kind in which `word` stands, a name or a label's value; where, the caller looks.
    pub(crate) fn mentioning(&self, kind: Kind, word: &str) -> Vec<(ObjectKey, Value)> {
        self.select(kind, |_, packed| packed.mentions(word))
    }

    /// The brokers of the cluster and what they run.
    pub(crate) fn running(&self) -> Vec<(ObjectKey, Running)> {
        let inner = self.lock();
        let running = inner.running.iter();
        running
            .map(|(key, running)| (key.clone(), running.clone()))
            .collect()
    }

    fn select(&self, kind: Kind, wanted: impl Fn(&ObjectKey, &Packed) -> bool) -> Vec<(ObjectKey, Value)> {
        let selected: Vec<(ObjectKey, Packed)> = {
            let inner = self.lock();
            let all = inner.objects.get(&kind).into_iter().flatten();
            all.filter(|(key, packed)| wanted(key, packed))
                .map(|(key, packed)| (key.clone(), packed.clone()))
                .collect()
        };
        selected
            .into_iter()
            .map(|(key, packed)| (key, packed.open()))
            .collect()
    }

    /// Why an object of ours could not be decoded, if so.
    pub(crate) fn decode_error(&self, kind: Kind, key: &ObjectKey) -> Option<String> {
        self.lock().undecodable.get(&(kind, key.clone())).cloned()
    }

    /// What is known about `kind`.
    pub(crate) fn served(&self, kind: Kind) -> Served {
        self.lock().served.get(&kind).copied().unwrap_or_default()
    }

    /// True once every kind is listed or known to be missing.
    pub(crate) fn is_synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.served(*kind) != Served::Unknown)
    }

    /// Takes in an added or changed object; returns what has to be evaluated again.
    pub(crate) fn apply(&self, kind: Kind, key: &ObjectKey, mut object: Value) -> BTreeSet<WorkItem> {
        trim(kind, key, &mut object);
        let mut inner = self.lock();
        let former = inner.open(kind, key);
        let notable = former
            .as_ref()
            .is_none_or(|former| differs(kind, former, &object));
        // During a first list nothing has to be queued: its end, or the start of work, queues everything.
        let counts = notable && inner.served.get(&kind) == Some(&Served::Synced);
        let mut items = BTreeSet::new();
        if counts {
            items.extend(affected(&inner.world, kind, key, former.as_ref()));
        }
        inner.store(kind, key, &object, notable);
        if counts {
            items.extend(affected(&inner.world, kind, key, Some(&object)));
        }
        items
    }

    /// Takes out a deleted object; returns what has to be evaluated again.
    pub(crate) fn delete(&self, kind: Kind, key: &ObjectKey) -> BTreeSet<WorkItem> {
        let mut inner = self.lock();
        let Some(former) = inner.objects.get_mut(&kind).and_then(|all| all.remove(key)) else {
            return BTreeSet::new();
        };
        let mut items = affected(&inner.world, kind, key, Some(&former.open()));
        inner.forget(kind, key);
        items.extend(affected(&inner.world, kind, key, None));
        items
    }

    /// Ends a complete list of `kind`: everything that is not in `listed` is gone.
    pub(crate) fn finish_list(&self, kind: Kind, listed: &BTreeSet<ObjectKey>) -> BTreeSet<WorkItem> {
        let gone: Vec<ObjectKey> = {
            let inner = self.lock();
            let all = inner.objects.get(&kind).into_iter().flatten();
            all.map(|(key, _)| key.clone())
                .filter(|key| !listed.contains(key))
                .collect()
        };
        let mut items: BTreeSet<WorkItem> = gone.iter().flat_map(|key| self.delete(kind, key)).collect();
        items.extend(self.set_served(kind, Served::Synced));
        items
    }

    /// Records that the cluster does not serve `kind`; its objects are gone.
    pub(crate) fn set_missing(&self, kind: Kind) -> BTreeSet<WorkItem> {
        if self.served(kind) == Served::Missing {
            return BTreeSet::new();
        }
        let mut items = self.finish_list(kind, &BTreeSet::new());
        items.extend(self.set_served(kind, Served::Missing));
        items
    }

    /// Everything that is evaluated, brokers included: for the resync, for a kind that came or went, and for a replica
    /// that leads anew, because the queue forgot what it waited for when it led no more.
    pub(crate) fn everything(&self) -> BTreeSet<WorkItem> {
        let inner = self.lock();
        let keys = |kind: Kind| {
            inner
                .objects
                .get(&kind)
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
        };
        keys(Kind::Extension)
            .map(WorkItem::Extension)
            .chain(keys(Kind::Registration).map(WorkItem::Registration))
            .chain(keys(Kind::VirtualServer).map(WorkItem::VirtualServer))
            .chain(keys(Kind::AuthPolicy).map(WorkItem::AuthPolicy))
            .chain(keys(Kind::Gateway).map(WorkItem::ListenerStatus))
            .chain(keys(Kind::HttpRoute).map(WorkItem::RouteStatus))
            .chain(keys(Kind::Extension).map(|extension| WorkItem::Brokers(extension.namespace)))
            .chain(inner.orphaned().map(WorkItem::Extension))
            .collect()
    }

    fn set_served(&self, kind: Kind, served: Served) -> BTreeSet<WorkItem> {
        let former = self.lock().served.insert(kind, served).unwrap_or_default();
        let changed = former != Served::Unknown && former != served;
        if changed {
            self.everything()
        } else {
            BTreeSet::new()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Extensions that are gone and whose EnvoyFilters are still there, by annotation: deleted while nobody looked.
    fn orphaned(&self) -> impl Iterator<Item = ObjectKey> {
        let known = self.objects.get(&Kind::Extension);
        let filters = self.objects.get(&Kind::EnvoyFilter).into_iter().flatten();
        let listed = self.served.get(&Kind::Extension) == Some(&Served::Synced);
        filters
            .filter(move |_| listed)
            .filter_map(|(_, filter)| extension_of(&filter.open()))
            .filter(move |extension| known.is_none_or(|known| !known.contains_key(extension)))
    }

    fn open(&self, kind: Kind, key: &ObjectKey) -> Option<Value> {
        self.objects.get(&kind)?.get(key).map(Packed::open)
    }

    /// Takes the object in. One that differs in nothing that matters does not touch the world, so that no verdict is
    /// computed again for our own status writes.
    fn store(&mut self, kind: Kind, key: &ObjectKey, object: &Value, notable: bool) {
        let all = self.objects.entry(kind).or_default();
        all.insert(key.clone(), Packed::of(object));
        if kind == Kind::Deployment {
            self.running.insert(key.clone(), Running::of(object));
        }
        if !notable || !is_in_world(kind) {
            return;
        }
        self.version.fetch_add(1, Ordering::SeqCst);
        match set_in_world(Arc::make_mut(&mut self.world), kind, key, object) {
            Ok(()) => {
                self.undecodable.remove(&(kind, key.clone()));
            }
            Err(error) => {
                tracing::warn!(kind = kind.name(), name = %key, %error, "Object cannot be read and is left out");
                if kind != Kind::AuthPolicy {
                    remove_from_world(Arc::make_mut(&mut self.world), kind, key);
                }
                self.undecodable.insert((kind, key.clone()), error);
            }
        }
    }

    fn forget(&mut self, kind: Kind, key: &ObjectKey) {
        if kind == Kind::Deployment {
            self.running.remove(key);
        }
        if !is_in_world(kind) {
            return;
        }
        self.version.fetch_add(1, Ordering::SeqCst);
        remove_from_world(Arc::make_mut(&mut self.world), kind, key);
        self.undecodable.remove(&(kind, key.clone()));
    }
}

/// Drops what is never read: `managedFields` of objects that we do not apply.
fn trim(kind: Kind, key: &ObjectKey, object: &mut Value) {
    let is_child = match kind {
        Kind::ServiceAccount | Kind::Role | Kind::RoleBinding | Kind::NetworkPolicy | Kind::Deployment => {
            true
        }
        Kind::EnvoyFilter => true,
        Kind::HttpRoute => crate::affected::is_managed_route(&key.name),
        Kind::Service | Kind::PodDisruptionBudget => key.name == mcp_gateway_api::names::BROKER,
        _ => false,
    };
    if !is_child && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// True when the change can matter to anybody: more than bookkeeping, and for our own kinds more than status.
fn differs(kind: Kind, former: &Value, object: &Value) -> bool {
    let ours = matches!(
        kind,
        Kind::Extension | Kind::Registration | Kind::VirtualServer | Kind::AuthPolicy
    );
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
        if ours && let Some(members) = object.as_object_mut() {
            members.remove("status");
        }
        object
    };
    // Where the content is not watched its version is the only trace of a change.
    let opaque = matches!(
        kind,
        Kind::Secret | Kind::ConfigMap | Kind::ValidatingWebhooks | Kind::MutatingWebhooks
    );
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    if opaque {
        version(former) != version(object)
    } else {
        strip(former) != strip(object)
    }
}

/// True for the kinds that the rules read.
fn is_in_world(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Extension
            | Kind::Registration
            | Kind::VirtualServer
            | Kind::AuthPolicy
            | Kind::Gateway
            | Kind::HttpRoute
            | Kind::Service
            | Kind::Namespace
            | Kind::ReferenceGrant
    )
}

fn set_in_world(world: &mut World, kind: Kind, key: &ObjectKey, object: &Value) -> Result<(), String> {
    let plain = |error: serde_json::Error| error.to_string();
    match kind {
        Kind::Extension => world.set_extension(decode(object)?),
        Kind::Registration => world.set_registration(decode(object)?),
        Kind::VirtualServer => world.set_virtual_server(decode(object)?),
        Kind::AuthPolicy => match decode(object) {
            Ok(policy) => world.set_policy(policy),
            Err(error) => {
                // What it names must not open: it stays in a closed form.
                drop(Watched::Policy.put(world, object));
                return Err(error);
            }
        },
        Kind::Gateway => world.set_gateway(Arc::new(Gateway::from_value(object).map_err(plain)?)),
        Kind::HttpRoute => world.set_route(Arc::new(HttpRoute::from_value(object).map_err(plain)?)),
        Kind::Service => world.set_service(Arc::new(Service::from_value(object).map_err(plain)?)),
        Kind::Namespace => world.set_namespace(key.name.clone(), labels(object)),
        Kind::ReferenceGrant => match ReferenceGrant::from_value(object).map_err(plain)? {
            Some(grant) => world.set_grant(Arc::new(grant)),
            None => {
                world.remove_grant(key);
            }
        },
        _ => {}
    }
    Ok(())
}

fn remove_from_world(world: &mut World, kind: Kind, key: &ObjectKey) {
    match kind {
        Kind::Extension => drop(world.remove_extension(key)),
        Kind::Registration => drop(world.remove_registration(key)),
        Kind::VirtualServer => drop(world.remove_virtual_server(key)),
        Kind::AuthPolicy => drop(world.remove_policy(key)),
        Kind::Gateway => drop(world.remove_gateway(key)),
        Kind::HttpRoute => drop(world.remove_route(key)),
        Kind::Service => drop(world.remove_service(key)),
        Kind::Namespace => drop(world.remove_namespace(&key.name)),
        Kind::ReferenceGrant => drop(world.remove_grant(key)),
        _ => {}
    }
}

/// An object of ours; the error names the field.
fn decode<T: DeserializeOwned>(object: &Value) -> Result<Arc<T>, String> {
    serde_path_to_error::deserialize(object)
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

fn labels(object: &Value) -> Labels {
    let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
    serde_json::from_value(labels).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::Objects;
    use mcp_gateway_api::names;

    #[test]
    fn t63_an_object_from_before_the_schema_tightened_is_named_by_its_field_and_disturbs_nobody() {
        let objects = Objects::default()
            .gateway_and_extension()
            .server("apps/good", 1, &json!({}))
            .server("apps/bad", 2, &json!({"credentialRef": {"name": 5}}))
            .put(
                Kind::Extension,
                "old/ext",
                &json!({"spec": {"targetRef": {"name": "gw"}}}),
            )
            .put(Kind::VirtualServer, "apps/vs", &json!({"spec": {"tools": "all"}}));
        let error = |kind, namespace: &str, name: &str| {
            objects
                .0
                .decode_error(kind, &ObjectKey::new(namespace, name))
                .unwrap_or_default()
        };
        let registration = error(Kind::Registration, "apps", "bad");
        assert!(
            registration.starts_with("spec.credentialRef.name: "),
            "{registration}"
        );
        let extension = error(Kind::Extension, "old", "ext");
        assert!(
            extension.starts_with("spec.targetRef: missing field `sectionName`"),
            "{extension}"
        );
        let server = error(Kind::VirtualServer, "apps", "vs");
        assert!(server.starts_with("spec.tools: "), "{server}");
        let world = objects.0.world();
        assert!(world.registration(&ObjectKey::new("apps", "good")).is_some());
        assert!(world.extension(&ObjectKey::new("team", "ext")).is_some());
        assert!(world.registration(&ObjectKey::new("apps", "bad")).is_none());
    }

    #[test]
    fn t37_a_kind_that_stays_missing_has_nothing_evaluated() {
        let cache = Objects::default().gateway_and_extension().0;
        cache.set_missing(Kind::EnvoyFilter);
        assert!(cache.set_missing(Kind::EnvoyFilter).is_empty(), "it is as before");
        let came = cache.finish_list(Kind::EnvoyFilter, &BTreeSet::new());
        assert!(!came.is_empty(), "it is there");
        assert!(!cache.set_missing(Kind::EnvoyFilter).is_empty(), "it went");
        assert!(cache.set_missing(Kind::EnvoyFilter).is_empty(), "it is as before");
    }

    #[test]
    fn a_filter_whose_extension_went_while_nobody_looked_is_found() {
        let filter =
            |extension: &str| json!({"metadata": {"annotations": {names::EXTENSION_ANNOTATION: extension}}});
        let objects = Objects::default()
            .gateway_and_extension()
            .put(Kind::EnvoyFilter, "infra/left", &filter("gone/ext"))
            .put(Kind::EnvoyFilter, "infra/ours", &filter("team/ext"));
        let gone = WorkItem::Extension(ObjectKey::new("gone", "ext"));
        assert!(
            !objects.0.everything().contains(&gone),
            "extensions are not listed yet"
        );
        let items = objects.listed(Kind::Extension).0.everything();
        assert!(items.contains(&gone), "{items:?}");
    }

    #[test]
    fn brokers_are_asked_again_by_a_replica_that_leads_anew() {
        let objects = Objects::default().gateway_and_extension();
        let items = objects.0.everything();
        assert!(items.contains(&WorkItem::Brokers("team".to_owned())), "{items:?}");
    }
}
