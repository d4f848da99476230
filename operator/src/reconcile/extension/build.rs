//! Third call: the full set of children. Pure but for what the cache knows: the UID of the Namespace, how many brokers there
//! are, and who else keeps a budget for them.

use std::sync::Arc;

use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::Value;

use super::validate::Validated;
use crate::{
    apply::{Intent, Resource},
    blueprint::Blueprint,
    cache::Served,
    children::{
        Child, config_secret, deployment, disruption_budget, envoy_filter, network_policy, role,
        role_binding, route, service, service_account, signing_key, tokens_route, trusted_headers,
    },
    context::Context,
    kinds::Kind,
    standing::is_controlled_by,
};

/// Every child of an accepted extension. `carry_out` takes it apart without `..`.
pub(crate) struct ResourceSet {
    pub(super) config_secret: Resource,
    pub(super) signing_key: Resource,
    /// Made by POST, never applied.
    pub(super) trusted_pair: Vec<Child>,
    pub(super) service_account: Resource,
    pub(super) role: Resource,
    pub(super) role_binding: Resource,
    pub(super) network_policy: Intent,
    pub(super) service: Resource,
    pub(super) deployment: Resource,
    pub(super) disruption_budget: Intent,
    pub(super) route: Intent,
    pub(super) tokens_route: Intent,
    /// Applied last, once a replica is ready.
    pub(super) envoy_filter: Intent,
}

pub(crate) fn build(validated: &Validated, context: &Context) -> ResourceSet {
    let blueprint = &validated.blueprint;
    let pair = validated.trusted_pair.iter();
    let [stored_config, stored_key] = validated.stored.clone();
    ResourceSet {
        config_secret: Resource::fixed(config_secret::build(blueprint)).read_as(stored_config),
        signing_key: signing_key(blueprint).read_as(stored_key),
        trusted_pair: pair
            .map(|half| trusted_headers::build(blueprint, &half.name, &half.pem))
            .collect(),
        service_account: Resource::fixed(service_account::build(blueprint)),
        role: Resource::fixed(role::build(blueprint)),
        role_binding: Resource::fixed(role_binding::build(blueprint)),
        network_policy: network_policy(blueprint),
        service: Resource::fixed(service::build(blueprint)),
        deployment: broker(blueprint),
        disruption_budget: disruption_budget(blueprint, context),
        route: if blueprint.manages_routes() {
            apply(route::build(blueprint))
        } else {
            Intent::Leave
        },
        tokens_route: tokens_route(blueprint),
        envoy_filter: envoy_filter(blueprint, context),
    }
}

fn apply(child: Child) -> Intent {
    Intent::Apply(Resource::fixed(child))
}

fn own(blueprint: &Blueprint, name: &str) -> ObjectKey {
    ObjectKey::new(blueprint.namespace(), name)
}

fn signing_key(blueprint: &Arc<Blueprint>) -> Resource {
    let for_live = Arc::clone(blueprint);
    Resource::merged(
        Kind::Secret,
        own(blueprint, names::SIGNING_KEY_SECRET),
        move |live| signing_key::build(&for_live, live),
    )
}

fn broker(blueprint: &Arc<Blueprint>) -> Resource {
    let for_live = Arc::clone(blueprint);
    Resource::merged(Kind::Deployment, own(blueprint, names::BROKER), move |live| {
        deployment::build(&for_live, live)
    })
}

/// Whoever made a budget for these pods, or one of this name, knows better. Without a view of budgets there is none.
fn disruption_budget(blueprint: &Arc<Blueprint>, context: &Context) -> Intent {
    let kind = Kind::PodDisruptionBudget;
    let key = own(blueprint, names::BROKER);
    if context.cache.served(kind) == Served::Missing {
        return Intent::Leave;
    }
    let others = context.cache.list(kind, |found| found.namespace == key.namespace);
    let mut others = others
        .iter()
        .filter(|(_, budget)| !is_controlled_by(budget, blueprint.uid()));
    if others.clone().any(|(found, _)| *found == key) {
        return Intent::Leave;
    }
    let deployment = context.cache.get(Kind::Deployment, &key).unwrap_or_default();
    let replicas = deployment.pointer("/spec/replicas").and_then(Value::as_i64);
    if replicas.is_none_or(|replicas| replicas < 2)
        || others.any(|(_, budget)| disruption_budget::counts_pods_of(budget, &deployment))
    {
        return Intent::Remove(kind, key);
    }
    let for_live = Arc::clone(blueprint);
    let make = move |live: Option<&Value>| disruption_budget::build(&for_live, live);
    Intent::Apply(Resource::merged(kind, key, make))
}

fn network_policy(blueprint: &Blueprint) -> Intent {
    if blueprint.extension.spec.network_policy_management.is_enabled() {
        apply(network_policy::build(blueprint))
    } else {
        Intent::Remove(Kind::NetworkPolicy, own(blueprint, names::BROKER))
    }
}

fn tokens_route(blueprint: &Blueprint) -> Intent {
    if !blueprint.manages_routes() {
        Intent::Leave
    } else if blueprint.routes_tokens() {
        apply(tokens_route::build(blueprint))
    } else {
        Intent::Remove(Kind::HttpRoute, own(blueprint, names::TOKENS_ROUTE))
    }
}

fn envoy_filter(blueprint: &Blueprint, context: &Context) -> Intent {
    if !blueprint.needs_envoy_filter() {
        return Intent::Remove(Kind::EnvoyFilter, envoy_filter::key(blueprint));
    }
    let namespace = context.uid(Kind::Namespace, &ObjectKey::new("", blueprint.namespace()));
    apply(envoy_filter::build(blueprint, namespace.as_deref()))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use serde_json::json;

    use super::*;
    use crate::{
        children::{common_labels, tests::blueprint},
        fixtures::{Objects, context},
    };

    /// What is to happen with the budget of so many brokers, next to these budgets.
    fn intent(replicas: i64, budgets: &[(&str, Value)]) -> Intent {
        let labels = json!({"metadata": {"labels": common_labels()}});
        let deployment = json!({"spec": {"replicas": replicas, "template": labels}});
        let mut objects = Objects::default().put(Kind::Deployment, "team-a/mcp-gateway", &deployment);
        for (key, budget) in budgets {
            objects = objects.put(Kind::PodDisruptionBudget, key, budget);
        }
        let client = kube::Client::new(Router::new(), "default");
        disruption_budget(&Arc::new(blueprint(&json!({}))), &context(client, objects))
    }

    #[tokio::test]
    async fn there_is_a_budget_while_there_is_more_than_one_broker() {
        assert!(matches!(intent(2, &[]), Intent::Apply(_)));
        assert!(matches!(intent(1, &[]), Intent::Remove(..)));
        assert!(matches!(intent(0, &[]), Intent::Remove(..)));
        let ours = super::disruption_budget::build(&blueprint(&json!({})), None).body(None);
        assert!(matches!(
            intent(2, &[("team-a/mcp-gateway", ours)]),
            Intent::Apply(_)
        ));
    }

    #[tokio::test]
    async fn a_budget_of_the_users_for_the_same_pods_is_enough() {
        let selecting = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}}});
        let (same, other) = (selecting(common_labels()), selecting(json!({"app": "other"})));
        assert!(matches!(
            intent(2, &[("team-a/theirs", same.clone())]),
            Intent::Remove(..)
        ));
        assert!(matches!(
            intent(2, &[("team-a/all", json!({"spec": {"selector": {}}}))]),
            Intent::Remove(..)
        ));
        assert!(matches!(
            intent(2, &[("team-a/other", other.clone())]),
            Intent::Apply(_)
        ));
        assert!(matches!(
            intent(2, &[("team-a/none", json!({"spec": {}}))]),
            Intent::Apply(_)
        ));
        assert!(matches!(intent(2, &[("team-b/theirs", same)]), Intent::Apply(_)));
        assert!(matches!(
            intent(2, &[("team-a/mcp-gateway", other)]),
            Intent::Leave
        ));
    }
}
