//! Third call: the full set of children. Pure but for the UID of the Namespace, which the cache knows.

use std::sync::Arc;

use mcp_gateway_api::{names, object_key::ObjectKey};

use super::validate::Validated;
use crate::{
    apply::{Intent, Resource},
    blueprint::Blueprint,
    children::{
        Child, config_secret, deployment, envoy_filter, network_policy, role, role_binding, route, service,
        service_account, signing_key, tokens_route, trusted_headers,
    },
    context::Context,
    kinds::Kind,
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
    pub(super) route: Intent,
    pub(super) tokens_route: Intent,
    /// Applied last, once a replica is ready.
    pub(super) envoy_filter: Intent,
}

pub(crate) fn build(validated: &Validated, context: &Context) -> ResourceSet {
    let blueprint = &validated.blueprint;
    let pair = validated.trusted_pair.iter();
    ResourceSet {
        config_secret: Resource::fixed(config_secret::build(blueprint)),
        signing_key: signing_key(blueprint),
        trusted_pair: pair
            .map(|half| trusted_headers::build(blueprint, &half.name, &half.pem))
            .collect(),
        service_account: Resource::fixed(service_account::build(blueprint)),
        role: Resource::fixed(role::build(blueprint)),
        role_binding: Resource::fixed(role_binding::build(blueprint)),
        network_policy: network_policy(blueprint),
        service: Resource::fixed(service::build(blueprint)),
        deployment: broker(blueprint),
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
