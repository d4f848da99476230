//! How far the broker's Deployment is: read from its status. Pure.

use serde_json::Value;

/// A rollout as the Deployment's status tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Replicas that are wanted.
    pub(crate) wanted: i64,
    /// Replicas of the current template.
    pub(crate) updated: i64,
    /// Ready replicas, of whichever template.
    pub(crate) ready: i64,
    /// Every wanted replica runs the current template and is ready, and no other is left.
    pub(crate) complete: bool,
    /// The Deployment's progress deadline has passed.
    pub(crate) failed: bool,
    /// The current template was rolled out completely once; pods that are not ready now were lost since.
    pub(crate) available: bool,
}

impl Rollout {
    /// The rollout of `deployment`; nothing at all when there is none.
    pub(crate) fn of(deployment: Option<&Value>) -> Self {
        let Some(deployment) = deployment else {
            return Self::default();
        };
        let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64);
        let status = |member: &str| number(&format!("/status/{member}")).unwrap_or(0);
        let wanted = number("/spec/replicas").unwrap_or(1);
        let seen = status("observedGeneration") >= number("/metadata/generation").unwrap_or(0);
        let (updated, ready) = (status("updatedReplicas"), status("readyReplicas"));
        Self {
            wanted,
            updated,
            ready,
            complete: seen
                && updated == wanted
                && ready == wanted
                && status("replicas") == wanted
                && wanted > 0,
            failed: seen && progress(deployment) == Some("ProgressDeadlineExceeded"),
            available: seen && progress(deployment) == Some("NewReplicaSetAvailable"),
        }
    }
}

/// Reason of the Deployment's condition `Progressing`.
fn progress(deployment: &Value) -> Option<&str> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let mut named = conditions
        .iter()
        .filter(|condition| condition.get("type").and_then(Value::as_str) == Some("Progressing"));
    named.next()?.get("reason")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn t46_a_rollout_that_the_controller_has_not_seen_is_not_complete() {
        let mut deployment = json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
        });
        assert!(!Rollout::of(Some(&deployment)).complete);
        deployment["status"]["observedGeneration"] = json!(2);
        assert!(Rollout::of(Some(&deployment)).complete);
    }

    #[test]
    fn t47_an_old_replica_beside_a_new_one_is_a_rollout_with_ready_replicas() {
        let deployment = json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1},
        });
        let rollout = Rollout::of(Some(&deployment));
        assert!(!rollout.complete && rollout.ready == 1);
    }
}
