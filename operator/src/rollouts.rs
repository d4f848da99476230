//! How many brokers roll to another image at once (operator.md 6.7): an upgrade of the operator reaches every namespace,
//! but five at a time; the next one starts when one completes, fails its deadline, or never started.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mcp_gateway_api::object_key::ObjectKey;
use serde_json::Value;
use tokio::time::Instant;

use crate::{children::deployment::live_container, reconcile::extension::readiness::Rollout};

/// Most Deployments that roll at once.
const MAX_ROLLING: usize = 5;
/// How long a permission counts while the Deployment still shows its former image.
const GRANT: Duration = Duration::from_secs(60);

/// Who may roll, and who waits for it.
#[derive(Default)]
pub(crate) struct Rollouts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    granted: BTreeMap<String, Instant>,
    waiting: BTreeSet<ObjectKey>,
}

/// What one extension's broker may run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The image.
    pub(crate) image: String,
    /// Extensions whose turn may have come.
    pub(crate) wake: Vec<ObjectKey>,
}

impl Rollouts {
    /// The image for the broker of `extension`: `wanted`, or the one that runs while five others roll. `deployments` are
    /// all brokers of the cluster as last seen.
    pub(crate) fn turn(
        &self,
        extension: &ObjectKey,
        wanted: &str,
        deployments: &[(ObjectKey, Arc<Value>)],
    ) -> Turn {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut rolling = BTreeSet::new();
        let mut behind = BTreeMap::new();
        for (key, live) in deployments {
            match image(live) {
                Some(image) if image == wanted => {
                    state.granted.remove(&key.namespace);
                    if rolls(live) {
                        rolling.insert(key.namespace.as_str());
                    }
                }
                Some(image) => {
                    behind.insert(key.namespace.as_str(), image);
                }
                None => {}
            }
        }
        state.granted.retain(|namespace, since| {
            behind.contains_key(namespace.as_str()) && now.duration_since(*since) < GRANT
        });
        let others = |state: &State| {
            let granted = state.granted.keys().filter(|name| **name != extension.namespace);
            rolling.len() + granted.count()
        };
        state.waiting.remove(extension);
        let image = match behind.get(extension.namespace.as_str()) {
            Some(running) if others(&state) >= MAX_ROLLING => {
                state.waiting.insert(extension.clone());
                (*running).to_owned()
            }
            Some(_) => {
                state.granted.insert(extension.namespace.clone(), now);
                wanted.to_owned()
            }
            None => wanted.to_owned(),
        };
        let free = MAX_ROLLING.saturating_sub(rolling.len() + state.granted.len());
        let wake = state.waiting.iter().filter(|key| *key != extension).take(free);
        Turn {
            image,
            wake: wake.cloned().collect(),
        }
    }
}

fn image(live: &Value) -> Option<&str> {
    live_container(live)?.get("image")?.as_str()
}

fn rolls(live: &Value) -> bool {
    let rollout = Rollout::of(Some(live));
    rollout.wanted > 0 && !rollout.complete && !rollout.failed && !rollout.available
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::names;
    use serde_json::json;

    use super::*;

    fn deployment(namespace: usize, image: &str, ready: i64) -> (ObjectKey, Arc<Value>) {
        let object = json!({
            "metadata": {"generation": 1},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": names::BROKER, "image": image}]}}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready},
        });
        (
            ObjectKey::new(format!("ns{namespace}"), names::BROKER),
            Arc::new(object),
        )
    }

    fn extension(namespace: usize) -> ObjectKey {
        ObjectKey::new(format!("ns{namespace}"), "ext")
    }

    #[test]
    fn five_brokers_roll_at_once_and_the_next_one_when_one_is_done() {
        let rollouts = Rollouts::default();
        let mut all: Vec<_> = (0..8).map(|index| deployment(index, "old", 1)).collect();
        let turn =
            |index: usize, all: &[(ObjectKey, Arc<Value>)]| rollouts.turn(&extension(index), "new", all);
        let images: Vec<String> = (0..8).map(|index| turn(index, &all).image).collect();
        assert_eq!(images, ["new", "new", "new", "new", "new", "old", "old", "old"]);
        for (index, live) in all.iter_mut().enumerate().take(5) {
            *live = deployment(index, "new", 0);
        }
        assert_eq!(turn(5, &all).image, "old", "all five are seen to roll");
        all[0] = deployment(0, "new", 1);
        let done = turn(0, &all);
        assert_eq!((done.image.as_str(), done.wake), ("new", vec![extension(5)]));
        assert_eq!(turn(5, &all).image, "new");
        assert_eq!(turn(6, &all).image, "old");
    }

    #[test]
    fn a_broker_that_lost_a_pod_after_its_rollout_takes_no_turn() {
        let rollouts = Rollouts::default();
        let mut all: Vec<_> = (0..6).map(|index| deployment(index, "new", 0)).collect();
        for (_, live) in &mut all {
            let mut rolled = live.as_ref().clone();
            rolled["status"]["conditions"] =
                json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
            *live = Arc::new(rolled);
        }
        all.push(deployment(7, "old", 1));
        assert_eq!(rollouts.turn(&extension(7), "new", &all).image, "new");
    }

    #[test]
    fn a_broker_without_deployment_or_replicas_takes_no_turn() {
        let rollouts = Rollouts::default();
        assert_eq!(rollouts.turn(&extension(0), "new", &[]).image, "new");
        let mut all: Vec<_> = (0..6).map(|index| deployment(index, "new", 0)).collect();
        for (_, live) in &mut all {
            let mut idle = live.as_ref().clone();
            idle["spec"]["replicas"] = json!(0);
            *live = Arc::new(idle);
        }
        all.push(deployment(7, "old", 1));
        assert_eq!(rollouts.turn(&extension(7), "new", &all).image, "new");
    }
}
