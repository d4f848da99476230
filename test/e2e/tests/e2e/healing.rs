//! kill -9 of operator, webhook or broker at any point of the main job: it heals by itself.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_e2e::{
    Cluster, OPERATOR_NAMESPACE, Site, apply, get, kubectl,
    main_job::{calls_work, our_containers, whoever_is_killed_calls_work},
};
use mcp_gateway_kit::{Kit, eventually};
use serde_json::{Value, json};

use crate::operator_children::{SOON, patch, until};

/// Pause between two kills: shorter than any step of the job takes, so that each step meets some.
const PACE: Duration = Duration::from_millis(400);
/// Tries to kill: enough to span the whole job several times. The node's crash backoff hides some of the processes.
const KILLS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_job_gets_through_while_our_processes_are_killed() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("heal")?;
    let kit = Kit::from_env()?;
    let killer = tokio::spawn(kill_in_turn(kit.clone()));
    let extension = site.extension("heal", "ext", "mcp", "");
    eventually(
        Duration::from_secs(60),
        "the extension to be stored",
        async || apply(&extension).map_err(|error| format!("{error:#}")),
    )
    .await?;
    site.server("one")?;
    eventually(
        Duration::from_secs(60),
        "the registration to be stored",
        async || site.register("one", "one_").map_err(|error| format!("{error:#}")),
    )
    .await?;
    assert_ne!(killer.await??, 0, "nothing was killed on the way");
    site.wait_ready("mcpge/ext -n heal")?;
    site.wait_ready("mcpsr/one -n heal-servers")?;
    calls_work(&site, "one_add").await?;
    whoever_is_killed_calls_work(&site, "one_add").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_work_again_after_the_broker_was_killed() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("revive")?;
    apply(&site.extension("revive", "ext", "mcp", ""))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n revive-servers")?;
    calls_work(&site, "one_add").await?;
    for (pod, container) in our_containers("revive")? {
        Kit::from_env()?.kill_container("revive", &pod, &container)?;
    }
    calls_work(&site, "one_add").await?;
    site.wait_ready("mcpsr/one -n revive-servers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_a_store_outlives_every_broker_that_served_it() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let site = Site::create("store")?;
    redis()?;
    apply(&site.extension("store", "ext", "mcp", "sessionStore: {secretName: sessions}"))?;
    site.server("one")?;
    site.register("one", "one_")?;
    site.wait_ready("mcpge/ext -n store")?;
    // The user's own number of replicas stays.
    kubectl("scale deployment mcp-gateway -n store --replicas=2")?;
    kubectl("rollout status deployment/mcp-gateway -n store --timeout=60s")?;
    a_budget_follows().await?;
    site.wait_ready("mcpsr/one -n store-servers")?;
    let mut client = site.client().await?;
    client.initialize().await?;
    let brokers: Vec<_> = our_containers("store")?
        .into_iter()
        .filter(|(pod, _)| pod.starts_with("mcp-gateway-"))
        .collect();
    assert_eq!(brokers.len(), 2, "{brokers:?}");
    for (pod, container) in &brokers {
        Kit::from_env()?.kill_container("store", pod, container)?;
        // Never a new session: one that is not known is answered 404, which ends this.
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "one_add", "arguments": {"a": 1, "b": 2}}});
        eventually(Duration::from_secs(30), "the session to be served", async || {
            let answer = client.send(&call).await.map_err(|error| format!("{error:#}"))?;
            assert_ne!(answer.status, 404, "the session is lost: {answer:?}");
            let text = &answer.message["result"]["content"][0]["text"];
            (text == "3").then_some(()).ok_or_else(|| format!("{answer:?}"))
        })
        .await?;
        kubectl("rollout status deployment/mcp-gateway -n store --timeout=60s")?;
    }
    // What ends it is the client, for every replica.
    client.end().await?;
    for _ in 0..4 {
        let answer = client
            .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
            .await?;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    kubectl("scale deployment mcp-gateway -n store --replicas=1")?;
    let gone = async || match get(BUDGET) {
        Ok(budget) => Err(budget.to_string()),
        Err(_) => Ok(()),
    };
    Ok(eventually(SOON, "the budget to go", gone).await?)
}

const BUDGET: &str = "poddisruptionbudget mcp-gateway -n store";

/// A budget comes with the second broker; its numbers are the user's, the rest is ours.
async fn a_budget_follows() -> anyhow::Result<()> {
    until(BUDGET, "the budget", |budget| {
        budget["spec"]["maxUnavailable"] == 1
    })
    .await?;
    let edit = json!({"metadata": {"labels": {"app.kubernetes.io/name": "other"}}, "spec": {"maxUnavailable": "50%"}});
    patch(BUDGET, "merge", &edit)?;
    let back = |budget: &Value| budget["metadata"]["labels"]["app.kubernetes.io/name"] == "mcp-gateway";
    let budget = until(BUDGET, "our label to be set back", back).await?;
    assert_eq!(budget["spec"]["maxUnavailable"], "50%", "{budget}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t62_another_operator_leads_as_soon_as_the_leader_goes() -> anyhow::Result<()> {
    let _cluster = Cluster::alone().await?;
    let site = Site::create("lead")?;
    apply(&site.extension("lead", "ext", "mcp", ""))?;
    site.server("one")?;
    site.wait_ready("mcpge/ext -n lead")?;
    let operators = "deployment/mcp-gateway-controller -n mcp-system";
    kubectl(&format!("scale {operators} --replicas=2"))?;
    kubectl(&format!("rollout status {operators} --timeout=60s"))?;
    let lease = || Ok::<_, anyhow::Error>(get("lease mcp-gateway-operator -n mcp-system")?["spec"].take());
    let before = lease()?;
    let leader = before["holderIdentity"].as_str().unwrap_or_default().to_owned();
    kubectl(&format!(
        "delete pod {leader} -n {OPERATOR_NAMESPACE} --wait=false"
    ))?;
    // Only one that leads serves this.
    site.register("one", "one_")?;
    site.wait_ready("mcpsr/one -n lead-servers")?;
    calls_work(&site, "one_add").await?;
    let after = lease()?;
    assert_ne!(after["holderIdentity"], json!(leader));
    let pods = our_containers(OPERATOR_NAMESPACE)?;
    let holds = |(pod, _): &&(String, String)| after["holderIdentity"] == pod.as_str();
    assert_eq!(pods.iter().filter(holds).count(), 1, "{after} of {pods:?}");
    let changes = |lease: &Value| lease["leaseTransitions"].as_i64();
    assert_eq!(
        changes(&after),
        changes(&before).map(|count| count + 1),
        "one change"
    );
    kubectl(&format!("scale {operators} --replicas=1"))?;
    kubectl(&format!("rollout status {operators} --timeout=60s")).map(drop)
}

/// A Redis in the namespace `store`, and the Secret that names it.
fn redis() -> anyhow::Result<()> {
    let meta = "metadata: {name: redis, namespace: store}";
    apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, {meta}, spec: {{selector: {{matchLabels: {{app: redis}}}}, \
        template: {{metadata: {{labels: {{app: redis}}}}, spec: {{containers: [{{name: redis, image: 'docker.io/library/redis:7.4', \
        ports: [{{name: redis, containerPort: 6379}}], \
        readinessProbe: {{tcpSocket: {{port: redis}}, periodSeconds: 1}}}}]}}}}}}}}\n---\n\
        {{apiVersion: v1, kind: Service, {meta}, spec: {{selector: {{app: redis}}, ports: [{{name: redis, port: 6379}}]}}}}\n---\n\
        {{apiVersion: v1, kind: Secret, metadata: {{name: sessions, namespace: store, labels: {{mcp.kuadrant.io/secret: 'true'}}}}, \
        stringData: {{CACHE_CONNECTION_STRING: 'redis://redis.store.svc.cluster.local:6379/0'}}}}"
    ))?;
    kubectl("rollout status deployment/redis -n store --timeout=60s").map(drop)
}

/// Kills operator, webhooks and brokers, each in its turn; how often one was met alive.
async fn kill_in_turn(kit: Kit) -> anyhow::Result<usize> {
    let mut killed = 0;
    let mut turns = BTreeMap::new();
    let mut pace = tokio::time::interval(PACE);
    for turn in 0..KILLS {
        pace.tick().await;
        let namespace = if turn % 3 == 2 { "heal" } else { OPERATOR_NAMESPACE };
        let victims = our_containers(namespace)?;
        let own_turn = turns.entry(namespace).or_insert(0);
        let Some((pod, container)) = victims.get(*own_turn % victims.len().max(1)) else {
            continue;
        };
        *own_turn += 1;
        killed += usize::from(kit.kill_container(namespace, pod, container).is_ok());
    }
    Ok(killed)
}
