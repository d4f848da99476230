//! What the kit knows of the cluster, kept up to date by watches: the objects that pods and the hosts file are made of.
//! Every change bumps one generation number, so that a reader can wait for "something changed" and look again.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;

/// Live views of the kinds that pods refer to.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) secrets: Store<Secret>,
    pub(crate) config_maps: Store<ConfigMap>,
    pub(crate) services: Store<Service>,
    pub(crate) endpoint_slices: Store<EndpointSlice>,
    pub(crate) service_accounts: Store<ServiceAccount>,
    generation: watch::Receiver<u64>,
}

impl Objects {
    /// Starts the watches; the views fill while the caller goes on.
    pub(crate) fn watch(client: &Client) -> Self {
        let (sender, generation) = watch::channel(0);
        let sender = Arc::new(sender);
        Self {
            secrets: follow(client, &sender),
            config_maps: follow(client, &sender),
            services: follow(client, &sender),
            endpoint_slices: follow(client, &sender),
            service_accounts: follow(client, &sender),
            generation,
        }
    }

    /// A receiver that changes whenever any object here changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&ObjectRef::new(name).within(namespace))
    }

    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> Option<Arc<ServiceAccount>> {
        self.service_accounts.get(&ObjectRef::new(name).within(namespace))
    }
}

fn follow<K>(client: &Client, generation: &Arc<watch::Sender<u64>>) -> Store<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Send + Sync,
{
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    let mut stream = reflector::reflector(writer, stream).default_backoff().boxed();
    let generation = Arc::clone(generation);
    tokio::spawn(async move {
        loop {
            match stream.try_next().await {
                Ok(Some(_)) => generation.send_modify(|number| *number += 1),
                Ok(None) => return,
                Err(error) => warn!(kind = %K::kind(&K::DynamicType::default()), %error, "Watch failed"),
            }
        }
    });
    store
}
