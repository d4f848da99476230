//! Many evaluations over a scripted API server whose answers come back through the cache, as a watch brings them: what
//! one change costs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
};
use mcp_gateway_api::{
    broker_status::{BrokerStatus, ServerStatus},
    names,
    object_key::ObjectKey,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    brokers::Replica,
    fixtures::{Objects, context},
    kinds::Kind,
};

mod bad_input;

/// One request: method, plural, namespace, name, subresource.
type Call = (Method, String, String);

/// Objects as an API server keeps them, and the requests it got.
#[derive(Default)]
struct ApiServer {
    objects: Mutex<BTreeMap<(Kind, ObjectKey), Value>>,
    calls: Mutex<Vec<Call>>,
    /// Writes that the watch still has to bring.
    news: Mutex<Vec<(Kind, ObjectKey)>>,
}

fn free<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiServer {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Json<Value>) {
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (namespace, plural, name, subresource) = (part(), part(), part(), part());
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = if name.is_empty() {
            sent["metadata"]["name"].as_str().unwrap_or_default().to_owned()
        } else {
            name
        };
        let what = format!(
            "{plural}{}{subresource}",
            if subresource.is_empty() { "" } else { "/" }
        );
        let call = (method.clone(), what, format!("{namespace}/{name}"));
        free(&self.calls).push(call);
        let Some(kind) = Kind::ALL
            .into_iter()
            .find(|kind| kind.resource().plural == plural)
        else {
            return (StatusCode::CREATED, Json(sent)); // an Event
        };
        let key = (kind, ObjectKey::new(namespace, name));
        let mut objects = free(&self.objects);
        let stored = objects.get(&key).cloned();
        if *method == Method::GET {
            return stored.map_or_else(not_found, |object| (StatusCode::OK, Json(object)));
        }
        let object = written(stored.unwrap_or_default(), sent, &subresource);
        objects.insert(key.clone(), object.clone());
        free(&self.news).push(key);
        (StatusCode::OK, Json(object))
    }

    /// The watch brings what was written.
    fn tell(&self, context: &Context) {
        let news = std::mem::take(&mut *free(&self.news));
        for (kind, key) in news {
            let mut object = free(&self.objects)[&(kind, key.clone())].clone();
            if kind == Kind::Secret {
                object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]});
            }
            context.queue.add(context.cache.apply(kind, &key, object));
        }
    }
}

fn not_found() -> (StatusCode, Json<Value>) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
        "reason": "NotFound", "message": "not found"});
    (StatusCode::NOT_FOUND, Json(status))
}

/// What an apply makes of an object whose only writer it is.
fn written(stored: Value, sent: Value, subresource: &str) -> Value {
    let version = stored["metadata"]["resourceVersion"].as_str().unwrap_or("1");
    let version = version.parse::<u64>().expect("a number") + 1;
    let mut object = if subresource == "status" {
        let mut object = stored;
        object["status"] = sent["status"].clone();
        return with_version(object, version);
    } else {
        sent
    };
    object["metadata"]["uid"] = json!(format!("uid-{}", object["metadata"]["name"]));
    object["metadata"]["managedFields"] = json!([{"manager": names::FIELD_MANAGER, "operation": "Apply",
        "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}]);
    if object["kind"] == "Deployment" {
        object["status"] =
            json!({"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
    }
    with_version(object, version)
}

fn with_version(mut object: Value, version: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object
}

/// Two extensions, each alone on its Gateway; the first serves two servers.
fn objects() -> Objects {
    let listener = |name: &str| {
        json!({"name": name, "port": 8080, "protocol": "HTTP", "hostname": format!("{name}.example.com"),
            "allowedRoutes": {"namespaces": {"from": "All"}}})
    };
    let programmed = json!([{"name": "mcp", "conditions": [{"type": "Programmed", "status": "True"}]}]);
    let gateway = json!({"spec": {"gatewayClassName": "istio", "listeners": [listener("mcp"), listener("mcps")]},
        "status": {"listeners": programmed}});
    let held = |namespace: &str| {
        json!({"metadata": {"finalizers": [names::FINALIZER]},
            "spec": {"targetRef": {"name": "gw", "namespace": namespace, "sectionName": "mcp"}}})
    };
    Objects::default()
        .gateway_and_extension()
        .put(Kind::Gateway, "infra/gw", &gateway)
        .put(Kind::Extension, "team/ext", &held("infra"))
        .put(Kind::Gateway, "other/gw", &gateway)
        .put(Kind::Extension, "other/ext", &held("other"))
        .server("apps/one", 1, &json!({}))
        .server("apps/two", 2, &json!({}))
}

/// A broker of `namespace` that serves what it is to serve; nobody while there is nothing.
fn broker(context: &Context, namespace: &str) -> BTreeMap<String, Replica> {
    let written = context
        .brokers()
        .get(namespace)
        .and_then(|known| known.written.clone());
    let Some(written) = written else {
        return BTreeMap::new();
    };
    let servers = written.contents.served.keys().map(|server| ServerStatus {
        name: server.to_string(),
        ready: true,
        total_tools: if server.name == "many" { 10_000 } else { 3 },
        ..ServerStatus::default()
    });
    let mut status = BrokerStatus {
        servers: servers.collect(),
        ..BrokerStatus::default()
    };
    status.config.hash = written.hash;
    let replica = Replica {
        pod: "broker".to_owned(),
        status: Some(status),
        ..Replica::default()
    };
    BTreeMap::from([("192.0.2.1".to_owned(), replica)])
}

/// Evaluates until nothing is due soon, the watch and the brokers being prompt. Claims have tests of their own.
async fn settle(context: &Arc<Context>, server: &ApiServer) {
    let mut evaluated = Vec::new();
    while let Ok((item, _)) = tokio::time::timeout(Duration::from_millis(500), context.queue.take()).await {
        // Over every change, because this queue does not follow the cache.
        context.snapshot_since(u64::MAX);
        let outcome = match &item {
            WorkItem::Claims => Outcome::Done,
            WorkItem::Brokers(namespace) => {
                brokers::learn(context, namespace, broker(context, namespace));
                Outcome::Done
            }
            _ => run(Arc::clone(context), &item).await,
        };
        assert_ne!(outcome, Outcome::Failed, "{item:?}");
        evaluated.push(format!("{item:?}"));
        assert!(
            evaluated.len() < 1000,
            "it does not come to rest: {:?}",
            evaluated.last_chunk::<20>()
        );
        context.queue.finish(&item, outcome);
        server.tell(context);
    }
}

fn ready(context: &Context, kind: Kind, key: &str) -> Value {
    let key = ObjectKey::parse(key).expect("a key");
    let object = context.cache.get(kind, &key).expect("an object");
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let ready = conditions
        .into_iter()
        .find(|condition| condition["type"] == "Ready");
    let ready = ready.unwrap_or_default();
    json!([ready["status"], ready["observedGeneration"], ready["message"]])
}

/// An operator at rest over these objects, and Secrets with contents.
async fn at_rest(objects: Objects, secrets: &[Value]) -> (Arc<Context>, Arc<ApiServer>) {
    let objects = secrets.iter().fold(objects, |objects, secret| {
        let (namespace, name) = (&secret["metadata"]["namespace"], &secret["metadata"]["name"]);
        let key = format!(
            "{}/{}",
            namespace.as_str().unwrap_or_default(),
            name.as_str().unwrap_or_default()
        );
        objects.put(Kind::Secret, &key, secret)
    });
    let objects = Kind::ALL.into_iter().fold(objects, Objects::listed);
    let server = Arc::new(ApiServer::default());
    let scripted = Arc::clone(&server);
    let answer = move |method: Method, uri: Uri, body: Bytes| {
        std::future::ready(scripted.answer(&method, uri.path(), &body))
    };
    let client = kube::Client::new(Router::new().fallback(answer), "default");
    let context = Arc::new(context(client, objects));
    for kind in Kind::ALL {
        let seen = context.cache.list(kind, |_| true).into_iter();
        free(&server.objects).extend(seen.map(|(key, object)| ((kind, key), object)));
    }
    context.queue.add(context.cache.everything());
    settle(&context, &server).await;
    (context, server)
}

/// Requests since the last question, each with how often it came.
fn counted(server: &ApiServer) -> Vec<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for (method, what, key) in std::mem::take(&mut *free(&server.calls)) {
        let call = match what.as_str() {
            // A second Event of one kind is counted in the first one.
            "events" => "Event".to_owned(),
            _ => format!("{method} {what} {key}"),
        };
        *counts.entry(call).or_default() += 1;
    }
    counts
        .iter()
        .map(|(call, count)| format!("{count} {call}"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn t26_hours_of_resyncs_write_nothing_and_read_two_secrets_of_an_extension_each() {
    let (context, server) = at_rest(objects(), &[]).await;
    counted(&server);
    let resyncs = 12;
    for _ in 0..resyncs {
        tokio::time::advance(Duration::from_secs(600)).await;
        context.queue.add(context.cache.everything());
        settle(&context, &server).await;
    }
    let reads = ["other", "team"]
        .map(|namespace| [names::CONFIG_SECRET, names::SIGNING_KEY_SECRET].map(|name| (namespace, name)));
    let reads = reads.as_flattened().iter();
    let reads: Vec<String> = reads
        .map(|(namespace, name)| format!("{resyncs} GET secrets {namespace}/{name}"))
        .collect();
    assert_eq!(counted(&server), reads);
}

#[tokio::test(start_paused = true)]
async fn one_changed_registration_costs_its_own_extension_eight_requests_and_nobody_else_any() {
    let (context, server) = at_rest(objects(), &[]).await;
    let text = "3 tools, served by 1/1 replicas of team/ext";
    let says = |generation: i64| json!(["True", generation, text]);
    assert_eq!(ready(&context, Kind::Registration, "apps/one"), says(1));
    let key = ObjectKey::new("apps", "one");
    let mut changed = context.cache.get(Kind::Registration, &key).expect("cached");
    changed["spec"]["hint"] = json!("changed");
    changed["metadata"]["generation"] = json!(2);
    let changed = with_version(changed, 50);
    free(&server.objects).insert((Kind::Registration, key.clone()), changed.clone());
    counted(&server);
    tokio::time::advance(Duration::from_secs(120)).await;
    context
        .queue
        .add(context.cache.apply(Kind::Registration, &key, changed));
    settle(&context, &server).await;

    assert_eq!(ready(&context, Kind::Registration, "apps/one"), says(2));
    assert_eq!(
        counted(&server),
        [
            "1 Event",
            // Secrets are read once for the change, and once for what the brokers say to it.
            "2 GET secrets team/mcp-gateway-config",
            "2 GET secrets team/mcp-gateway-session-signing-key",
            "1 PATCH mcpgatewayextensions/status team/ext",
            "1 PATCH mcpserverregistrations/status apps/one",
            "1 PATCH secrets team/mcp-gateway-config",
        ]
    );
}

fn message(context: &Context, kind: Kind, key: &str) -> String {
    ready(context, kind, key)[2]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Extensions that are Ready, have a Deployment and have an EnvoyFilter.
fn winners(context: &Context, extensions: &[&str]) -> [Vec<String>; 3] {
    let with = |has: &dyn Fn(&ObjectKey) -> bool| {
        let keys = extensions.iter().filter_map(|key| ObjectKey::parse(key));
        keys.filter(has).map(|key| key.to_string()).collect::<Vec<_>>()
    };
    let filters = context.cache.list(Kind::EnvoyFilter, |_| true);
    [
        with(&|key| ready(context, Kind::Extension, &key.to_string())[0] == "True"),
        with(&|key| {
            let broker = ObjectKey::new(key.namespace.as_str(), names::BROKER);
            context.cache.contains(Kind::Deployment, &broker)
        }),
        with(&|key| {
            filters
                .iter()
                .any(|(_, filter)| crate::standing::is_filter_of(filter, key))
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn t2_of_two_extensions_of_one_second_exactly_one_has_everything() {
    let on = |gateway: &str| {
        json!({"metadata": {"finalizers": [names::FINALIZER]},
            "spec": {"targetRef": {"name": "gw", "namespace": gateway, "sectionName": "mcp"}}})
    };
    let grant = json!({"spec": {
        "from": [{"group": "mcp.kuadrant.io", "kind": "MCPGatewayExtension", "namespace": "rival"}],
        "to": [{"group": "gateway.networking.k8s.io", "kind": "Gateway"}],
    }});
    // On one Gateway, and in one namespace; each pair was created in the same second.
    let objects = objects()
        .put(Kind::ReferenceGrant, "infra/allow-rival", &grant)
        .put(Kind::Extension, "rival/ext", &on("infra"))
        .put(Kind::Extension, "other/twin", &on("other"));
    let (context, _server) = at_rest(objects, &[]).await;
    let one = |winner: &str| vec![winner.to_owned()];
    let both = winners(&context, &["team/ext", "rival/ext"]);
    assert_eq!(both, [(); 3].map(|()| one("rival/ext")), "the smaller UID");
    let said = message(&context, Kind::Extension, "team/ext");
    assert!(
        said.contains("already has MCPGatewayExtension rival/ext"),
        "{said}"
    );
    let [ready, ..] = winners(&context, &["other/ext", "other/twin"]);
    assert_eq!(ready, one("other/ext"));
}

#[tokio::test(start_paused = true)]
async fn t6_a_newcomer_touches_no_child_until_those_of_its_predecessor_are_gone() {
    let old = json!({"metadata": {"finalizers": ["example.com/slow"], "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"targetRef": {"name": "gw", "namespace": "infra", "sectionName": "mcp"}}});
    let owner = json!({"apiVersion": Kind::Extension.api_version(), "kind": Kind::Extension.name(), "name": "old",
        "uid": "uid-team/old", "controller": true});
    let child = |name: &str| json!({"metadata": {"namespace": "team", "name": name, "ownerReferences": [owner]}, "data": {}});
    let objects = objects().put(Kind::Extension, "team/old", &old).put(
        Kind::Service,
        "team/mcp-gateway",
        &child(names::BROKER),
    );
    let (context, server) = at_rest(objects, &[child(names::CONFIG_SECRET)]).await;
    let touched = |namespace: &str| {
        let objects = free(&server.objects);
        let news = objects.iter().filter(|((_, key), object)| {
            key.namespace == namespace && object["metadata"]["managedFields"].is_array()
        });
        news.map(|((kind, key), _)| format!("{kind:?} {key}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(touched("team"), Vec::<String>::new());
    let waits = "waiting for Secret team/mcp-gateway-config of the terminating MCPGatewayExtension";
    let said = message(&context, Kind::Extension, "team/ext");
    assert!(said.starts_with(waits), "{said}");

    for (kind, name) in [
        (Kind::Service, names::BROKER),
        (Kind::Secret, names::CONFIG_SECRET),
    ] {
        let key = ObjectKey::new("team", name);
        free(&server.objects).remove(&(kind, key.clone()));
        context.queue.add(context.cache.delete(kind, &key));
    }
    settle(&context, &server).await;
    assert_eq!(ready(&context, Kind::Extension, "team/ext")[0], "True");
    assert!(touched("team").len() > 6, "{:?}", touched("team"));
}
