//! The watches that feed the snapshot: one task for each kind, as dynamic objects, restarted with backoff for ever.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use mcp_gateway_api::{
    intake::{Watched, key_of},
    object_key::ObjectKey,
};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::Snapshot;
use crate::{kube_cluster::envoy_filter_served, metrics::Metrics};

/// Pause before a kind that the cluster does not serve is tried again.
const RETRY_MISSING: Duration = Duration::from_secs(10);
/// Pause between two looks at whether EnvoyFilter is served.
const DISCOVERY: Duration = Duration::from_secs(60);

/// Starts every watch; they end with `stop`.
pub(crate) fn start(
    client: &Client,
    snapshot: &watch::Sender<Snapshot>,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    for kind in Watched::ALL {
        let feed = Feed {
            client: client.clone(),
            snapshot: snapshot.clone(),
            kind,
            known: BTreeSet::new(),
            metrics: metrics.clone(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(feed.run()));
    }
    let discovery = discover(client.clone(), snapshot.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(discovery));
}

struct Feed {
    client: Client,
    snapshot: watch::Sender<Snapshot>,
    kind: Watched,
    /// What is in the world by this feed.
    known: BTreeSet<ObjectKey>,
    metrics: Metrics,
}

impl Feed {
    /// Watches the first version that is served. A kind that is not served counts as listed: it has no objects.
    async fn run(mut self) {
        loop {
            for resource in resources(self.kind) {
                if self.is_served(&resource).await {
                    self.watch(&resource).await;
                }
            }
            self.finish_list(BTreeSet::new());
            sleep(RETRY_MISSING).await;
        }
    }

    async fn is_served(&self, resource: &ApiResource) -> bool {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        loop {
            match api
                .list_metadata(&kube::api::ListParams::default().limit(1))
                .await
            {
                Ok(_) => return true,
                Err(kube::Error::Api(status)) if status.code == 404 => return false,
                Err(error) => {
                    tracing::warn!(kind = self.kind.name(), %error, "Kind cannot be listed");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Returns when the kind is no longer served.
    async fn watch(&mut self, resource: &ApiResource) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let events = kube::runtime::watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => listed.extend(self.put(object)),
                Ok(Event::InitDone) => self.finish_list(std::mem::take(&mut listed)),
                Ok(Event::Apply(object)) => drop(self.put(object)),
                Ok(Event::Delete(object)) => self.remove(object),
                Err(error) if is_missing(&error) => return,
                Err(error) => {
                    self.metrics.watch_restarted(self.kind);
                    tracing::warn!(kind = self.kind.name(), %error, "Watch failed and restarts");
                }
            }
        }
    }

    fn put(&mut self, object: DynamicObject) -> Option<ObjectKey> {
        let object = to_value(object)?;
        let key = key_of(&object);
        self.snapshot.send_modify(|snapshot| {
            if let Err(error) = self.kind.put(&mut snapshot.world, &object) {
                tracing::warn!(kind = self.kind.name(), ns = key.namespace, name = key.name, %error, "Object skipped");
            }
        });
        self.known.insert(key.clone());
        Some(key)
    }

    fn remove(&mut self, object: DynamicObject) {
        let Some(key) = to_value(object).map(|object| key_of(&object)) else {
            return;
        };
        self.snapshot
            .send_modify(|snapshot| self.kind.remove(&mut snapshot.world, &key));
        self.known.remove(&key);
    }

    /// Takes out what a complete list no longer has.
    fn finish_list(&mut self, listed: BTreeSet<ObjectKey>) {
        self.snapshot.send_modify(|snapshot| {
            for key in self.known.difference(&listed) {
                self.kind.remove(&mut snapshot.world, key);
            }
            snapshot.synced.insert(self.kind);
        });
        self.known = listed;
    }
}

/// Without `managedFields`, which nothing reads and which are half of many objects.
fn to_value(mut object: DynamicObject) -> Option<Value> {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).ok()
}

fn is_missing(error: &watcher::Error) -> bool {
    let status = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => status(error),
        _ => false,
    }
}

/// Versions to try, in this order.
fn resources(kind: Watched) -> Vec<ApiResource> {
    let served = kind.served_as();
    let of = |version: &&str| {
        let gvk = GroupVersionKind::gvk(served.group, version, kind.name());
        ApiResource::from_gvk_with_plural(&gvk, served.plural)
    };
    served.versions.iter().map(of).collect()
}

async fn discover(client: Client, snapshot: watch::Sender<Snapshot>) {
    loop {
        let served = envoy_filter_served(&client).await.ok();
        snapshot.send_modify(|snapshot| snapshot.envoy_filter_served = served);
        sleep(DISCOVERY).await;
    }
}
