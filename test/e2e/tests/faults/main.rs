//! Faults between the operator and the API server, one at a time: failing calls, cut watches, an API server or etcd that
//! is away, kinds that are not served yet, and a kill between any two writes. Each time the same objects come out as when
//! nothing fails. `MCPGW_ALL_CRASH_POINTS=1` kills after every single write, `MCPGW_OUTAGE_SECONDS=120` makes outages long.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this whole crate is tests: a panic is how they fail"
)]

mod operator;
mod outcome;
mod proxy;

use std::{env, time::Duration};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Cluster, Site, apply, delete, get, kubectl, kubectl_with};
use mcp_gateway_kit::{Component, Kit, eventually};
use operator::Operator;
use outcome::{objects_of, outcome};
use proxy::Proxy;
use serde_json::json;

const LONG: Duration = Duration::from_secs(180);
/// Crash points of the default run, by number of writes that get through: before and after each kind of thing.
const SOME_POINTS: [i64; 4] = [1, 5, 11, 16];
/// More writes than one site ever takes.
const MANY_WRITES: i64 = 60;
/// A storm is one when more calls than these failed, which takes no more edits than `TURNS`.
const ENOUGH: usize = 10;
const TURNS: usize = 60;

/// The operator as a process of this test, with the proxy between it and the API server.
struct Stage {
    cluster: Cluster,
    proxy: Proxy,
    operator: Operator,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let cluster = Cluster::alone().await?;
        kubectl("scale deployment mcp-gateway-controller -n mcp-system --replicas=0")?;
        eventually(LONG, "the installed operator to be gone", async || {
            let pods =
                kubectl("get pods -n mcp-system -l app.kubernetes.io/name=mcp-gateway-operator -o name");
            match pods.map_err(|error| format!("{error:#}"))? {
                none if none.is_empty() => Ok(()),
                pods => Err(pods),
            }
        })
        .await?;
        let proxy = Proxy::start().await?;
        let operator = Operator::start(&proxy)?;
        Ok(Self {
            cluster,
            proxy,
            operator,
        })
    }

    /// A crash as `kill -9` makes it, and a new process.
    async fn crash(&mut self) -> anyhow::Result<()> {
        self.operator.kill().await?;
        self.proxy.heal();
        self.operator = Operator::start(&self.proxy)?;
        Ok(())
    }

    async fn strike(self) -> anyhow::Result<()> {
        let Self {
            cluster,
            mut operator,
            ..
        } = self;
        operator.kill().await?;
        drop(cluster);
        Ok(())
    }
}

/// What the objects of a site look like when nothing fails.
async fn undisturbed(stage: &Stage) -> anyhow::Result<serde_json::Value> {
    stage.proxy.heal();
    let site = site("calm")?;
    converged(&site).await?;
    let objects = outcome(&site)?;
    ensure!(
        objects["team"].as_object().is_some_and(|team| team.len() > 8),
        "{objects:#}"
    );
    gone(&site).await?;
    Ok(objects)
}

fn site(name: &str) -> anyhow::Result<Site> {
    let site = Site::create(name)?;
    site.server("one")?;
    Ok(site)
}

/// Asks for the extension and the registration of a site; the API server may be away for a moment.
async fn asked_for(site: &Site) -> anyhow::Result<()> {
    let extension = site.extension(site.name(), "ext", "mcp", "urlElicitation: Enabled");
    eventually(LONG, "the objects to be stored", async || {
        apply(&extension)
            .and_then(|_| site.register("one", "one_"))
            .map_err(|error| format!("{error:#}"))
    })
    .await?;
    Ok(())
}

async fn converged(site: &Site) -> anyhow::Result<()> {
    asked_for(site).await?;
    ready(site).await
}

async fn ready(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    for what in [
        format!("mcpge ext -n {name}"),
        format!("mcpsr one -n {name}-servers"),
    ] {
        eventually(LONG, &format!("{what} to be ready"), async || {
            let object = get(&what).map_err(|error| format!("{error:#}"))?;
            let generation = object["metadata"]["generation"].clone();
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ready = conditions.iter().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == generation
            });
            if ready {
                Ok(())
            } else {
                Err(json!(conditions).to_string())
            }
        })
        .await?;
    }
    Ok(())
}

/// Waits until the objects of a site are those of an undisturbed one.
async fn same(site: &Site, wanted: &serde_json::Value) -> anyhow::Result<()> {
    eventually(LONG, "the same objects as without faults", async || {
        let found = outcome(site).map_err(|error| format!("{error:#}"))?;
        if found == *wanted {
            Ok(())
        } else {
            let registration = get(&format!("mcpsr one -n {}-servers", site.name())).unwrap_or_default();
            Err(format!(
                "{} {}",
                outcome::difference(wanted, &found),
                registration["status"]
            ))
        }
    })
    .await?;
    Ok(())
}

/// Deletes the extension and waits until nothing of it is left, anywhere; then the whole site.
async fn gone(site: &Site) -> anyhow::Result<()> {
    let name = site.name();
    kubectl(&format!(
        "delete mcpge ext -n {name} --ignore-not-found --wait=false"
    ))?;
    eventually(LONG, "nothing to be left of the extension", async || {
        let left = objects_of(site).map_err(|error| format!("{error:#}"))?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await?;
    kubectl(&format!(
        "delete namespace {name} {name}-servers {name}-gw --wait=false"
    ))?;
    Ok(())
}

/// Edits the hint of the registration of the storm.
fn hint(text: &serde_json::Value) -> anyhow::Result<()> {
    let patch = json!({"spec": {"hint": text}}).to_string();
    let server = "patch mcpsr one -n storm-servers --type merge -p";
    kubectl_with(&server.split(' ').chain([patch.as_str()]).collect::<Vec<_>>(), "")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t42_the_same_objects_come_out_while_calls_fail_and_watches_are_cut() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let wanted = undisturbed(&stage).await?;
    stage.proxy.disturb(10);
    let site = site("storm")?;
    converged(&site).await?;
    // How many calls the operator needs for an edit depends on how often its watches are cut: edits go on until enough failed.
    for turn in 0..TURNS {
        if turn >= 5 && stage.proxy.failed() > ENOUGH {
            break;
        }
        hint(&json!(format!("turn {turn}")))?;
        eventually(
            LONG,
            "the edit in the document, which never loses the server",
            async || {
                let document = outcome::document("storm").map_err(|error| format!("{error:#}"))?;
                assert!(document.contains("name: storm-servers/one"), "{document}");
                if document.contains(&format!("turn {turn}")) {
                    Ok(())
                } else {
                    Err(document)
                }
            },
        )
        .await?;
    }
    hint(&json!(null))?;
    ready(&site).await?;
    same(&site, &wanted).await?;
    ensure!(
        stage.proxy.failed() > ENOUGH,
        "only {} calls failed in {TURNS} edits",
        stage.proxy.failed()
    );
    gone(&site).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_or_etcd_that_is_away_is_ridden_out() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let wanted = undisturbed(&stage).await?;
    let site = site("away")?;
    converged(&site).await?;
    let mut client = site.client().await?;
    client.initialize().await?;
    let seconds = env::var("MCPGW_OUTAGE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let outage = Duration::from_secs(seconds.unwrap_or(15));
    for component in [Component::KubeApiserver, Component::Etcd] {
        let stopped = Kit::from_env()?.stop_component(component).await?;
        let mut calls = 0;
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < outage {
            let result = client.call("one_add", json!({"a": 1, "b": calls})).await?;
            assert_eq!(
                result["content"][0]["text"],
                (1 + calls).to_string(),
                "calls go on"
            );
            calls += 1;
        }
        drop(stopped);
        eventually(LONG, "the API server to answer", async || {
            kubectl("get --raw /readyz").map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    kubectl("delete service mcp-gateway -n away")?;
    same(&site, &wanted).await?;
    gone(&site).await?;
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_any_two_writes_leaves_nothing_half_done() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    let wanted = undisturbed(&stage).await?;
    let all = env::var_os("MCPGW_ALL_CRASH_POINTS").is_some();
    let points: Vec<i64> = if all {
        (1..MANY_WRITES).collect()
    } else {
        SOME_POINTS.to_vec()
    };
    let mut crashes = 0;
    for point in points {
        let site = site(&format!("crash{point}"))?;
        stage.proxy.cut_after(point);
        asked_for(&site).await?;
        if !crashed_or_ready(&mut stage, &site).await? {
            // The writes that are left would cut the next site off.
            stage.proxy.heal();
            gone(&site).await?;
            break;
        }
        crashes += 1;
        ready(&site).await?;
        same(&site, &wanted)
            .await
            .with_context(|| format!("killed after write {point}"))?;
        gone(&site).await?;
    }
    ensure!(
        crashes >= SOME_POINTS.len(),
        "only {crashes} crash points were met"
    );
    eprintln!("killed after each of {crashes} writes");
    for point in 1..=if all { 8 } else { 2 } {
        let site = site(&format!("end{point}"))?;
        converged(&site).await?;
        stage.proxy.cut_after(point);
        kubectl(&format!("delete mcpge ext -n end{point} --wait=false"))?;
        let met = crashed(&mut stage, Duration::from_secs(10)).await?;
        stage.proxy.heal();
        gone(&site)
            .await
            .with_context(|| format!("killed after write {point} of the end"))?;
        ensure!(met || point > 1, "the deletion made no write");
    }
    stage.strike().await
}

/// Waits until the write of the crash point went through, and crashes; false when it did not come within `limit`.
async fn crashed(stage: &mut Stage, limit: Duration) -> anyhow::Result<bool> {
    let met = stage.proxy.is_cut(limit).await;
    if met {
        stage.crash().await?;
    }
    Ok(met)
}

/// The same for a site that comes up: false when it is ready without ever having met the crash point.
async fn crashed_or_ready(stage: &mut Stage, site: &Site) -> anyhow::Result<bool> {
    let met = tokio::select! {
        met = stage.proxy.is_cut(LONG) => met,
        ready = ready(site) => { ready?; false }
    };
    if met {
        stage.crash().await?;
    }
    Ok(met)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t37_kinds_that_are_not_served_yet_are_waited_for_and_picked_up() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    stage.operator.kill().await?;
    stage
        .proxy
        .hide(&["gateway.networking.k8s.io", "networking.istio.io"]);
    stage.operator = Operator::start(&stage.proxy)?;
    eventually(LONG, "the probes", async || stage.operator.is_ready().await).await?;
    let site = site("bare")?;
    asked_for(&site).await?;
    let says = async |reason: &str, text: &str| -> anyhow::Result<()> {
        let message = site.wait_not_ready("mcpge/ext -n bare", reason).await?;
        ensure!(message.contains(text), "{message}");
        Ok(())
    };
    says("ReferenceGrantRequired", "ReferenceGrant required").await?;
    stage.proxy.hide(&["networking.istio.io"]);
    says(
        "EnvoyFilterUnavailable",
        "EnvoyFilter (networking.istio.io) is not installed",
    )
    .await?;
    stage.proxy.hide(&[]);
    ready(&site).await?;
    gone(&site).await?;
    delete("mcpsr --all -n bare-servers")?;
    stage.strike().await
}
