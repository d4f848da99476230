//! One pod from its binding to its end: network, volumes, init containers, containers, status, deletion.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control_plane::NODE_ADDRESS;
use crate::node::Node;
use crate::node::container::keep_running;
use crate::node::env::Fields;
use crate::node::network::PodNetwork;
use crate::node::refused::refused;
use crate::node::status::{Board, Facts, Record, now, pod_status};
use crate::node::tokens::Tokens;
use crate::node::volumes::{PodVolumes, SharedVolumes, with_token_mount};

const RETRY: Duration = Duration::from_secs(1);
/// Volumes are looked at this often even when nothing changed: tokens grow old.
const VOLUME_SYNC: Duration = Duration::from_secs(30);

/// What a pod's containers share.
pub(crate) struct PodContext {
    pub(crate) node: Arc<Node>,
    /// The pod as stored, with the token mount added.
    pub(crate) pod: Pod,
    pub(crate) dir: PathBuf,
    pub(crate) volumes: SharedVolumes,
    pub(crate) board: Board,
    pub(crate) fields: Fields,
    pub(crate) address: Ipv4Addr,
    pub(crate) network_pid: u32,
    /// Cancelled when the pod must end.
    pub(crate) stop: CancellationToken,
    latest: watch::Receiver<Arc<Pod>>,
}

impl PodContext {
    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(crate) fn log(&self, container: &str) -> PathBuf {
        self.node.state.pod_log(self.namespace(), self.name(), container)
    }

    pub(crate) fn pid_file(&self, container: &str) -> PathBuf {
        self.node
            .state
            .container_pid_file(self.namespace(), self.name(), container)
    }

    pub(crate) fn restart_policy(&self) -> &str {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref())
            .unwrap_or("Always")
    }

    /// How long a container may take to end: what the deletion says, else what the pod says.
    pub(crate) fn grace(&self) -> Duration {
        let latest = self.latest.borrow();
        let of_spec = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = latest
            .metadata
            .deletion_grace_period_seconds
            .or(of_spec)
            .unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Waits; `true` when the pod must end.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }
}

/// Plays a pod until it is deleted. `latest` carries its newest version and closes when the object is gone.
pub(crate) async fn play(node: Arc<Node>, latest: watch::Receiver<Arc<Pod>>) {
    let stored = Arc::clone(&latest.borrow());
    let board = Board::new(facts(&stored));
    let writer = tokio::spawn(write_status(
        Arc::clone(&node),
        Arc::clone(&stored),
        board.clone(),
    ));
    let stop = CancellationToken::new();
    let life = live(&node, &stored, &board, &latest, &stop);
    let deletion = async {
        deleted(latest.clone()).await;
        stop.cancel();
    };
    // The life ends before the deletion only when every container has ended for good.
    let (network, ()) = tokio::join!(life, deletion);
    if let Some(network) = network {
        network.destroy().await;
    }
    writer.abort();
    let _ = std::fs::remove_dir_all(pod_dir(&node, &stored));
    remove_object(&node, &stored).await;
}

/// Returns when the pod is to be deleted or is gone.
async fn deleted(mut latest: watch::Receiver<Arc<Pod>>) {
    while latest.borrow_and_update().metadata.deletion_timestamp.is_none() {
        if latest.changed().await.is_err() {
            return;
        }
    }
}

fn pod_dir(node: &Node, pod: &Pod) -> PathBuf {
    node.state
        .pods()
        .join(pod.metadata.uid.as_deref().unwrap_or_default())
}

fn facts(pod: &Pod) -> Facts {
    let spec = pod.spec.as_ref();
    let record = |container: &Container, init: bool| Record {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        init,
        ..Record::default()
    };
    let init = spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .map(|it| record(it, true));
    let main = spec
        .iter()
        .flat_map(|spec| spec.containers.iter())
        .map(|it| record(it, false));
    Facts {
        records: init.chain(main).collect(),
        start_time: Some(now()),
        ..Facts::default()
    }
}

/// Runs the pod; returns its network when it has ended.
async fn live(
    node: &Arc<Node>,
    stored: &Arc<Pod>,
    board: &Board,
    latest: &watch::Receiver<Arc<Pod>>,
    stop: &CancellationToken,
) -> Option<PodNetwork> {
    if let Some(message) = refused(stored) {
        warn!(pod = stored.metadata.name, message, "Pod refused");
        board.update(|facts| facts.refused = Some(("NotPlayed".to_owned(), message)));
        return None;
    }
    all_waiting(board, "ContainerCreating", "");
    let network = loop {
        match PodNetwork::create(&node.pool).await {
            Ok(network) => break network,
            Err(error) => {
                warn!(pod = stored.metadata.name, %error, "Pod network failed");
                all_waiting(board, "ContainerCreating", &error.to_string());
            }
        }
        if pause_or_stop(stop, RETRY).await {
            return None;
        }
    };
    let address = network.lease.address;
    let fields = Fields {
        pod_ip: address.to_string(),
        host_ip: NODE_ADDRESS.to_owned(),
    };
    let dir = pod_dir(node, stored);
    let volumes = PodVolumes::new(
        dir.join("volumes"),
        node.objects.clone(),
        Tokens::new(node.client.clone()),
        fields.clone(),
    );
    let pod = with_token_mount(stored, &node.objects);
    let context = PodContext {
        node: Arc::clone(node),
        pod,
        dir,
        volumes: Arc::new(Mutex::new(volumes)),
        board: board.clone(),
        fields,
        address,
        network_pid: network.pid,
        stop: stop.clone(),
        latest: latest.clone(),
    };
    board.update(|facts| facts.pod_ip = Some(address.to_string()));
    if first_volumes(&context).await {
        tokio::select! {
            () = containers(&context) => {}
            () = keep_volumes(&context) => {}
        }
    }
    Some(network)
}

async fn pause_or_stop(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(pause) => false,
    }
}

fn all_waiting(board: &Board, reason: &str, message: &str) {
    for record in board.facts().records {
        board.waiting(&record.name, reason, message);
    }
}

/// Sets the volumes up for the first time, however long it takes; `false` when the pod ended before.
async fn first_volumes(pod: &PodContext) -> bool {
    loop {
        let mut changes = pod.node.objects.changes();
        changes.borrow_and_update();
        match pod.volumes.lock().await.refresh(&pod.pod).await {
            Ok(()) => return true,
            Err(error) => all_waiting(&pod.board, "ContainerCreating", &error.to_string()),
        }
        tokio::select! {
            () = pod.stop.cancelled() => return false,
            _ = changes.changed() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Writes volumes again when what they show changed. Never returns.
async fn keep_volumes(pod: &PodContext) {
    let mut changes = pod.node.objects.changes();
    loop {
        let _ = tokio::time::timeout(VOLUME_SYNC, changes.changed()).await;
        tokio::time::sleep(pod.node.volume_delay()).await;
        changes.borrow_and_update();
        // A Secret that is gone leaves the old files, as with a kubelet.
        if let Err(error) = pod.volumes.lock().await.refresh(&pod.pod).await {
            info!(pod = pod.name(), %error, "Volumes stay as they are");
        }
    }
}

async fn containers(pod: &PodContext) {
    let Some(spec) = pod.pod.spec.as_ref() else { return };
    for container in spec.init_containers.iter().flatten() {
        if keep_running(pod, container, true).await != Some(0) {
            return;
        }
    }
    join_all(
        spec.containers
            .iter()
            .map(|container| keep_running(pod, container, false)),
    )
    .await;
}

/// Sends the status whenever it differs from the last one sent.
async fn write_status(node: Arc<Node>, pod: Arc<Pod>, board: Board) {
    let api = api(&node, &pod);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut changes = board.changes();
    let mut sent = PodStatus::default();
    loop {
        changes.borrow_and_update();
        let status = pod_status(&pod, &board.facts(), &sent);
        if status != sent {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": patch_body(&status)});
            match api
                .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => sent = status,
                Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => return,
                Err(error) => {
                    warn!(pod = name, %error, "Status cannot be written");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The status with the reasons of conditions that have none: a merge would leave the old ones standing.
fn patch_body(status: &PodStatus) -> serde_json::Value {
    let mut body = json!(status);
    let conditions = body
        .pointer_mut("/conditions")
        .and_then(serde_json::Value::as_array_mut);
    for condition in conditions
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_object_mut)
    {
        condition.entry("reason").or_insert(serde_json::Value::Null);
    }
    body
}

fn api(node: &Node, pod: &Pod) -> Api<Pod> {
    Api::namespaced(
        node.client.clone(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
    )
}

/// The final delete: the pod's processes are gone.
async fn remove_object(node: &Node, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    loop {
        match api(node, pod).delete(name, &params).await {
            Ok(_) => return info!(pod = name, "Pod ended"),
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => return,
            Err(error) => warn!(pod = name, %error, "Pod cannot be removed"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
