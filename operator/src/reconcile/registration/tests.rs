use mcp_gateway_api::{broker_status::BrokerStatus, resolution::Backend};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::brokers::{Contents, Replica, Written};

fn extension() -> ObjectKey {
    ObjectKey::new("gw", "ext")
}

fn registration(state: &str) -> MCPServerRegistration {
    serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPServerRegistration",
        "metadata": {"name": "weather", "namespace": "team", "generation": 2},
        "spec": {"targetRef": {"name": "route"}, "state": state},
    }))
    .expect("a registration")
}

fn served() -> Resolution {
    let backend = Backend {
        url: "http://weather".to_owned(),
        hostname: "weather.mcp.local".to_owned(),
    };
    Resolution {
        backend: Some(backend),
        served_by: vec![extension()],
        problem: None,
    }
}

fn replica(pod: &str, hash: &str, ready: bool) -> Replica {
    let status: BrokerStatus = serde_json::from_value(json!({
        "config": {"hash": hash},
        "servers": [{"name": "team/weather", "ready": ready, "totalTools": 4, "totalPrompts": 3,
            "totalResources": 2, "totalResourceTemplates": 1, "message": "failed to connect",
            "era": if ready { "legacy" } else { "" }, "protocolValidation": {"supportedVersion": if ready { "2025-06-18" } else { "" }}}],
    }))
    .expect("a status");
    Replica {
        pod: pod.to_owned(),
        failures: 0,
        status: Some(status),
        items: BTreeMap::new(),
    }
}

fn observed(replicas: Vec<Replica>) -> BTreeMap<String, Namespace> {
    let written = Written {
        extension: extension(),
        hash: "new".to_owned(),
        contents: Contents {
            served: BTreeMap::from([(ObjectKey::new("team", "weather"), 2)]),
            ..Contents::default()
        },
        since: Instant::now(),
        under_way: false,
    };
    let replicas = replicas
        .into_iter()
        .map(|replica| (replica.pod.clone(), replica))
        .collect();
    BTreeMap::from([(
        "gw".to_owned(),
        Namespace {
            written: Some(written),
            asked: true,
            replicas,
            ..Namespace::default()
        },
    )])
}

fn verdict(replicas: Vec<Replica>, former: Former) -> Option<Verdict> {
    let brokers = observed(replicas);
    let (registration, resolution) = (registration("Enabled"), served());
    judge(&Facts {
        registration: &registration,
        resolution: &resolution,
        brokers: &brokers,
        through_envoy: &|_| true,
        forwards: &|_| false,
        former,
    })
}

#[test]
fn t48_ready_needs_every_ready_replica_with_the_current_hash() {
    let all = verdict(
        vec![replica("a", "new", true), replica("b", "new", true)],
        Former::NotReady,
    )
    .expect("known");
    assert!(all.ready);
    assert_eq!(all.message, "4 tools, served by 2/2 replicas of gw/ext");
    let behind = verdict(
        vec![replica("a", "new", true), replica("b", "old", true)],
        Former::NotReady,
    )
    .expect("known");
    assert!(!behind.ready);
    assert_eq!(behind.message, "not served yet by 1/2 replicas of gw/ext (pod b)");
}

#[test]
fn counts_era_and_revision_are_written_when_a_replica_knows_them() {
    let members = |ready| {
        let verdict = verdict(vec![replica("a", "new", ready)], Former::NotReady).expect("known");
        verdict.wish(1, &[]).members
    };
    let counts = BTreeMap::from([
        ("discoveredTools", json!(4)),
        ("discoveredPrompts", json!(3)),
        ("discoveredResources", json!(2)),
        ("discoveredResourceTemplates", json!(1)),
    ]);
    assert_eq!(members(false), counts);
    let mut known = counts;
    known.extend([("era", json!("legacy")), ("protocolVersion", json!("2025-06-18"))]);
    assert_eq!(members(true), known);
}

#[test]
fn t47_a_joining_or_catching_up_replica_does_not_take_ready_away() {
    let joining = Replica {
        pod: "b".to_owned(),
        ..Replica::default()
    };
    assert!(
        verdict(vec![replica("a", "new", true), joining], Former::Ready).is_some_and(|verdict| verdict.ready)
    );
    assert!(verdict(vec![replica("a", "old", true)], Former::Ready).is_some_and(|verdict| verdict.ready));
}

#[test]
fn t47_a_changed_server_stays_ready_until_its_brokers_have_taken_the_change_up() {
    let joining = Replica {
        pod: "b".to_owned(),
        ..Replica::default()
    };
    let before = Former::ReadyBefore;
    assert_eq!(verdict(vec![replica("a", "old", true)], before), None);
    assert_eq!(verdict(vec![replica("a", "new", true), joining], before), None);
    let both = [("a", "new"), ("b", "old")].map(|(pod, hash)| replica(pod, hash, true));
    assert_eq!(verdict(both.into(), before), None, "one has it");
    assert!(verdict(vec![replica("a", "new", true)], before).is_some_and(|verdict| verdict.ready));
    let failed = verdict(
        vec![replica("a", "new", false), replica("b", "old", true)],
        before,
    );
    assert!(
        failed.is_some_and(|verdict| !verdict.ready),
        "what is wrong is said at once"
    );
    let silent = Replica {
        failures: crate::brokers::MAX_FAILURES,
        ..replica("a", "old", true)
    };
    let silent = verdict(vec![silent], before).expect("known");
    assert_eq!(silent.message, "not served yet by 1/1 replicas of gw/ext (pod a)");
}

#[test]
fn the_brokers_message_is_shown_when_a_server_is_not_ready() {
    let failed = verdict(vec![replica("a", "new", false)], Former::Ready).expect("known");
    assert_eq!(
        (failed.ready, failed.message.as_str()),
        (false, "failed to connect")
    );
}

#[test]
fn nothing_is_said_before_the_document_is_known() {
    let (registration, resolution) = (registration("Enabled"), served());
    let brokers = BTreeMap::new();
    let facts = Facts {
        registration: &registration,
        resolution: &resolution,
        brokers: &brokers,
        through_envoy: &|_| true,
        forwards: &|_| false,
        former: Former::Ready,
    };
    assert_eq!(judge(&facts), None);
}

#[test]
fn t52_a_disabled_server_has_no_tools() {
    let (registration, resolution) = (registration("Disabled"), served());
    let brokers = BTreeMap::new();
    let facts = Facts {
        registration: &registration,
        resolution: &resolution,
        brokers: &brokers,
        through_envoy: &|_| true,
        forwards: &|_| false,
        former: Former::Ready,
    };
    let verdict = judge(&facts).expect("known");
    assert_eq!(
        (verdict.reason, verdict.counts),
        (RegistrationReason::Disabled, Some(Counts::default()))
    );
}

#[test]
fn an_https_server_behind_envoy_is_ready_with_a_hint() {
    let brokers = observed(vec![replica("a", "new", true)]);
    let mut resolution = served();
    if let Some(backend) = &mut resolution.backend {
        backend.url = "https://weather".to_owned();
    }
    let registration = registration("Enabled");
    let message = |through_envoy: bool| {
        let facts = Facts {
            registration: &registration,
            resolution: &resolution,
            brokers: &brokers,
            through_envoy: &|_| through_envoy,
            forwards: &|_| false,
            former: Former::NotReady,
        };
        judge(&facts).expect("known").message
    };
    assert!(
        message(true).ends_with("; warning: calls through Envoy need a DestinationRule with TLS origination")
    );
    assert!(
        !message(false).contains("warning"),
        "the broker itself speaks TLS"
    );
}

#[test]
fn t46_a_generation_that_no_document_holds_yet_gets_no_verdict() {
    let brokers = observed(vec![replica("a", "new", true)]);
    let resolution = served();
    let judged = |generation: i64| {
        let mut registration = registration("Enabled");
        registration.metadata.generation = Some(generation);
        judge(&Facts {
            registration: &registration,
            resolution: &resolution,
            brokers: &brokers,
            through_envoy: &|_| true,
            forwards: &|_| true,
            former: Former::NotReady,
        })
    };
    assert!(judged(2).is_some_and(|verdict| verdict.ready));
    assert_eq!(judged(3), None, "the brokers serve generation 2");
}

#[test]
fn headers_that_are_not_passed_on_are_said() {
    let brokers = observed(vec![replica("a", "new", true)]);
    let resolution = served();
    let mut registration = registration("Enabled");
    registration.spec.forward_headers = vec!["authorization".to_owned()];
    let message = |forwards: bool| {
        let facts = Facts {
            registration: &registration,
            resolution: &resolution,
            brokers: &brokers,
            through_envoy: &|_| true,
            forwards: &|_| forwards,
            former: Former::NotReady,
        };
        judge(&facts).expect("known").message
    };
    assert!(message(false).ends_with("gw/ext does not list namespace team in spec.forwardHeadersFrom"));
    assert!(!message(true).contains("warning"));
}

#[test]
fn t48_with_two_extensions_ready_needs_both() {
    let second = |hash: &str| {
        let mut brokers = observed(vec![replica("a", "new", true)]);
        let mut other = observed(vec![replica("b", hash, true)]).remove("gw").expect("gw");
        if let Some(written) = &mut other.written {
            written.extension = ObjectKey::new("gw2", "ext");
        }
        brokers.insert("gw2".to_owned(), other);
        let (registration, mut resolution) = (registration("Enabled"), served());
        resolution.served_by.push(ObjectKey::new("gw2", "ext"));
        let facts = Facts {
            registration: &registration,
            resolution: &resolution,
            brokers: &brokers,
            through_envoy: &|_| true,
            forwards: &|_| false,
            former: Former::NotReady,
        };
        judge(&facts).expect("known")
    };
    let behind = second("old");
    assert_eq!(
        (behind.ready, behind.message.as_str()),
        (false, "not served yet by 1/1 replicas of gw2/ext (pod b)")
    );
    let both = second("new");
    let message = "4 tools, served by 1/1 replicas of gw/ext; 4 tools, served by 1/1 replicas of gw2/ext";
    assert_eq!((both.ready, both.message.as_str()), (true, message));
}

#[test]
fn t52_counts_are_kept_while_no_broker_answers() {
    let silent = Replica {
        failures: crate::brokers::MAX_FAILURES,
        ..replica("a", "new", true)
    };
    for replicas in [vec![silent], vec![]] {
        let verdict = verdict(replicas, Former::Ready).expect("known");
        assert!(!verdict.ready, "{}", verdict.message);
        assert_eq!(
            verdict.counts, None,
            "the write leaves what it is silent about as it is"
        );
    }
}
