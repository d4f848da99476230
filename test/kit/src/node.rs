//! The node: one Node object, every pending pod bound to it, and one task per pod that plays it as processes.

pub(crate) mod container;
pub(crate) mod env;
pub(crate) mod images;
pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod probes;
pub(crate) mod process;
pub(crate) mod refused;
pub(crate) mod rootfs;
pub(crate) mod status;
pub(crate) mod swap;
pub(crate) mod tokens;
pub(crate) mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Binding, Node as NodeObject, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::control_plane::NODE_ADDRESS;
use crate::node::images::ImageTable;
use crate::node::network::AddressPool;
use crate::objects::Objects;
use crate::state_dir::StateDir;

/// The name of the one node.
pub(crate) const NODE_NAME: &str = "kit-node";

/// What every pod needs of its node.
pub(crate) struct Node {
    pub(crate) client: kube::Client,
    pub(crate) state: StateDir,
    pub(crate) objects: Objects,
    pub(crate) images: ImageTable,
    pub(crate) pool: AddressPool,
    /// The kit's own program, which becomes the containers.
    pub(crate) kit: PathBuf,
    /// Directories that containers must see under their own paths.
    pub(crate) visible: Vec<PathBuf>,
    /// For probes: certificates are not checked, as a kubelet does not.
    pub(crate) http: reqwest::Client,
}

impl Node {
    /// How long a change of a Secret takes to reach the volumes: 0, or what a test wrote into `volume-delay-ms`.
    pub(crate) fn volume_delay(&self) -> Duration {
        let text = std::fs::read_to_string(self.state.volume_delay()).unwrap_or_default();
        Duration::from_millis(text.trim().parse().unwrap_or(0))
    }
}

/// Registers the node.
///
/// # Errors
/// What the API server answered.
pub(crate) async fn register(client: &kube::Client) -> Result<(), kube::Error> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": {
            "kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": architecture()}},
    });
    let params = PatchParams::apply("kit").force();
    api.patch(NODE_NAME, &params, &Patch::Apply(&node)).await?;
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "700", "ephemeral-storage": "64Gi"});
    let status = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}, {"type": "Hostname", "address": NODE_NAME}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": crate::kubelet::PORT}},
            "nodeInfo": {
                "machineID": "kit", "systemUUID": "kit", "bootID": "kit", "kernelVersion": "host", "osImage": "kit",
                "containerRuntimeVersion": "kit://0", "kubeletVersion": format!("v{}", crate::binaries::KUBERNETES_VERSION),
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": architecture()},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KitPlaysPods", "message": "the kit plays pods",
                "lastHeartbeatTime": jiff::Timestamp::now(), "lastTransitionTime": jiff::Timestamp::now()}],
        },
    });
    api.patch_status(NODE_NAME, &params, &Patch::Apply(&status))
        .await?;
    // A new node is born tainted until somebody has looked at it; nobody else will.
    let untainted = json!({"spec": {"taints": []}});
    api.patch(NODE_NAME, &PatchParams::default(), &Patch::Merge(&untainted))
        .await?;
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Plays every pod until the runtime ends.
pub(crate) async fn play(node: Arc<Node>) {
    let pods = watcher(Api::<Pod>::all(node.client.clone()), watcher::Config::default());
    let mut events = pods.default_backoff().boxed();
    let mut players: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed = BTreeSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                listed.insert(uid(&pod));
                seen(&node, &mut players, pod);
            }
            Ok(Some(watcher::Event::InitDone)) => players.retain(|uid, _| listed.contains(uid)),
            Ok(Some(watcher::Event::Apply(pod))) => seen(&node, &mut players, pod),
            // Dropping the sender tells the player that the object is gone.
            Ok(Some(watcher::Event::Delete(pod))) => drop(players.remove(&uid(&pod))),
            Ok(None) => return,
            Err(error) => warn!(%error, "Watch of pods failed"),
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn seen(node: &Arc<Node>, players: &mut HashMap<String, watch::Sender<Arc<Pod>>>, pod: Pod) {
    let Some(spec) = pod.spec.as_ref() else { return };
    match spec.node_name.as_deref() {
        None | Some("") => {
            if pod.metadata.deletion_timestamp.is_none()
                && spec.scheduling_gates.iter().flatten().next().is_none()
            {
                tokio::spawn(bind(node.client.clone(), pod));
            }
        }
        Some(NODE_NAME) => {
            let pod = Arc::new(pod);
            if let Some(player) = players.get(&uid(&pod)) {
                player.send_replace(pod);
                return;
            }
            let (sender, receiver) = watch::channel(Arc::clone(&pod));
            players.insert(uid(&pod), sender);
            tokio::spawn(pod::play(Arc::clone(node), receiver));
        }
        // Bound to a node that somebody else plays.
        Some(_) => {}
    }
}

async fn bind(client: kube::Client, pod: Pod) {
    let name = pod.metadata.name.unwrap_or_default();
    let namespace = pod.metadata.namespace.unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            uid: pod.metadata.uid,
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(NODE_NAME.to_owned()),
            ..ObjectReference::default()
        },
    };
    match api
        .create_subresource::<_, Status>("binding", &name, &PostParams::default(), &binding)
        .await
    {
        Ok(_) => info!(pod = name, namespace, "Pod bound"),
        Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => {}
        Err(error) => warn!(pod = name, namespace, %error, "Pod cannot be bound"),
    }
}
