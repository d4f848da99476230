//! The way back from `dataPath: Direct`: the EnvoyFilter comes first, and brokers forward by themselves until Envoy has had
//! the time to take it up. A broker that stopped before would refuse the calls that no router has seen. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mcp_gateway_api::names;
use serde_json::Value;

/// The longest that istiod gathers changes before it pushes them (`PILOT_DEBOUNCE_MAX`).
const TAKE_UP: Duration = Duration::from_secs(10);
/// A filter that will only come to be in so long is a matter of clocks that differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
const FORWARDS: &str = "--data-path=direct";

/// How long the brokers of this Deployment go on to forward; `None` when they may roll, or do not forward. `filter` is the
/// EnvoyFilter as it is stored.
pub(super) fn wait(deployment: Option<&Value>, filter: Option<&Value>, now: Timestamp) -> Option<Duration> {
    if !deployment.is_some_and(forwards) {
        return None;
    }
    let created = filter.and_then(|filter| filter.pointer("/metadata/creationTimestamp")?.as_str());
    let Some(created) = created.and_then(|created| created.parse::<Timestamp>().ok()) else {
        return Some(TAKE_UP);
    };
    let left = Duration::try_from((created + TAKE_UP).duration_since(now)).ok()?;
    (!left.is_zero() && left < CLOCKS_DIFFER).then_some(left)
}

fn forwards(deployment: &Value) -> bool {
    let containers = deployment.pointer("/spec/template/spec/containers");
    let mut containers = containers.and_then(Value::as_array).into_iter().flatten();
    let ours = containers.find(|container| container.get("name").is_some_and(|name| name == names::BROKER));
    let command = ours.and_then(|container| container.get("command")?.as_array());
    command.is_some_and(|command| command.iter().any(|token| token == FORWARDS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(flag: &str) -> Value {
        let container = json!({"name": names::BROKER, "command": ["./mcp_gateway", flag]});
        json!({"spec": {"template": {"spec": {"containers": [{"name": "sidecar"}, container]}}}})
    }

    fn at(second: u8) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().expect("a time")
    }

    #[test]
    fn brokers_forward_until_the_filter_is_old_enough() {
        let (direct, filter) = (
            deployment(FORWARDS),
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:20Z"}}),
        );
        assert_eq!(wait(Some(&direct), None, at(0)), Some(TAKE_UP));
        assert_eq!(
            wait(Some(&direct), Some(&filter), at(24)),
            Some(Duration::from_secs(6))
        );
        assert_eq!(wait(Some(&direct), Some(&filter), at(30)), None);
        assert_eq!(wait(Some(&direct), Some(&filter), at(31)), None);
    }

    #[test]
    fn nothing_waits_where_envoy_carries_the_calls_or_clocks_differ() {
        assert_eq!(wait(Some(&deployment("--log-level=0")), None, at(0)), None);
        assert_eq!(wait(None, None, at(0)), None);
        let future = json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00Z"}});
        assert_eq!(wait(Some(&deployment(FORWARDS)), Some(&future), at(0)), None);
    }
}
