//! Asks every ready broker of a namespace what it serves (operator.md 8.11): each second after a change until all
//! report the current document and their servers, then at the status interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use mcp_gateway_api::{
    broker_status::{BrokerStatus, ServerItems, ServerStatus},
    names,
    object_key::ObjectKey,
    world::World,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    brokers::{MAX_FAILURES, Namespace, Replica},
    context::Context,
    kinds::Kind,
    queue::{Outcome, WorkItem},
    reconcile::ReconcileError,
};

/// Deadline of one question.
const DEADLINE: Duration = Duration::from_secs(3);
/// Largest answer in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Most questions about the items of single servers that one broker gets at once.
const PARALLEL: usize = 8;
/// Wait while brokers do not report the current document.
const FAST: Duration = Duration::from_secs(1);
/// Wait while a server or the keys of an issuer are not there, after the first half minute.
const MEDIUM: Duration = Duration::from_secs(5);
/// How long after a change the fast interval holds.
const FAST_FOR: Duration = Duration::from_secs(30);

pub(crate) async fn reconcile(context: &Context, namespace: &str) -> Result<Outcome, ReconcileError> {
    let former = context.brokers().get(namespace).cloned();
    let Some(former) = former.filter(|former| former.written.is_some()) else {
        return Ok(Outcome::Done);
    };
    // Only virtual servers and policies name single items.
    let with_policies = former
        .written
        .as_ref()
        .is_some_and(|written| !written.contents.policies.is_empty());
    let with_items = with_policies || context.snapshot().world.virtual_servers().next().is_some();
    let endpoints = ready_endpoints(context, namespace);
    let asked = endpoints.into_iter().map(|(address, pod)| {
        let known = former.replicas.get(&address).cloned();
        async move {
            (
                address.clone(),
                ask(context, &address, pod, known, with_items).await,
            )
        }
    });
    let replicas = join_all(asked).await.into_iter().collect();
    Ok(learn(context, namespace, replicas))
}

/// Takes in what the replicas said, by address, and has everybody evaluated whom it concerns.
pub(super) fn learn(context: &Context, namespace: &str, replicas: BTreeMap<String, Replica>) -> Outcome {
    let snapshot = context.snapshot();
    let ((changed, counts), outcome) = {
        let mut brokers = context.brokers();
        let Some(observed) = brokers.get_mut(namespace) else {
            return Outcome::Done;
        };
        let first = !std::mem::replace(&mut observed.asked, true);
        let answered = observed.replicas != replicas;
        let shown = (observed.current(), observed.replicas.len());
        observed.replicas = replicas;
        let overdue = observed.is_overdue();
        let late = std::mem::replace(&mut observed.overdue, overdue) != overdue;
        let changed = first || answered || late;
        // Its status counts brokers; what becomes of single servers is not in it.
        let counts = first || late || shown != (observed.current(), observed.replicas.len());
        if let Some(took) = observed.propagated() {
            context.metrics.propagated(took);
        }
        let missing = observed.something_missing(|server| is_wanted(&snapshot.world, server));
        (
            (changed, counts),
            again(observed, missing, context.status_interval),
        )
    };
    if changed {
        announce(context, namespace, counts);
    }
    outcome
}

/// False for a server that is switched off: it is never ready, and nobody waits for it.
fn is_wanted(world: &World, server: &str) -> bool {
    let registration = ObjectKey::parse(server).and_then(|key| world.registration(&key));
    registration.is_none_or(|registration| registration.spec.state.is_enabled())
}

/// When the brokers are asked again; something is `missing` there or not.
fn again(observed: &Namespace, missing: bool, interval: Duration) -> Outcome {
    let recent = observed
        .written
        .as_ref()
        .is_some_and(|written| written.since.elapsed() < FAST_FOR);
    if observed.replicas.is_empty() {
        Outcome::After(interval)
    } else if observed.is_settling() || (recent && missing) {
        Outcome::After(FAST)
    } else if missing {
        Outcome::After(MEDIUM.min(interval))
    } else {
        Outcome::After(interval)
    }
}

/// Whoever shows what brokers say is evaluated again; the extension when it `counts` otherwise than before.
fn announce(context: &Context, namespace: &str, counts: bool) {
    let written = context
        .brokers()
        .get(namespace)
        .and_then(|observed| observed.written.clone());
    if let Some(written) = written {
        context.queue.add(written.contents.concerned());
        context
            .queue
            .add(counts.then_some(WorkItem::Extension(written.extension)));
    }
    let world = context.cache.world();
    let servers = world
        .virtual_servers()
        .map(|server| WorkItem::VirtualServer(ObjectKey::of(&server.metadata)));
    context.queue.add(servers);
}

async fn ask(
    context: &Context,
    address: &str,
    pod: String,
    known: Option<Replica>,
    with_items: bool,
) -> Replica {
    let known = known.filter(|known| known.pod == pod).unwrap_or_default();
    let base = base_url(address);
    match get::<BrokerStatus>(context, &format!("{base}/status")).await {
        Ok(mut status) => {
            forget_times(&mut status);
            let items = if with_items {
                items(context, &base, (&status, &known.items)).await
            } else {
                BTreeMap::new()
            };
            Replica {
                pod,
                failures: 0,
                status: Some(status),
                items,
            }
        }
        Err(error) => {
            tracing::debug!(address, pod, %error, "Broker did not answer");
            Replica {
                pod,
                // A count that went on would be news at every question.
                failures: known.failures.saturating_add(1).min(MAX_FAILURES),
                ..known
            }
        }
    }
}

/// The items of every ready server; those of one that cannot be asked now stay as they are known.
async fn items(
    context: &Context,
    base: &str,
    (status, known): (&BrokerStatus, &BTreeMap<String, ServerItems>),
) -> BTreeMap<String, ServerItems> {
    let ready: Vec<&ServerStatus> = status.servers.iter().filter(|server| server.ready).collect();
    let mut items = BTreeMap::new();
    for some in ready.chunks(PARALLEL) {
        let reads = some.iter().map(|server| {
            let url = format!("{base}/status/{}", server.name);
            async move { get::<ServerStatus>(context, &url).await }
        });
        for (server, answer) in some.iter().zip(join_all(reads).await) {
            let found = match answer {
                Ok(answer) => answer.items,
                Err(_) => known.get(&server.name).cloned(),
            };
            items.extend(found.map(|found| (server.name.clone(), found)));
        }
    }
    items
}

/// Times change with every answer and mean nothing to a status.
fn forget_times(status: &mut BrokerStatus) {
    status.timestamp.clear();
    status.config.loaded_at.clear();
    for server in &mut status.servers {
        server.last_validated.clear();
    }
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("answer longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("answer is not the expected JSON: {0}")]
    Shape(#[from] serde_json::Error),
}

async fn get<T: DeserializeOwned>(context: &Context, url: &str) -> Result<T, AskError> {
    let response = context
        .http
        .get(url)
        .timeout(DEADLINE)
        .send()
        .await?
        .error_for_status()?;
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk?);
        if body.len() > MAX_ANSWER {
            return Err(AskError::TooLong);
        }
    }
    Ok(serde_json::from_slice(&body)?)
}

fn base_url(address: &str) -> String {
    let port = names::BROKER_HTTP_PORT;
    if address.contains(':') {
        format!("http://[{address}]:{port}")
    } else {
        format!("http://{address}:{port}")
    }
}

/// Address and pod of every ready endpoint of the broker's Service.
fn ready_endpoints(context: &Context, namespace: &str) -> BTreeSet<(String, String)> {
    let slices = context
        .cache
        .list(Kind::EndpointSlice, |key| key.namespace == namespace);
    slices.iter().flat_map(|(_, slice)| endpoints_of(slice)).collect()
}

fn endpoints_of(slice: &Value) -> Vec<(String, String)> {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let ready = endpoints.into_iter().flatten().filter(|endpoint| {
        endpoint
            .pointer("/conditions/ready")
            .and_then(Value::as_bool)
            .unwrap_or(true)
    });
    ready
        .filter_map(|endpoint| {
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str)?;
            let pod = endpoint
                .pointer("/targetRef/name")
                .and_then(Value::as_str)
                .unwrap_or(address);
            Some((address.to_owned(), pod.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        brokers::{Contents, Written},
        fixtures::Objects,
    };

    #[test]
    fn only_ready_endpoints_are_asked() {
        let slice = json!({"endpoints": [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "targetRef": {"name": "a"}},
            {"addresses": ["192.0.2.2"], "conditions": {"ready": false}, "targetRef": {"name": "b"}},
            {"addresses": ["192.0.2.3"]},
        ]});
        let found = endpoints_of(&slice);
        assert_eq!(
            found,
            [
                ("192.0.2.1".to_owned(), "a".to_owned()),
                ("192.0.2.3".to_owned(), "192.0.2.3".to_owned())
            ]
        );
        assert_eq!(base_url("2001:db8::1"), "http://[2001:db8::1]:8080");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_switched_off_does_not_have_brokers_asked_more_often() {
        let switched = |state: &str| {
            let objects = Objects::default().server("team/weather", 1, &json!({"state": state}));
            let server = ServerStatus {
                name: "team/weather".to_owned(),
                ..ServerStatus::default()
            };
            let status = BrokerStatus {
                servers: vec![server],
                ..BrokerStatus::default()
            };
            let replica = Replica {
                status: Some(status),
                ..Replica::default()
            };
            let written = Written {
                extension: ObjectKey::new("team", "ext"),
                hash: String::new(),
                contents: Contents::default(),
                since: Instant::now(),
                under_way: false,
            };
            let observed = Namespace {
                written: Some(written),
                replicas: BTreeMap::from([("192.0.2.1".to_owned(), replica)]),
                ..Namespace::default()
            };
            let world = objects.0.world();
            let missing = observed.something_missing(|server| is_wanted(&world, server));
            again(&observed, missing, Duration::from_secs(60))
        };
        assert_eq!(switched("Enabled"), Outcome::After(FAST));
        assert_eq!(switched("Disabled"), Outcome::After(Duration::from_secs(60)));
    }
}
