//! One watch for each kind, feeding the cache and the queue. A kind that the cluster does not serve is waited for and
//! picked up when it appears (T37); a watch that fails is restarted with backoff and loses nothing meanwhile.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{WatchStreamExt, utils::Backoff, watcher, watcher::Event},
};
use mcp_gateway_api::object_key::ObjectKey;
use rand::Rng;
use serde::Serialize;
use serde_json::Value;

use crate::{
    cache::Cache,
    kinds::{Kind, Watched},
    metrics::Metrics,
    queue::Queue,
};

/// How often a kind that is not served is looked for.
const MISSING_INTERVAL: Duration = Duration::from_secs(3);

/// Objects on one page of a list: all kinds are listed at once, and a page is in memory as a parsed tree.
const PAGE: u32 = 100;

/// First pause after a failure of a watch.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// Pause before a watch that ended with "not found" starts again: discovery can be ahead of the endpoint.
const RESTART_INTERVAL: Duration = Duration::from_millis(300);

/// What a watch needs.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Watcher {
    /// Watches `kind` for ever.
    pub(crate) async fn run(self, kind: Kind) {
        loop {
            match self.served_resource(kind).await {
                Some(resource) => {
                    self.watch(kind, &resource).await;
                    tokio::time::sleep(RESTART_INTERVAL).await;
                }
                None => {
                    self.queue.add(self.cache.set_missing(kind));
                    tokio::time::sleep(MISSING_INTERVAL).await;
                }
            }
        }
    }

    /// The first version of `kind` that the cluster serves. An answer other than "not found" is asked again.
    async fn served_resource(&self, kind: Kind) -> Option<ApiResource> {
        let mut wait = Duration::from_millis(200);
        loop {
            let mut inconclusive = false;
            for resource in kind.resources() {
                match self.serves(&resource).await {
                    Ok(true) => return Some(resource),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(kind = kind.name(), %error, "Discovery failed");
                        inconclusive = true;
                    }
                }
            }
            if !inconclusive {
                return None;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MISSING_INTERVAL);
        }
    }

    async fn serves(&self, resource: &ApiResource) -> Result<bool, kube::Error> {
        let listed = if resource.group.is_empty() {
            self.client.list_core_api_resources(&resource.version).await
        } else {
            self.client.list_api_group_resources(&resource.api_version).await
        };
        match listed {
            Ok(list) => Ok(list.resources.iter().any(|served| served.name == resource.plural)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Watches until the kind is gone.
    async fn watch(&self, kind: Kind, resource: &ApiResource) {
        let config = watcher::Config::default().page_size(PAGE);
        let config = match kind.watched() {
            Watched::All | Watched::Metadata => config,
            Watched::Named(name) => config.fields(&format!("metadata.name={name}")),
            Watched::Labelled(labels) => config.labels(labels),
        };
        if kind.watched() == Watched::Metadata {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), resource);
            self.follow(kind, watcher(api, config).map_ok(raw)).await;
        } else {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
            self.follow(kind, watcher(api, config).map_ok(raw)).await;
        }
    }

    async fn follow(&self, kind: Kind, events: impl Stream<Item = watcher::Result<Event<Value>>>) {
        let mut listed = BTreeSet::new();
        let mut events = std::pin::pin!(events.backoff(Pauses::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(kind, event, &mut listed),
                Err(error) => {
                    self.metrics.watch_restarted(kind);
                    tracing::debug!(kind = kind.name(), %error, "Watch restarts");
                    if answer(&error) == Some(404) || is_no_event(&error) {
                        return;
                    }
                    if answer(&error) == Some(403) && kind.is_dispensable() {
                        self.queue.add(self.cache.set_missing(kind));
                    }
                }
            }
        }
    }

    fn take(&self, kind: Kind, event: Event<Value>, listed: &mut BTreeSet<ObjectKey>) {
        let items = match event {
            Event::Init => {
                listed.clear();
                return;
            }
            Event::InitApply(object) => {
                let key = key_of(&object);
                listed.insert(key.clone());
                self.cache.apply(kind, &key, object)
            }
            Event::InitDone => self.cache.finish_list(kind, &std::mem::take(listed)),
            Event::Apply(object) => self.cache.apply(kind, &key_of(&object), object),
            Event::Delete(object) => self.cache.delete(kind, &key_of(&object)),
        };
        self.queue.add(items);
    }
}

/// Pauses between failures of one watch: from half a second, doubled up to eight, so that a watch is back soon after an
/// API server that was away for minutes. Each is varied, so that the watches do not come all at once.
#[derive(Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        Some(pause.mul_f64(rand::rng().random_range(0.75..1.25)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// True when what came is no watch event at all. The API server answers a watch of metadata that it refuses with an
/// error printed over many lines, each of which would be taken for an event, with a pause after each: such a stream is
/// given up at once.
fn is_no_event(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchFailed(kube::Error::SerdeError(_)))
}

/// The HTTP status with which the API server refused a list or a watch.
fn answer(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

/// `<namespace>/<name>` of a raw object; cluster-scoped objects have an empty namespace.
fn key_of(object: &Value) -> ObjectKey {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"))
}

fn raw<T: Serialize>(event: Event<T>) -> Event<Value> {
    let value = |object: T| serde_json::to_value(object).unwrap_or_default();
    match event {
        Event::Apply(object) => Event::Apply(value(object)),
        Event::Delete(object) => Event::Delete(value(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(value(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::Uri};
    use serde_json::json;

    use super::*;
    use crate::cache::Served;

    #[test]
    fn pauses_grow_to_eight_seconds_and_start_again_after_a_success() {
        let mut pauses = Pauses::default();
        let seconds: Vec<f64> = pauses.by_ref().take(6).map(|pause| pause.as_secs_f64()).collect();
        assert!(
            seconds[0] < 0.7 && seconds[4] > 5.9 && seconds[5] < 10.1,
            "{seconds:?}"
        );
        pauses.reset();
        assert!(
            pauses
                .next()
                .is_some_and(|pause| pause < Duration::from_millis(700))
        );
    }

    /// A cluster that serves ReferenceGrants in these versions, as discovery tells it.
    fn serving(versions: &'static [&'static str]) -> Watcher {
        let answer = move |uri: Uri| {
            let version = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let grants = json!({"name": "referencegrants", "singularName": "", "namespaced": true,
                "kind": "ReferenceGrant", "verbs": ["list"]});
            let resources = if versions.contains(&version.as_str()) {
                vec![grants]
            } else {
                vec![]
            };
            let list = json!({"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": format!("gateway.networking.k8s.io/{version}"), "resources": resources});
            std::future::ready(Json(list))
        };
        Watcher {
            client: Client::new(Router::new().fallback(answer), "default"),
            cache: Arc::default(),
            queue: Arc::default(),
            metrics: Arc::new(Metrics::new()),
        }
    }

    #[tokio::test]
    async fn t11_grants_are_watched_in_v1_where_it_is_served_and_else_in_v1beta1() {
        for (versions, expected) in [
            (["v1", "v1beta1"].as_slice(), Some("v1")),
            (["v1beta1"].as_slice(), Some("v1beta1")),
            ([].as_slice(), None),
        ] {
            let found = serving(versions).served_resource(Kind::ReferenceGrant).await;
            let version = found.as_ref().map(|resource| resource.version.as_str());
            assert_eq!(version, expected, "{versions:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn budgets_that_may_not_be_watched_hold_nothing_up_until_they_may_be() {
        let watcher = serving(&[]);
        let forbidden = || {
            let status = kube::core::Status::failure("not yours", "Forbidden").with_code(403);
            Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(
                status,
            ))))
        };
        for (kind, served) in [
            (Kind::PodDisruptionBudget, Served::Missing),
            (Kind::Deployment, Served::Unknown),
        ] {
            watcher
                .follow(kind, futures::stream::iter([forbidden(), forbidden()]))
                .await;
            assert_eq!(watcher.cache.served(kind), served, "{kind:?}");
            let listed = [forbidden(), Ok(Event::Init), Ok(Event::InitDone)];
            watcher.follow(kind, futures::stream::iter(listed)).await;
            assert_eq!(watcher.cache.served(kind), Served::Synced, "{kind:?}");
        }
    }

    #[test]
    fn lines_of_a_printed_error_end_the_stream() {
        let line = serde_json::from_str::<Value>("  \"metadata\": {},").expect_err("no JSON value");
        assert!(is_no_event(&watcher::Error::WatchFailed(
            kube::Error::SerdeError(line)
        )));
        assert!(!is_no_event(&watcher::Error::WatchFailed(
            kube::Error::LinesCodecMaxLineLengthExceeded
        )));
    }
}
