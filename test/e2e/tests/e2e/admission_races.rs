//! Exclusivity under concurrency, through the real API server and every replica of the webhook.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use mcp_gateway_api::{claims, extension::MCPGatewayExtension};
use mcp_gateway_e2e::{
    Cluster, OPERATOR_NAMESPACE, delete, kubectl,
    races::{self, admitted, extension, namespaces, stored_for},
};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::json;

pub(crate) async fn client() -> anyhow::Result<Client> {
    Ok(Kit::from_env()?.client().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t56_of_fifty_creates_in_one_namespace_exactly_one_is_admitted_in_twenty_rounds() -> anyhow::Result<()>
{
    let _cluster = Cluster::ready().await?;
    races::one_in_a_namespace(&client().await?, 20).await?;
    delete("mcpge --all -n race-0").map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t56_of_fifty_creates_for_one_gateway_exactly_one_is_admitted_in_twenty_rounds() -> anyhow::Result<()>
{
    let _cluster = Cluster::ready().await?;
    namespaces(races::rivals())?;
    races::one_for_a_gateway(&client().await?, 20).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t56_of_twenty_retargets_onto_one_gateway_exactly_one_is_admitted() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let client = client().await?;
    namespaces((0..20).map(|n| format!("mover-{n}")))?;
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(extension(
            &format!("mover-{n}"),
            "e",
            ("mover-gw", &format!("from-{n}")),
        )?);
    }
    assert_eq!(
        admitted(&client, all).await?.len(),
        20,
        "nothing to contend for yet"
    );
    let patch = kube::api::Patch::Merge(json!({"spec": {"targetRef": {"name": "mover-target"}}}));
    let moves = (0..20).map(|n| {
        let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), &format!("mover-{n}"));
        let patch = patch.clone();
        async move { api.patch("e", &kube::api::PatchParams::default(), &patch).await }
    });
    let moved = join_all(moves).await.into_iter().filter(Result::is_ok).count();
    assert_eq!((moved, stored_for(&client, "mover-target").await?), (1, 1));
    for n in 0..20 {
        delete(&format!("mcpge e -n mover-{n} --wait=false"))?;
    }
    Ok(())
}

/// One writer: tries until it is stored or somebody else is; the webhook may be away for moments.
async fn contend(api: Api<MCPGatewayExtension>, extension: MCPGatewayExtension) -> Result<bool, String> {
    let deadline = Duration::from_secs(claims::GRACE_SECONDS.unsigned_abs() + 20);
    eventually(deadline, "a decision", async || {
        match api.create(&PostParams::default(), &extension).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.message.contains("already has") => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(true),
            // Being decided, or the replica that was asked has just been killed.
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .map_err(|error| error.to_string())
}

/// Long, and it kills webhooks under the other tests: `make e2e TEST='--ignored t56_of_thirty_two'`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes and must run alone"]
async fn t56_of_thirty_two_writers_one_survives_in_200_rounds_while_replicas_are_killed() -> anyhow::Result<()>
{
    let _cluster = Cluster::alone().await?;
    let (kit, client) = (Kit::from_env()?, client().await?);
    kubectl(&format!(
        "scale deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --replicas=3"
    ))?;
    kubectl(&format!(
        "rollout status deployment mcp-gateway-webhook -n {OPERATOR_NAMESPACE} --timeout=60s"
    ))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    namespaces((0..32).map(|n| format!("storm-{n}")))?;
    let mut survivors: BTreeMap<i32, i32> = BTreeMap::new();
    let mut kills = 0;
    for round in 0..200 {
        let gateway = format!("storm-gw-{round}");
        let writers = (0..32).map(|n| {
            let namespace = format!("storm-{n}");
            let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), &namespace);
            let wanted = extension(&namespace, "e", ("storm-gw", &gateway));
            async move { contend(api, wanted.map_err(|error| error.to_string())?).await }
        });
        let labels = ListParams::default().labels("app.kubernetes.io/name=mcp-gateway-webhook");
        let listed = pods.list(&labels).await?.items;
        let victim = listed
            .get(round % listed.len().max(1))
            .and_then(|pod| pod.metadata.name.clone());
        let kill = async {
            // Somewhere among the writes: a different delay in each round.
            tokio::time::sleep(Duration::from_millis(
                u64::try_from(round * 7 % 100).unwrap_or_default(),
            ))
            .await;
            // The one of the round before may still be starting.
            victim.is_some_and(|pod| kit.kill_container(OPERATOR_NAMESPACE, &pod, "webhook").is_ok())
        };
        let (outcomes, killed) = futures::join!(join_all(writers), kill);
        kills += u32::from(killed);
        let outcomes: Result<Vec<bool>, String> = outcomes.into_iter().collect();
        let won = outcomes
            .map_err(anyhow::Error::msg)?
            .into_iter()
            .filter(|won| *won)
            .count();
        assert_eq!(
            (won, stored_for(&client, &gateway).await?),
            (1, 1),
            "round {round}"
        );
        for n in 0..32 {
            let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), &format!("storm-{n}"));
            if api.get_opt("e").await?.is_some() {
                *survivors.entry(n).or_insert(0) += 1;
                delete(&format!("mcpge e -n storm-{n}"))?;
            }
        }
        println!("round {round}: one survivor of 32");
    }
    println!("{kills} replicas killed; survivors by writer: {survivors:?}");
    assert!(kills >= 100, "{kills} kills are no storm");
    Ok(())
}
