//! What every reconcile gets: client, cache, queue, settings, and what was observed of the brokers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
};
use mcp_gateway_api::object_key::ObjectKey;

use crate::{
    blueprint::Settings,
    brokers::Namespace,
    cache::Cache,
    certificates::Unwritten,
    events::Events,
    expectations::Expectations,
    kinds::Kind,
    metrics::Metrics,
    queue::Queue,
    reconcile::{status::Undeclared, upgradeable::Takeover},
    rollouts::Rollouts,
    snapshot::Snapshot,
};

/// Shared state of the process.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) http: reqwest::Client,
    pub(crate) events: Events,
    /// Interval between two questions to brokers that serve everything.
    pub(crate) status_interval: Duration,
    /// The operator is being uninstalled: no finalizer is taken any more.
    pub(crate) uninstalling: Arc<AtomicBool>,
    /// Which brokers may roll to another image.
    pub(crate) rollouts: Rollouts,
    /// Whether everything was evaluated once.
    pub(crate) takeover: Takeover,
    /// What was wanted of each child.
    pub(crate) expectations: Expectations,
    /// A pair of the webhook on its way into the Secret.
    pub(crate) unwritten_pair: Unwritten,
    /// Members of a status that the cluster's CRDs do not have.
    pub(crate) undeclared: Undeclared,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    brokers: Mutex<BTreeMap<String, Namespace>>,
}

/// The pieces that [`Context::new`] takes as they are.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) http: reqwest::Client,
    pub(crate) events: Events,
    pub(crate) status_interval: Duration,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            client,
            cache,
            queue,
            metrics,
            settings,
            http,
            events,
            status_interval,
        } = parts;
        Self {
            client,
            cache,
            queue,
            metrics,
            settings,
            http,
            events,
            status_interval,
            uninstalling: Arc::default(),
            rollouts: Rollouts::default(),
            takeover: Takeover::default(),
            expectations: Expectations::default(),
            unwritten_pair: Unwritten::default(),
            undeclared: Undeclared::default(),
            snapshot: Mutex::new(None),
            brokers: Mutex::new(BTreeMap::new()),
        }
    }

    /// The verdicts that evaluations decide over.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot_since(0)
    }

    /// Verdicts over at least `version` changes of the world. Judging everything costs much more than evaluating one
    /// item, so the present ones serve everybody who was queued before they were made. When new ones differ from the
    /// former ones, everything concerned is queued.
    pub(crate) fn snapshot_since(&self, version: u64) -> Arc<Snapshot> {
        let mut slot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = slot.as_ref().filter(|current| current.version >= version) {
            return Arc::clone(current);
        }
        let world = self.cache.versioned_world();
        let fresh = Arc::new(Snapshot::compute(world, &self.settings.cluster_domain));
        if let Some(former) = slot.as_ref() {
            self.queue.add(fresh.changes_since(former));
        }
        *slot = Some(Arc::clone(&fresh));
        fresh
    }

    /// What was observed of the brokers, by namespace.
    pub(crate) fn brokers(&self) -> MutexGuard<'_, BTreeMap<String, Namespace>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client for `kind` in `namespace`.
    pub(crate) fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        self.api_of(&kind.resource(), kind.is_cluster_scoped(), namespace)
    }

    fn api_of(&self, resource: &ApiResource, cluster_scoped: bool, namespace: &str) -> Api<DynamicObject> {
        if cluster_scoped {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    /// The raw UID of a cached object.
    pub(crate) fn uid(&self, kind: Kind, key: &ObjectKey) -> Option<String> {
        let object = self.cache.get(kind, key)?;
        object.pointer("/metadata/uid")?.as_str().map(str::to_owned)
    }
}
