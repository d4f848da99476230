//! Creates through the real API server, with the webhooks and without them, in turns; etcd syncs its disk as in a cluster
//! when the kit is told so (`MCPGW_KIT_FSYNC=1`, as `make bench` does).

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use mcp_gateway_api::{extension::MCPGatewayExtension, registration::MCPServerRegistration};
use mcp_gateway_e2e::{Cluster, OPERATOR_NAMESPACE, kubectl, kubectl_with};
use mcp_gateway_kit::{Kit, eventually};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    clock::cpu_of,
    report::{Quantity, Row, Sample, Target, ratio},
};

/// Namespaces with this label are not shown to the webhooks.
const UNSEEN: &str = "mcp-bench/unseen";
const TARGET: f64 = 1.3;
/// Creates before measuring: connections, caches.
const WARM_UP: usize = 20;
const PROGRAM: &str = "mcp-gateway-webhook";

/// Measures `creates` creates of each kind with the webhooks, and as many without.
pub(crate) async fn measure(creates: usize) -> anyhow::Result<Vec<Row>> {
    let _cluster = Cluster::alone().await?;
    let client = Kit::from_env()?.client().await?;
    // It would start a broker for each extension.
    kubectl(&format!(
        "scale deployment mcp-gateway-controller -n {OPERATOR_NAMESPACE} --replicas=0"
    ))?;
    let gone = format!(
        "wait --for=delete pod -l app.kubernetes.io/name=mcp-gateway-operator -n {OPERATOR_NAMESPACE} --timeout=60s"
    );
    kubectl(&gone)?;
    let series = Series { client, creates };
    series.namespaces().await?;
    hide_unseen()?;
    series.hidden().await?;
    let mut rows = series
        .compare::<MCPServerRegistration>("create a registration", registration)
        .await?;
    rows.extend(
        series
            .compare::<MCPServerRegistration>("create a registration, default filled in", unfilled)
            .await?,
    );
    rows.extend(
        series
            .compare::<MCPGatewayExtension>("create an extension (two claims)", extension)
            .await?,
    );
    Ok(rows)
}

fn registration(namespace: &str) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPServerRegistration",
        "metadata": {"name": "e", "namespace": namespace},
        "spec": {"targetRef": {"name": "r", "namespace": namespace}, "prefix": "p_"}})
}

/// Without the namespace that the mutating webhook fills in.
fn unfilled(namespace: &str) -> Value {
    let mut object = registration(namespace);
    if let Some(target) = object
        .pointer_mut("/spec/targetRef")
        .and_then(Value::as_object_mut)
    {
        target.remove("namespace");
    }
    object
}

fn extension(namespace: &str) -> Value {
    json!({"apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPGatewayExtension",
        "metadata": {"name": "e", "namespace": namespace},
        "spec": {"targetRef": {"name": "gw", "namespace": namespace, "sectionName": "mcp"}}})
}

/// Both configurations leave out namespaces with the label.
fn hide_unseen() -> anyhow::Result<()> {
    let selector = json!({"matchExpressions": [{"key": UNSEEN, "operator": "DoesNotExist"}]});
    for (kind, webhooks) in [
        ("validatingwebhookconfiguration", 3),
        ("mutatingwebhookconfiguration", 1),
    ] {
        let patch: Vec<Value> = (0..webhooks)
            .map(|n| json!({"op": "add", "path": format!("/webhooks/{n}/namespaceSelector"), "value": selector}))
            .collect();
        let patch = Value::from(patch).to_string();
        kubectl_with(&["patch", kind, PROGRAM, "--type=json", "-p", &patch], "")?;
    }
    Ok(())
}

struct Series {
    client: Client,
    creates: usize,
}

impl Series {
    fn namespace(seen: bool, n: usize) -> String {
        format!("bench-{}-{n}", if seen { "with" } else { "without" })
    }

    /// One for each create, because a namespace takes one extension.
    async fn namespaces(&self) -> anyhow::Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let all = (0..self.creates + WARM_UP).flat_map(|n| [(true, n), (false, n)]);
        let create = |(seen, n)| {
            let labels = if seen { json!({}) } else { json!({UNSEEN: ""}) };
            let name = Self::namespace(seen, n);
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            let api = api.clone();
            async move {
                let object: Namespace = serde_json::from_value(object)?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        };
        stream::iter(all.map(create))
            .buffer_unordered(8)
            .try_collect()
            .await
    }

    /// Waits until the API server leaves the webhooks out.
    async fn hidden(&self) -> anyhow::Result<()> {
        let namespace = Self::namespace(false, 0);
        let api: Api<MCPServerRegistration> = Api::namespaced(self.client.clone(), &namespace);
        let object: MCPServerRegistration = serde_json::from_value(unfilled(&namespace))?;
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let look = async || match api.create(&params, &object).await {
            // Nobody filled in the default.
            Ok(stored) if stored.spec.target_ref.namespace.is_none() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        Ok(eventually(Duration::from_secs(30), "the webhooks to be left out", look).await?)
    }

    /// Creates in turns, with and without; which goes first changes each time.
    async fn compare<K>(&self, what: &str, object: fn(&str) -> Value) -> anyhow::Result<Vec<Row>>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
    {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut worked = Duration::ZERO;
        for n in 0..self.creates + WARM_UP {
            if n == WARM_UP {
                with.clear();
                without.clear();
                worked = cpu_of(PROGRAM);
            }
            for seen in [n % 2 == 0, n % 2 == 1] {
                let time = self.create::<K>(&Self::namespace(seen, n), object).await?;
                if seen { with.push(time) } else { without.push(time) }
            }
        }
        let worked = cpu_of(PROGRAM).saturating_sub(worked);
        ensure!(
            !worked.is_zero(),
            "no {PROGRAM} worked: were the webhooks called?"
        );
        let (with, without) = (Sample::new(with), Sample::new(without));
        let measured = ratio(with.percentile(50), without.percentile(50));
        let each = worked / u32::try_from(self.creates)?.max(1);
        let high = ratio(with.percentile(99), without.percentile(99));
        Ok(vec![
            Row {
                what: format!("{what}, without webhooks"),
                values: without.summary(),
                target: None,
            },
            Row {
                what: format!("{what}, with webhooks"),
                values: format!(
                    "{}; CPU of the replicas with their watches {}",
                    with.summary(),
                    Quantity::Time(each)
                ),
                target: Some(Target::below(measured, Quantity::Ratio(TARGET))),
            },
            Row {
                what: format!("{what}, p99 with / p99 without"),
                values: high.to_string(),
                target: None,
            },
        ])
    }

    async fn create<K>(&self, namespace: &str, object: fn(&str) -> Value) -> anyhow::Result<Duration>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object: K = serde_json::from_value(object(namespace))?;
        let begun = Instant::now();
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("create in {namespace}"))?;
        let time = begun.elapsed();
        api.delete("e", &DeleteParams::default()).await?;
        Ok(time)
    }
}
