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

/// What a broker's Deployment runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    image: Option<Arc<str>>,
    /// It is under way to another template.
    rolls: bool,
}

impl Running {
    /// Of a Deployment as it is stored.
    pub(crate) fn of(live: &Value) -> Self {
        let image = live_container(live).and_then(|container| container.get("image")?.as_str());
        let rollout = Rollout::of(Some(live));
        Self {
            image: image.map(Into::into),
            rolls: rollout.wanted > 0 && !rollout.complete && !rollout.failed && !rollout.available,
        }
    }
}

impl Rollouts {
    /// The image for the broker of `extension`: `wanted`, or the one that runs while five others roll. `brokers` are all
    /// those of the cluster as last seen.
    pub(crate) fn turn(&self, extension: &ObjectKey, wanted: &str, brokers: &[(ObjectKey, Running)]) -> Turn {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut rolling = BTreeSet::new();
        let mut behind = BTreeMap::new();
        for (key, running) in brokers {
            match running.image.as_deref() {
                Some(image) if image == wanted => {
                    state.granted.remove(&key.namespace);
                    if running.rolls {
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

#[cfg(test)]
mod tests {
    use mcp_gateway_api::names;
    use serde_json::json;

    use super::*;

    fn deployment(image: &str, ready: i64) -> Value {
        json!({
            "metadata": {"generation": 1},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": names::BROKER, "image": image}]}}},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready},
        })
    }

    fn broker(namespace: usize, deployment: &Value) -> (ObjectKey, Running) {
        let key = ObjectKey::new(format!("ns{namespace}"), names::BROKER);
        (key, Running::of(deployment))
    }

    fn extension(namespace: usize) -> ObjectKey {
        ObjectKey::new(format!("ns{namespace}"), "ext")
    }

    #[test]
    fn five_brokers_roll_at_once_and_the_next_one_when_one_is_done() {
        let rollouts = Rollouts::default();
        let mut all: Vec<_> = (0..8).map(|index| broker(index, &deployment("old", 1))).collect();
        let turn = |index: usize, all: &[(ObjectKey, Running)]| rollouts.turn(&extension(index), "new", all);
        let images: Vec<String> = (0..8).map(|index| turn(index, &all).image).collect();
        assert_eq!(images, ["new", "new", "new", "new", "new", "old", "old", "old"]);
        for (index, live) in all.iter_mut().enumerate().take(5) {
            *live = broker(index, &deployment("new", 0));
        }
        assert_eq!(turn(5, &all).image, "old", "all five are seen to roll");
        all[0] = broker(0, &deployment("new", 1));
        let done = turn(0, &all);
        assert_eq!((done.image.as_str(), done.wake), ("new", vec![extension(5)]));
        assert_eq!(turn(5, &all).image, "new");
        assert_eq!(turn(6, &all).image, "old");
    }

    #[test]
    fn a_broker_that_lost_a_pod_after_its_rollout_takes_no_turn() {
        let rollouts = Rollouts::default();
        let mut rolled = deployment("new", 0);
        rolled["status"]["conditions"] =
            json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]);
        let mut all: Vec<_> = (0..6).map(|index| broker(index, &rolled)).collect();
        all.push(broker(7, &deployment("old", 1)));
        assert_eq!(rollouts.turn(&extension(7), "new", &all).image, "new");
    }

    #[test]
    fn a_broker_without_deployment_or_replicas_takes_no_turn() {
        let rollouts = Rollouts::default();
        assert_eq!(rollouts.turn(&extension(0), "new", &[]).image, "new");
        let mut idle = deployment("new", 0);
        idle["spec"]["replicas"] = json!(0);
        let mut all: Vec<_> = (0..6).map(|index| broker(index, &idle)).collect();
        all.push(broker(7, &deployment("old", 1)));
        assert_eq!(rollouts.turn(&extension(7), "new", &all).image, "new");
    }
}
