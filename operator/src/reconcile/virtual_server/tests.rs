use mcp_gateway_api::broker_status::{BrokerStatus, ServerItems};
use tokio::time::Instant;

use super::*;
use crate::brokers::{Contents, Replica, Written};

fn server(generation: i64) -> MCPVirtualServer {
    serde_json::from_value(json!({
        "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPVirtualServer",
        "metadata": {"name": "vs", "namespace": "apps", "generation": generation},
        "spec": {"tools": ["weather_now"]},
    }))
    .expect("a virtual server")
}

/// The brokers of one extension, which publish `tool` and whose document holds generation 1; `hash` is what they report.
fn gateway(namespace: &str, hash: &str, tool: &str) -> (String, Namespace) {
    let items: ServerItems =
        serde_json::from_value(json!({"tools": [{"name": tool, "published": tool}]})).expect("items");
    let status: BrokerStatus = serde_json::from_value(json!({"config": {"hash": hash}})).expect("a status");
    let replica = Replica {
        pod: "a".to_owned(),
        failures: 0,
        status: Some(status),
        items: BTreeMap::from([("apps/weather".to_owned(), items)]),
    };
    let written = Written {
        extension: ObjectKey::new(namespace, "ext"),
        hash: "new".to_owned(),
        contents: Contents {
            virtual_servers: BTreeMap::from([(ObjectKey::new("apps", "vs"), 1)]),
            ..Contents::default()
        },
        since: Instant::now(),
        under_way: false,
    };
    let observed = Namespace {
        written: Some(written),
        asked: true,
        replicas: BTreeMap::from([("192.0.2.1".to_owned(), replica)]),
        ..Namespace::default()
    };
    (namespace.to_owned(), observed)
}

fn candidate(namespace: &str, is_ready: bool) -> Candidate {
    Candidate {
        key: ObjectKey::new(namespace, "ext"),
        is_ready,
    }
}

/// Status and message of `Ready`.
fn verdict(
    (generation, was_ready): (i64, bool),
    accepted: &[Candidate],
    brokers: Vec<(String, Namespace)>,
) -> Option<(bool, String)> {
    let facts = Facts {
        server: &server(generation),
        accepted,
        was_ready,
    };
    let wish = facts.judge(&brokers.into_iter().collect())?;
    let ready = wish
        .conditions
        .into_iter()
        .find(|wanted| wanted.kind == ConditionType::Ready)?;
    Some((ready.status, ready.message))
}

#[test]
fn only_extensions_that_publish_a_listed_tool_count() {
    let both = [candidate("a", true), candidate("b", true)];
    let elsewhere = || gateway("b", "old", "other_tool");
    let ready = verdict(
        (1, false),
        &both,
        vec![gateway("a", "new", "weather_now"), elsewhere()],
    );
    assert_eq!(ready, Some((true, "served by 1 gateways".to_owned())));
    let behind = verdict(
        (1, false),
        &both,
        vec![gateway("a", "old", "weather_now"), elsewhere()],
    );
    assert_eq!(
        behind,
        Some((false, "not served yet by 1/1 replicas of a/ext".to_owned()))
    );
    let nobody = verdict((1, false), &both, vec![gateway("a", "new", "none"), elsewhere()]);
    assert!(
        nobody.is_some_and(|(ready, _)| ready),
        "one that holds it is enough"
    );
}

#[test]
fn t46_a_generation_that_no_document_holds_yet_is_waited_for() {
    let one = [candidate("a", true)];
    let published = || vec![gateway("a", "new", "weather_now")];
    assert!(verdict((1, false), &one, published()).is_some_and(|(ready, _)| ready));
    assert_eq!(
        verdict((2, true), &one, published()),
        None,
        "neither Ready nor taken away"
    );
    let with_paused = [candidate("a", true), candidate("paused", false)];
    let mut newer = gateway("a", "new", "weather_now");
    if let Some(written) = &mut newer.1.written {
        let own = ObjectKey::new("apps", "vs");
        written.contents.virtual_servers.insert(own, 2);
    }
    let found = vec![newer, gateway("paused", "new", "weather_now")];
    assert!(verdict((2, true), &with_paused, found).is_some_and(|(ready, _)| ready));
}

#[test]
fn an_extension_that_is_not_ready_is_nobodys_obstacle_and_one_that_is_gets_waited_for() {
    let served = || vec![gateway("a", "new", "weather_now")];
    let with = |is_ready| [candidate("a", true), candidate("paused", is_ready)];
    assert!(verdict((1, false), &with(false), served()).is_some_and(|(ready, _)| ready));
    assert_eq!(verdict((1, false), &with(true), served()), None);
    let alone = verdict((1, false), &[candidate("paused", false)], Vec::new());
    assert!(alone.is_some_and(|(ready, message)| !ready && message.contains("paused/ext is not ready")));
}

#[test]
fn t47_a_replica_that_catches_up_does_not_take_ready_away() {
    let one = [candidate("a", true)];
    let stale = || vec![gateway("a", "old", "weather_now")];
    assert!(verdict((1, true), &one, stale()).is_some_and(|(ready, _)| ready));
    assert!(verdict((1, false), &one, stale()).is_some_and(|(ready, _)| !ready));
}

#[test]
fn the_document_that_is_too_large_is_said() {
    let (namespace, mut observed) = gateway("a", "new", "weather_now");
    if let Some(written) = &mut observed.written {
        let item = WorkItem::VirtualServer(ObjectKey::new("apps", "vs"));
        written
            .contents
            .problems
            .insert(item, "config too large: 1000000 of 900000 bytes".to_owned());
    }
    let said = verdict((1, true), &[candidate("a", true)], vec![(namespace, observed)]);
    assert!(said.is_some_and(|(ready, message)| !ready && message.starts_with("config too large")));
}
