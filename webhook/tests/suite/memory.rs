//! The API server as the webhook sees it, in memory: live objects and claims with resourceVersions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use mcp_gateway_api::{
    admission::ObjectFact,
    claims::{Claim, ClaimKey},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    intake::{Watched, key_of},
    object_key::ObjectKey,
    world::World,
};
use mcp_gateway_webhook::{
    cache::{Snapshot, WorldReader},
    cluster::{Cluster, ClusterError},
};
use serde_json::Value;
use tokio::sync::watch;

/// Seconds of the clock that claims see.
static CLOCK: AtomicI64 = AtomicI64::new(1_800_000_000);

/// The clock of these tests: it stands still unless told otherwise.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(CLOCK.load(Ordering::SeqCst)).unwrap()
}

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    objects: Mutex<BTreeMap<(String, ObjectKey), Value>>,
    leases: Mutex<BTreeMap<String, Lease>>,
    version: AtomicUsize,
    /// 1: every call fails; 2: no call ever ends.
    broken: AtomicUsize,
}

impl Memory {
    pub(crate) fn with(objects: &[Value]) -> Self {
        let memory = Self::default();
        for object in objects {
            memory.store(object.clone());
        }
        memory
    }

    pub(crate) fn store(&self, object: Value) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        self.objects().insert((kind, key_of(&object)), object);
    }

    pub(crate) fn delete(&self, kind: &str, key: &str) {
        self.objects()
            .remove(&(kind.to_owned(), ObjectKey::parse(key).unwrap()));
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.0.leases.lock().unwrap()
    }

    /// From now on the API server cannot be reached.
    pub(crate) fn break_down(&self) {
        self.0.broken.store(1, Ordering::SeqCst);
    }

    /// From now on the API server does not answer.
    pub(crate) fn hang(&self) {
        self.0.broken.store(2, Ordering::SeqCst);
    }

    /// A world of what is stored now, as the watches would have it.
    pub(crate) fn world(&self) -> (watch::Sender<Snapshot>, WorldReader) {
        let mut world = World::default();
        for ((kind, _), object) in self.objects().iter() {
            if let Some(kind) = Watched::from_name(kind) {
                kind.put(&mut world, object).unwrap();
            }
        }
        let snapshot = Snapshot {
            world,
            synced: Watched::ALL.into_iter().collect(),
            envoy_filter_served: Some(true),
        };
        WorldReader::new(snapshot)
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<(String, ObjectKey), Value>> {
        self.0.objects.lock().unwrap()
    }

    async fn get(&self, kind: &str, key: &ObjectKey) -> Result<Option<Value>, ClusterError> {
        // Lets other requests in between every two calls, as a network would.
        tokio::task::yield_now().await;
        match self.0.broken.load(Ordering::SeqCst) {
            0 => {}
            1 => return Err(ClusterError::Deadline),
            _ => std::future::pending().await,
        }
        Ok(self.objects().get(&(kind.to_owned(), key.clone())).cloned())
    }

    fn fact(found: Option<&Value>) -> ObjectFact {
        found.map_or(ObjectFact::Missing, |object| {
            ObjectFact::present(&serde_json::from_value(object["metadata"].clone()).unwrap())
        })
    }
}

impl Cluster for Memory {
    async fn extension(&self, key: &ObjectKey) -> Result<Option<MCPGatewayExtension>, ClusterError> {
        Ok(self
            .get("MCPGatewayExtension", key)
            .await?
            .map(|object| serde_json::from_value(object).unwrap()))
    }

    async fn gateway(&self, key: &ObjectKey) -> Result<Option<Gateway>, ClusterError> {
        Ok(self
            .get("Gateway", key)
            .await?
            .map(|object| Gateway::from_value(&object).unwrap()))
    }

    async fn secret(&self, key: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        Ok(Self::fact(self.get("Secret", key).await?.as_ref()))
    }

    async fn config_map(&self, key: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        Ok(Self::fact(self.get("ConfigMap", key).await?.as_ref()))
    }

    async fn envoy_filter_served(&self) -> Result<bool, ClusterError> {
        let kind = "networking.istio.io";
        let stored = self
            .get("CustomResourceDefinition", &ObjectKey::new("", kind))
            .await?;
        Ok(stored.is_none_or(|definition| definition["served"] != false))
    }

    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, ClusterError> {
        self.get("", &ObjectKey::new("", "")).await?;
        Ok(self.leases().get(&key.lease_name()).map(Claim::of))
    }

    async fn write_claim(&self, mut lease: Lease) -> Result<Option<String>, ClusterError> {
        self.get("", &ObjectKey::new("", "")).await?;
        let name = lease.metadata.name.clone().unwrap();
        let mut leases = self.leases();
        let current = leases
            .get(&name)
            .and_then(|lease| lease.metadata.resource_version.clone());
        if current != lease.metadata.resource_version {
            return Ok(None);
        }
        let version = self.0.version.fetch_add(1, Ordering::SeqCst).to_string();
        lease.metadata.resource_version = Some(version.clone());
        leases.insert(name, lease);
        Ok(Some(version))
    }

    async fn delete_claim(&self, key: &ClaimKey, resource_version: &str) -> Result<(), ClusterError> {
        self.get("", &ObjectKey::new("", "")).await?;
        let mut leases = self.leases();
        let same = |lease: &Lease| lease.metadata.resource_version.as_deref() == Some(resource_version);
        if leases.get(&key.lease_name()).is_some_and(same) {
            leases.remove(&key.lease_name());
        }
        Ok(())
    }

    fn claims_namespace(&self) -> &str {
        "mcp-system"
    }
}
