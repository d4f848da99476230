//! A pod's status, computed from what its containers do. One writer per pod sends it when it differs from the last one sent.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use crate::control_plane::NODE_ADDRESS;

/// What one container does now and did before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) init: bool,
    pub(crate) state: ContainerState,
    pub(crate) last_state: Option<ContainerState>,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) restarts: i32,
    pub(crate) id: Option<String>,
}

/// What the node knows of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) records: Vec<Record>,
    pub(crate) pod_ip: Option<String>,
    pub(crate) start_time: Option<Time>,
    /// A pod that cannot be played: reason and message.
    pub(crate) refused: Option<(String, String)>,
}

/// The facts of one pod, shared by its containers; every change wakes the writer.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    facts: Arc<Mutex<Facts>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Board {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            facts: Arc::new(Mutex::new(facts)),
            changed: Arc::new(watch::channel(0).0),
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|number| *number += 1);
    }

    /// Changes the record of one container.
    pub(crate) fn record(&self, container: &str, change: impl FnOnce(&mut Record)) {
        self.update(|facts| {
            if let Some(record) = facts.records.iter_mut().find(|record| record.name == container) {
                change(record);
            }
        });
    }

    pub(crate) fn waiting(&self, container: &str, reason: &str, message: &str) {
        let waiting = ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        };
        self.record(container, |record| {
            if record.state.terminated.is_some() {
                record.last_state = Some(record.state.clone());
            }
            record.ready = false;
            record.started = false;
            record.state = ContainerState {
                waiting: Some(waiting),
                ..ContainerState::default()
            };
        });
    }

    pub(crate) fn running(&self, container: &str, id: &str) {
        self.record(container, |record| {
            if record.state.terminated.is_some() {
                record.last_state = Some(record.state.clone());
            }
            if record.id.is_some() {
                record.restarts += 1;
            }
            record.id = Some(id.to_owned());
            record.state = ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(now()),
                }),
                ..ContainerState::default()
            };
        });
    }

    pub(crate) fn terminated(&self, container: &str, exit_code: i32, signal: Option<i32>) {
        self.record(container, |record| {
            let terminated = ContainerStateTerminated {
                exit_code,
                signal,
                reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
                started_at: record
                    .state
                    .running
                    .as_ref()
                    .and_then(|running| running.started_at.clone()),
                finished_at: Some(now()),
                container_id: record.id.clone(),
                message: None,
            };
            record.ready = record.init && exit_code == 0;
            record.started = false;
            record.state = ContainerState {
                terminated: Some(terminated),
                ..ContainerState::default()
            };
        });
    }
}

pub(crate) fn now() -> Time {
    Time(jiff::Timestamp::now())
}

/// The whole status. Transition times are those of `before` where a condition did not change.
pub(crate) fn pod_status(pod: &Pod, facts: &Facts, before: &PodStatus) -> PodStatus {
    if let Some((reason, message)) = &facts.refused {
        return PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            ..PodStatus::default()
        };
    }
    let (init, main): (Vec<_>, Vec<_>) = facts.records.iter().partition(|record| record.init);
    let phase = phase(pod, &init, &main);
    let finished = phase == "Succeeded" || phase == "Failed";
    let initialized = init.iter().all(|record| succeeded(record));
    let containers_ready = !finished && initialized && main.iter().all(|record| record.ready);
    let ready = containers_ready && gates_open(pod);
    let condition = |kind: &str, holds: bool, reason: &str| {
        let old = before
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind);
        let status = if holds { "True" } else { "False" };
        let kept = old
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!holds).then(|| reason.to_owned()),
            last_transition_time: kept.or_else(|| Some(now())),
            ..PodCondition::default()
        }
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        host_ip: Some(NODE_ADDRESS.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: NODE_ADDRESS.to_owned(),
        }]),
        pod_ip: facts.pod_ip.clone(),
        pod_ips: facts.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        start_time: facts.start_time.clone(),
        conditions: Some(vec![
            condition("PodScheduled", true, ""),
            condition("Initialized", initialized, "ContainersNotInitialized"),
            condition("ContainersReady", containers_ready, "ContainersNotReady"),
            condition("Ready", ready, "ContainersNotReady"),
        ]),
        container_statuses: Some(main.iter().map(|record| container_status(record)).collect()),
        init_container_statuses: (!init.is_empty())
            .then(|| init.iter().map(|it| container_status(it)).collect()),
        qos_class: pod.status.as_ref().and_then(|status| status.qos_class.clone()),
        ..PodStatus::default()
    }
}

fn succeeded(record: &Record) -> bool {
    record
        .state
        .terminated
        .as_ref()
        .is_some_and(|ended| ended.exit_code == 0)
}

fn phase(pod: &Pod, init: &[&Record], main: &[&Record]) -> &'static str {
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always");
    let ended_badly = |record: &&Record| record.state.terminated.is_some() && !succeeded(record);
    if policy == "Never" && init.iter().any(ended_badly) {
        return "Failed";
    }
    if !init.iter().all(|record| succeeded(record)) || main.iter().any(|record| record.id.is_none()) {
        return "Pending";
    }
    let all_ended = main.iter().all(|record| record.state.terminated.is_some());
    let all_well = main.iter().all(|record| succeeded(record));
    match policy {
        "Never" | "OnFailure" if all_ended && all_well => "Succeeded",
        "Never" if all_ended => "Failed",
        _ => "Running",
    }
}

fn gates_open(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.map(|gate| &gate.condition_type).all(|kind| {
        conditions
            .iter()
            .any(|condition| condition.type_ == *kind && condition.status == "True")
    })
}

fn container_status(record: &Record) -> ContainerStatus {
    ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: format!("kit://{}", record.image),
        container_id: record.id.clone(),
        ready: record.ready,
        started: Some(record.started),
        restart_count: record.restarts,
        state: Some(record.state.clone()),
        last_state: record.last_state.clone(),
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": {"restartPolicy": policy, "containers": []}}))
            .unwrap()
    }

    fn board() -> Board {
        let record = |name: &str, init| Record {
            name: name.to_owned(),
            init,
            ..Record::default()
        };
        Board::new(Facts {
            records: vec![record("i", true), record("c", false)],
            ..Facts::default()
        })
    }

    fn ready(status: &PodStatus) -> &str {
        let conditions = status.conditions.as_ref().unwrap();
        &conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap()
            .status
    }

    #[test]
    fn a_pod_is_pending_until_its_containers_started_and_ready_when_they_are() {
        let board = board();
        let status = |board: &Board| pod_status(&pod("Always"), &board.facts(), &PodStatus::default());
        assert_eq!(status(&board).phase.as_deref(), Some("Pending"));
        board.running("i", "1");
        board.terminated("i", 0, None);
        assert_eq!(status(&board).phase.as_deref(), Some("Pending"));
        board.running("c", "2");
        assert_eq!(
            (status(&board).phase.as_deref(), ready(&status(&board))),
            (Some("Running"), "False")
        );
        board.record("c", |record| record.ready = true);
        assert_eq!(ready(&status(&board)), "True");
    }

    #[test]
    fn a_restart_is_counted_and_the_end_before_is_kept() {
        let board = board();
        board.running("c", "1");
        board.terminated("c", 137, Some(9));
        board.waiting("c", "CrashLoopBackOff", "back-off");
        board.running("c", "2");
        let record = board.facts().records[1].clone();
        assert_eq!(record.restarts, 1);
        assert_eq!(record.last_state.unwrap().terminated.unwrap().exit_code, 137);
    }

    #[test]
    fn a_pod_that_must_not_restart_ends_as_its_containers_did() {
        for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
            let board = board();
            board.running("i", "1");
            board.terminated("i", 0, None);
            board.running("c", "2");
            board.terminated("c", code, None);
            let status = pod_status(&pod("Never"), &board.facts(), &PodStatus::default());
            assert_eq!(status.phase.as_deref(), Some(phase));
        }
    }

    #[test]
    fn transition_times_change_only_with_the_condition() {
        let board = board();
        let mut first = pod_status(&pod("Always"), &board.facts(), &PodStatus::default());
        let long_ago = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        first
            .conditions
            .as_mut()
            .unwrap()
            .iter_mut()
            .for_each(|it| it.last_transition_time = long_ago.clone());
        let second = pod_status(&pod("Always"), &board.facts(), &first);
        assert!(
            second
                .conditions
                .unwrap()
                .iter()
                .all(|it| it.last_transition_time == long_ago)
        );
    }
}
