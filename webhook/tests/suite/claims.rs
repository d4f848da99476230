//! Exclusivity through the whole service, with several replicas over one store in memory.

use axum::Router;
use futures::future::join_all;
use mcp_gateway_webhook::{decision::Decider, metrics::Metrics, service};
use serde_json::{Value, json};

use crate::{
    memory::{self, Memory},
    table::{post, review},
};

fn extension(key: &str, gateway: &str) -> Value {
    let (namespace, name) = key.split_once('/').unwrap();
    let (gateway_namespace, gateway) = gateway.split_once('/').unwrap();
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-\"{namespace}\"-\"{name}\"")},
        "spec": {"targetRef": {"name": gateway, "namespace": gateway_namespace, "sectionName": "mcp"}}})
}

/// A replica whose cache has not seen anything yet: only claims and live reads can help.
fn replica(memory: &Memory) -> Router {
    let (_writer, world) = Memory::default().world();
    service::router(
        Decider::new(memory.clone(), world, memory::now),
        Metrics::default(),
    )
}

async fn write(router: &Router, old: Option<&Value>, new: &Value, dry_run: bool) -> Result<(), String> {
    let (_, answer) = post(router, "/validate", review(old, new, dry_run).to_string()).await;
    match answer["response"]["allowed"].as_bool().unwrap() {
        true => Ok(()),
        false => Err(answer["response"]["status"]["message"]
            .as_str()
            .unwrap()
            .to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t56_of_fifty_creates_in_one_namespace_exactly_one_is_admitted() {
    for round in 0..20 {
        let memory = Memory::default();
        let replicas = [replica(&memory), replica(&memory)];
        let requests = (0..50).map(|n| {
            let (router, new) = (
                &replicas[n % 2],
                extension(&format!("team-a/e{n}"), &format!("infra/gw{n}")),
            );
            async move { write(router, None, &new, false).await }
        });
        let admitted = join_all(requests).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(admitted, 1, "round {round}");
        assert_eq!(memory.leases().len(), 2, "the losers gave their claims back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t56_of_fifty_retargets_onto_one_gateway_exactly_one_is_admitted() {
    let memory = Memory::default();
    let replicas = [replica(&memory), replica(&memory)];
    let requests = (0..50).map(|n| {
        let old = extension(&format!("team-{n}/e"), &format!("infra/gw{n}"));
        memory.store(old.clone());
        let (router, new) = (&replicas[n % 2], extension(&format!("team-{n}/e"), "infra/gw"));
        async move { write(router, Some(&old), &new, false).await }
    });
    let admitted = join_all(requests).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(admitted, 1);
}

#[tokio::test]
async fn t58_dry_runs_hear_the_same_and_leave_no_lease() {
    let memory = Memory::default();
    let router = replica(&memory);
    assert_eq!(
        write(&router, None, &extension("team-a/e", "infra/gw"), true).await,
        Ok(())
    );
    assert!(memory.leases().is_empty());
    write(&router, None, &extension("team-a/e", "infra/gw"), false)
        .await
        .unwrap();
    let refused = write(&router, None, &extension("team-b/e", "infra/gw"), true)
        .await
        .unwrap_err();
    assert!(
        refused.contains("the claim on gateway/infra/gw is being decided"),
        "{refused}"
    );
    memory.store(extension("team-a/e", "infra/gw"));
    let refused = write(&router, None, &extension("team-b/e", "infra/gw"), true)
        .await
        .unwrap_err();
    assert!(
        refused.contains("conflict: gateway infra/gw already has"),
        "{refused}"
    );
    assert_eq!(memory.leases().len(), 2);
}

#[tokio::test]
async fn t7_a_holder_that_moved_away_frees_its_key_once_that_is_certain() {
    let memory = Memory::default();
    let router = replica(&memory);
    let first = extension("team-a/e", "infra/gw");
    write(&router, None, &first, false).await.unwrap();
    memory.store(extension("team-a/e", "infra/other"));
    // Unconfirmed: it could be an update that is still on its way.
    let refused = write(&router, None, &extension("team-b/e", "infra/gw"), false)
        .await
        .unwrap_err();
    assert!(refused.contains("is being decided"), "{refused}");
    for lease in memory.leases().values_mut() {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("mcp.kuadrant.io/confirmed".to_owned(), "true".to_owned());
    }
    write(&router, None, &extension("team-b/e", "infra/gw"), false)
        .await
        .unwrap();
}

#[tokio::test]
async fn delete_then_create_is_not_refused_when_the_holder_was_confirmed() {
    let memory = Memory::default();
    let router = replica(&memory);
    write(&router, None, &extension("team-a/e", "infra/gw"), false)
        .await
        .unwrap();
    for lease in memory.leases().values_mut() {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert("mcp.kuadrant.io/confirmed".to_owned(), "true".to_owned());
    }
    memory.delete("MCPGatewayExtension", "team-a/e");
    write(&router, None, &extension("team-a/f", "infra/gw"), false)
        .await
        .unwrap();
    let holders: Vec<_> = memory
        .leases()
        .values()
        .map(|lease| lease.spec.clone().unwrap().holder_identity.unwrap())
        .collect();
    assert_eq!(holders, ["team-a/f", "team-a/f"]);
}

#[tokio::test]
async fn a_rival_of_the_cache_that_is_gone_does_not_count() {
    let memory = Memory::with(&[extension("team-b/e", "infra/gw")]);
    let (_writer, world) = memory.world();
    memory.delete("MCPGatewayExtension", "team-b/e");
    let router = service::router(Decider::new(memory, world, memory::now), Metrics::default());
    write(&router, None, &extension("team-a/e", "infra/gw"), false)
        .await
        .unwrap();
}
