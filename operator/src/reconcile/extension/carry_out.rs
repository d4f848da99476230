//! Fourth call: the children are brought to their wanted state, in the order of operator.md 5; the EnvoyFilter comes
//! last, once a replica is ready, so that a filter that fails closed never precedes its server.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::Value;

use super::{
    build::ResourceSet, fetch::beside, finalize::is_refusal, news, readiness::Rollout, validate::Validated,
    way_back,
};
use crate::{
    apply::{ApplyError, Intent, Resource, remove, settle},
    blueprint::Blueprint,
    brokers::Written,
    cache::Served,
    children::{Child, envoy_filter},
    context::Context,
    kinds::Kind,
    queue::{Outcome, WorkItem},
    reconcile::ReconcileError,
    standing::{is_controlled_by, is_filter_of},
};

/// When children of a predecessor are looked at again.
const SOON: Duration = Duration::from_secs(1);

/// What came of it. Only [`carry_out`] makes it, and only from it can a status be made.
pub(crate) struct Applied {
    /// The first child that could not be brought to its wanted state, when that is for somebody else to change.
    pub(super) blocked: Option<ApplyError>,
    pub(super) rollout: Rollout,
    /// The Deployment as it is now.
    pub(super) deployment: Option<Value>,
    /// False when Envoy carries the calls and the cluster has no EnvoyFilter.
    pub(super) filter_served: bool,
    /// The Deployment is left as it is for so long, until Envoy has taken up the EnvoyFilter.
    pub(super) wait: Option<Duration>,
}

impl Applied {
    /// When to look again at what keeps a child from its wanted state: children of a predecessor go without a word, a
    /// foreign object is watched, and what the API server refuses is tried again less and less often (operator.md 6.6).
    pub(super) fn retry(&self) -> Outcome {
        match self.blocked {
            Some(ApplyError::Predecessor { .. }) => Outcome::After(SOON),
            Some(ApplyError::Refused { .. } | ApplyError::Request { .. }) => Outcome::Failed,
            Some(ApplyError::Foreign { .. }) | None => Outcome::Done,
        }
    }
}

pub(crate) async fn carry_out(
    context: &Context,
    validated: &Validated,
    resources: ResourceSet,
) -> Result<Applied, ReconcileError> {
    let blueprint = &validated.blueprint;
    let ResourceSet {
        config_secret,
        signing_key,
        trusted_pair,
        service_account,
        role,
        role_binding,
        network_policy,
        service,
        deployment,
        disruption_budget,
        route,
        tokens_route,
        envoy_filter,
    } = resources;
    let mut run = Run {
        context,
        blueprint,
        blocked: None,
        deployment: None,
    };
    // Losing an old target comes before taking the new one, whatever is in the way there.
    remove_filters(context, &blueprint.key, Some(&envoy_filter::key(blueprint))).await?;
    run.resource(&config_secret).await?;
    if run.blocked.is_none() {
        written(context, validated);
        news::tell(context, validated).await;
    }
    run.resource(&signing_key).await?;
    run.pair(&trusted_pair).await?;
    for resource in [&service_account, &role, &role_binding] {
        run.resource(resource).await?;
    }
    run.intent(&network_policy).await?;
    run.resource(&service).await?;
    let wait = run.way_back();
    if wait.is_none() {
        run.resource(&deployment).await?;
    }
    run.intent(&disruption_budget).await?;
    run.intent(&route).await?;
    run.intent(&tokens_route).await?;
    let deployment = run.deployment_now();
    let mut rollout = Rollout::of(deployment.as_ref());
    // What is put off is not complete.
    rollout.complete &= wait.is_none();
    let filter_served = run.filter(&envoy_filter, &rollout).await?;
    Ok(Applied {
        wait,
        blocked: run.blocked,
        rollout,
        deployment,
        filter_served,
    })
}

/// Remembers which document the brokers are to serve, and has them asked.
fn written(context: &Context, validated: &Validated) {
    let key = &validated.blueprint.key;
    context.metrics.config_written(validated.config.yaml.len());
    let written = Written {
        extension: key.clone(),
        hash: validated.config.hash.clone(),
        contents: validated.contents.clone(),
        since: tokio::time::Instant::now(),
        under_way: validated.change.is_new,
    };
    let changed = {
        let mut brokers = context.brokers();
        brokers
            .entry(key.namespace.clone())
            .or_default()
            .set_written(written)
    };
    if changed {
        context.queue.add(validated.contents.concerned());
        context.queue.add([WorkItem::Brokers(key.namespace.clone())]);
    }
}

struct Run<'a> {
    context: &'a Context,
    blueprint: &'a Blueprint,
    blocked: Option<ApplyError>,
    deployment: Option<Value>,
}

impl Run<'_> {
    /// Does nothing once a child is blocked: a newcomer touches no child until its predecessor's are gone (T6).
    async fn resource(&mut self, resource: &Resource) -> Result<(), ReconcileError> {
        if self.blocked.is_some() {
            return Ok(());
        }
        match settle(self.context, self.blueprint, resource).await {
            Ok(live) => {
                if resource.kind == Kind::Deployment {
                    self.deployment = live;
                }
                Ok(())
            }
            Err(error) => self.fail(error),
        }
    }

    async fn intent(&mut self, intent: &Intent) -> Result<(), ReconcileError> {
        match intent {
            Intent::Apply(resource) => self.resource(resource).await,
            Intent::Leave => Ok(()),
            Intent::Remove(kind, key) => {
                if self.blocked.is_some() || !self.context.cache.contains(*kind, key) {
                    return Ok(());
                }
                let uid = self.blueprint.uid();
                match remove(self.context, *kind, key, |live| is_controlled_by(live, uid)).await {
                    Ok(_) => Ok(()),
                    Err(error) => self.fail(error),
                }
            }
        }
    }

    /// What is for others to change goes into the status; everything else is tried again.
    fn fail(&mut self, error: ApplyError) -> Result<(), ReconcileError> {
        if matches!(error, ApplyError::Request { .. }) {
            return Err(error.into());
        }
        self.blocked.get_or_insert(error);
        Ok(())
    }

    /// The halves of a generated key pair, by POST: an existing Secret is never changed (T29).
    async fn pair(&self, halves: &[Child]) -> Result<(), ReconcileError> {
        if self.blocked.is_some() {
            return Ok(());
        }
        for half in halves {
            let api = self.context.api(Kind::Secret, &half.key.namespace);
            let failed = ReconcileError::request("create trusted-headers key");
            let object = serde_json::from_value(half.body(None))
                .map_err(|error| failed(kube::Error::SerdeError(error)))?;
            let params = PostParams {
                field_manager: Some(names::FIELD_MANAGER.to_owned()),
                dry_run: false,
            };
            api.create(&params, &object).await.map_err(&failed)?;
        }
        Ok(())
    }

    fn deployment_now(&self) -> Option<Value> {
        let key = beside(&self.blueprint.key, names::BROKER);
        self.deployment
            .clone()
            .or_else(|| self.context.cache.get(Kind::Deployment, &key))
    }

    /// How long brokers that forward calls themselves go on with it, because Envoy is about to learn how.
    fn way_back(&self) -> Option<Duration> {
        let cache = &self.context.cache;
        if !self.blueprint.needs_envoy_filter() || cache.served(Kind::EnvoyFilter) == Served::Missing {
            return None;
        }
        let deployment = self.deployment_now();
        // Without a ready broker the filter does not come, and nobody is served anyway.
        if Rollout::of(deployment.as_ref()).ready == 0 {
            return None;
        }
        // One that is somebody else's teaches Envoy nothing.
        let filter = cache
            .get(Kind::EnvoyFilter, &envoy_filter::key(self.blueprint))
            .filter(|filter| is_filter_of(filter, &self.blueprint.key));
        way_back::wait(deployment.as_ref(), filter.as_ref(), Timestamp::now())
    }

    /// The EnvoyFilter. It comes once a replica is ready; with `dataPath: Direct` it goes once the brokers have rolled,
    /// so that neither switch has a gap. False when it is needed and the cluster has no such kind.
    async fn filter(&mut self, intent: &Intent, rollout: &Rollout) -> Result<bool, ReconcileError> {
        if self.context.cache.served(Kind::EnvoyFilter) == Served::Missing {
            return Ok(!self.blueprint.needs_envoy_filter());
        }
        match intent {
            Intent::Apply(resource) => {
                let exists = self.context.cache.contains(Kind::EnvoyFilter, &resource.key);
                if rollout.ready > 0 || exists {
                    self.resource(resource).await?;
                }
            }
            Intent::Remove(..) | Intent::Leave if rollout.complete => {
                remove_filters(self.context, &self.blueprint.key, None).await?;
            }
            Intent::Remove(..) | Intent::Leave => {}
        }
        self.context
            .queue
            .add([WorkItem::ListenerStatus(self.blueprint.gateway.clone())]);
        Ok(true)
    }
}

/// Deletes the EnvoyFilters that carry the labels of `extension`, wherever they lie, but for `keep`. One that cannot be
/// deleted does not keep the others.
pub(super) async fn remove_filters(
    context: &Context,
    extension: &ObjectKey,
    keep: Option<&ObjectKey>,
) -> Result<(), ReconcileError> {
    let named = names::label_value(&extension.namespace);
    let filters = context.cache.mentioning(Kind::EnvoyFilter, &named);
    let filters = filters
        .into_iter()
        .filter(|(key, filter)| Some(key) != keep && is_filter_of(filter, extension));
    let mut failure: Result<(), ReconcileError> = Ok(());
    for (key, filter) in filters {
        let removed = remove(context, Kind::EnvoyFilter, &key, |live| {
            is_filter_of(live, extension)
        });
        if let Err(error) = removed.await {
            // One that can be tried again counts more than one that is refused for good.
            if failure.as_ref().err().is_none_or(is_refusal) {
                failure = Err(error.into());
            }
            continue;
        }
        let gateway = filter
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(names::GATEWAY_ANNOTATION))
            .and_then(Value::as_str)
            .and_then(ObjectKey::parse);
        context.queue.add(gateway.map(WorkItem::ListenerStatus));
    }
    failure
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use serde_json::json;

    use super::*;
    use crate::{
        children::tests::blueprint,
        fixtures::{Objects, context},
    };

    #[tokio::test]
    async fn brokers_go_on_to_forward_while_the_filter_is_somebody_elses() {
        let blueprint = Arc::new(blueprint(&json!({})));
        let container = json!({"name": names::BROKER, "command": ["./mcp_gateway", "--data-path=direct"]});
        let deployment = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}},
            "status": {"readyReplicas": 1, "replicas": 1, "updatedReplicas": 1}});
        let ours = envoy_filter::build(&blueprint, None).body(None);
        let wait = |filter: &Value| {
            let key = envoy_filter::key(&blueprint).to_string();
            let objects = Objects::default()
                .put(Kind::Deployment, "team-a/mcp-gateway", &deployment)
                .put(Kind::EnvoyFilter, &key, filter);
            let run = Run {
                context: &context(kube::Client::new(Router::new(), "default"), objects),
                blueprint: &blueprint,
                blocked: None,
                deployment: None,
            };
            run.way_back()
        };
        assert_eq!(wait(&ours), None, "Envoy has had the time to take it up");
        assert!(wait(&json!({})).is_some(), "there is none of ours");
    }

    #[test]
    fn what_is_in_the_way_decides_when_it_is_looked_at_again() {
        let (kind, key) = (Kind::Service.name(), ObjectKey::new("team", names::BROKER));
        let retry = |blocked: Option<ApplyError>| {
            Applied {
                wait: None,
                blocked,
                rollout: Rollout::default(),
                deployment: None,
                filter_served: true,
            }
            .retry()
        };
        let (foreign, predecessor) = (key.clone(), key.clone());
        assert_eq!(
            retry(Some(ApplyError::Foreign { kind, key: foreign })),
            Outcome::Done
        );
        let owner = "team/old".to_owned();
        let predecessor = ApplyError::Predecessor {
            kind,
            key: predecessor,
            owner,
        };
        assert_eq!(retry(Some(predecessor)), Outcome::After(SOON));
        let message = "spec.ports: Required value".to_owned();
        assert_eq!(
            retry(Some(ApplyError::Refused { kind, key, message })),
            Outcome::Failed
        );
        assert_eq!(retry(None), Outcome::Done);
    }
}
