//! On a change of what is what evaluated again (table of operator.md 4.7): one pure function over the world. The cache
//! asks it before and after each change, so that both the old and the new relations count.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    auth_policy::{MCPAuthPolicy, PolicyTargetKind},
    extension::MCPGatewayExtension,
    names,
    object_key::ObjectKey,
    registration::MCPServerRegistration,
    route::HttpRoute,
    webhooks::{self, supplementary::OWNER_NAMESPACE_LABEL},
    world::{World, gateway_of, route_of},
};
use serde_json::Value;

use crate::{children::trusted_headers, kinds::Kind, policies::references, queue::WorkItem};

/// What has to be evaluated when the object `key` of `kind` (as it is in `world` now, or is not) changes; `object` is
/// the raw object for kinds that the world does not hold.
pub(crate) fn affected(
    world: &World,
    kind: Kind,
    key: &ObjectKey,
    object: Option<&Value>,
) -> BTreeSet<WorkItem> {
    let mut items = Items {
        world,
        found: BTreeSet::new(),
    };
    match kind {
        Kind::Extension => items.by_extension(key),
        Kind::Registration => items.by_registration(key),
        Kind::VirtualServer => {
            items.found.insert(WorkItem::VirtualServer(key.clone()));
            items.policies_on(PolicyTargetKind::MCPVirtualServer, key);
            items.every_extension();
        }
        Kind::AuthPolicy => {
            items.found.insert(WorkItem::AuthPolicy(key.clone()));
            items.every_extension();
        }
        Kind::Gateway => items.by_gateway(key),
        Kind::ReferenceGrant => items.by_grant(&key.namespace),
        Kind::HttpRoute => items.by_route(key),
        Kind::Namespace => items.by_namespace(&key.name),
        Kind::Secret => items.by_secret(key),
        Kind::ConfigMap => items.by_config_map(key),
        Kind::Service => items.by_service(key),
        Kind::ServiceAccount
        | Kind::Role
        | Kind::RoleBinding
        | Kind::NetworkPolicy
        | Kind::Deployment
        | Kind::PodDisruptionBudget => items.extensions_in(&key.namespace),
        Kind::EndpointSlice => {
            items.found.insert(WorkItem::Brokers(key.namespace.clone()));
            items.extensions_in(&key.namespace);
        }
        Kind::EnvoyFilter => items.by_envoy_filter(key, object),
        Kind::ValidatingWebhooks | Kind::MutatingWebhooks => items.by_webhooks(key, object),
    }
    items.found
}

/// True for the HTTPRoutes that the operator manages, by name.
pub(crate) fn is_managed_route(name: &str) -> bool {
    name == names::ROUTE || name == names::TOKENS_ROUTE
}

struct Items<'a> {
    world: &'a World,
    found: BTreeSet<WorkItem>,
}

impl Items<'_> {
    fn extension(&mut self, extension: &MCPGatewayExtension) {
        self.found
            .insert(WorkItem::Extension(ObjectKey::of(&extension.metadata)));
    }

    fn every_extension(&mut self) {
        let world = self.world;
        world.extensions().for_each(|extension| self.extension(extension));
    }

    fn extensions_in(&mut self, namespace: &str) {
        let world = self.world;
        world
            .extensions_in(namespace)
            .for_each(|extension| self.extension(extension));
    }

    fn extensions_of(&mut self, gateway: &ObjectKey) {
        let world = self.world;
        world
            .extensions_of(gateway)
            .for_each(|extension| self.extension(extension));
    }

    /// The extension, its rivals, the registrations of its Gateway, all virtual servers, the claims.
    fn by_extension(&mut self, key: &ObjectKey) {
        self.found.insert(WorkItem::Extension(key.clone()));
        self.found.insert(WorkItem::Claims);
        self.extensions_in(&key.namespace);
        self.policies_on(PolicyTargetKind::MCPGatewayExtension, key);
        if let Some(extension) = self.world.extension(key) {
            let gateway = gateway_of(extension);
            self.policies_on(PolicyTargetKind::Gateway, &gateway);
            self.extensions_of(&gateway);
            self.found.insert(WorkItem::ListenerStatus(gateway.clone()));
            self.registrations_on(&gateway);
        }
        let servers = self
            .world
            .virtual_servers()
            .map(|server| ObjectKey::of(&server.metadata));
        self.found.extend(servers.map(WorkItem::VirtualServer));
    }

    /// The registration, its rivals, the extensions that may serve it, its route's status.
    fn by_registration(&mut self, key: &ObjectKey) {
        self.found.insert(WorkItem::Registration(key.clone()));
        self.policies_on(PolicyTargetKind::MCPServerRegistration, key);
        let Some(registration) = self.world.registration(key).cloned() else {
            return;
        };
        self.registration_and_extensions(&registration);
        let route = route_of(&registration);
        let world = self.world;
        let gateways = |of: &ObjectKey| {
            world
                .route(of)
                .map(|route| gateways_of(route))
                .unwrap_or_default()
        };
        let here = gateways(&route);
        // A prefix is contested only on one Gateway.
        let meets = |other: &&Arc<MCPServerRegistration>| {
            gateways(&route_of(other))
                .iter()
                .any(|gateway| here.contains(gateway))
        };
        let prefix = registration.spec.prefix.as_deref().unwrap_or_default();
        let same_prefix = world.registrations_with_prefix(prefix).filter(meets);
        let rivals: Vec<Arc<MCPServerRegistration>> = world
            .registrations_of(&route)
            .chain(same_prefix)
            .cloned()
            .collect();
        for rival in rivals {
            self.registration_and_extensions(&rival);
        }
    }

    /// The registration, our entry in its route, and the extensions that may serve it.
    fn registration_and_extensions(&mut self, registration: &MCPServerRegistration) {
        self.found
            .insert(WorkItem::Registration(ObjectKey::of(&registration.metadata)));
        self.found.insert(WorkItem::RouteStatus(route_of(registration)));
        if let Some(route) = self.world.route(&route_of(registration)) {
            gateways_of(route)
                .iter()
                .for_each(|gateway| self.extensions_of(gateway));
        }
    }

    fn registrations_on(&mut self, gateway: &ObjectKey) {
        let world = self.world;
        for route in world.routes().filter(|route| names_gateway(route, gateway)) {
            for registration in world.registrations_of(&route.key) {
                self.found
                    .insert(WorkItem::Registration(ObjectKey::of(&registration.metadata)));
                self.found.insert(WorkItem::RouteStatus(route.key.clone()));
            }
        }
    }

    fn by_gateway(&mut self, key: &ObjectKey) {
        self.extensions_of(key);
        self.policies_on(PolicyTargetKind::Gateway, key);
        self.registrations_on(key);
        self.found.insert(WorkItem::ListenerStatus(key.clone()));
        self.found.insert(WorkItem::Claims);
    }

    /// Everything whose reference goes into the namespace of a grant, whichever entry matches.
    fn by_grant(&mut self, namespace: &str) {
        let world = self.world;
        // Routes of other namespaces that lead to the broker here.
        self.extensions_in(namespace);
        for extension in world
            .extensions()
            .filter(|extension| gateway_of(extension).namespace == namespace)
        {
            let gateway = gateway_of(extension);
            self.extensions_of(&gateway);
            self.registrations_on(&gateway);
        }
        for registration in world.registrations() {
            let route = route_of(registration);
            let to_service = world.route(&route).is_some_and(|route| {
                backends_of(route)
                    .iter()
                    .any(|service| service.namespace == namespace)
            });
            if route.namespace == namespace || to_service {
                self.registration_and_extensions(registration);
            }
        }
        self.found.insert(WorkItem::Claims);
    }

    /// Registrations of the route, the owner when it is managed, and the extensions whose public hosts it may carry.
    fn by_route(&mut self, key: &ObjectKey) {
        let world = self.world;
        self.found.insert(WorkItem::RouteStatus(key.clone()));
        for registration in world.registrations_of(key) {
            self.registration_and_extensions(registration);
        }
        self.extensions_in(&key.namespace);
        if let Some(route) = world.route(key) {
            let to_broker = backends_of(route)
                .into_iter()
                .filter(|service| service.name == names::BROKER);
            to_broker.for_each(|service| self.extensions_in(&service.namespace));
        }
    }

    fn by_namespace(&mut self, namespace: &str) {
        let world = self.world;
        self.extensions_in(namespace);
        for extension in world
            .extensions()
            .filter(|extension| gateway_of(extension).namespace == namespace)
        {
            self.extension(extension);
        }
        for registration in world
            .registrations()
            .filter(|other| route_of(other).namespace == namespace)
        {
            self.registration_and_extensions(registration);
        }
    }

    /// Whoever names the Secret, and the owner of a generated one.
    fn by_secret(&mut self, key: &ObjectKey) {
        if key.name == webhooks::CERT_SECRET {
            self.found.insert(WorkItem::WebhookCertificates);
        }
        let world = self.world;
        self.policies_that(|policy| references(policy).0.contains(key));
        for extension in world
            .extensions_in(&key.namespace)
            .filter(|extension| names_secret(extension, &key.name))
        {
            self.extension(extension);
        }
        let in_namespace = |other: &&Arc<MCPServerRegistration>| {
            other.metadata.namespace.as_deref() == Some(key.namespace.as_str())
        };
        for registration in world.registrations().filter(in_namespace) {
            let spec = &registration.spec;
            let named = spec
                .credential_ref
                .as_ref()
                .is_some_and(|reference| reference.name == key.name)
                || spec
                    .ca_cert_secret_ref
                    .as_ref()
                    .is_some_and(|reference| reference.name == key.name);
            if named {
                self.registration_and_extensions(registration);
            }
        }
    }

    /// Policies whose keys it holds, and whoever is closed by them.
    fn by_config_map(&mut self, key: &ObjectKey) {
        self.policies_that(|policy| references(policy).1.contains(key));
    }

    /// Policies attached to this object.
    fn policies_on(&mut self, kind: PolicyTargetKind, key: &ObjectKey) {
        let on = |policy: &MCPAuthPolicy| {
            let own = policy.metadata.namespace.as_deref() == Some(key.namespace.as_str());
            let mut targets = policy.spec.target_refs.iter();
            own && targets.any(|target| target.kind == kind && target.name == key.name)
        };
        let world = self.world;
        let named = world.policies().filter(|policy| on(policy));
        self.found
            .extend(named.map(|policy| WorkItem::AuthPolicy(ObjectKey::of(&policy.metadata))));
    }

    /// Policies for which `named` holds, and every extension, because each decides which of them concern it.
    fn policies_that(&mut self, named: impl Fn(&MCPAuthPolicy) -> bool) {
        let world = self.world;
        let found: Vec<WorkItem> = world
            .policies()
            .filter(|policy| named(policy))
            .map(|policy| WorkItem::AuthPolicy(ObjectKey::of(&policy.metadata)))
            .collect();
        if !found.is_empty() {
            self.found.extend(found);
            self.every_extension();
        }
    }

    /// Registrations whose route has the Service as backend, extensions whose Gateway it serves, its owner.
    fn by_service(&mut self, key: &ObjectKey) {
        let world = self.world;
        for route in world.routes().filter(|route| names_service(route, key)) {
            for registration in world.registrations_of(&route.key) {
                self.registration_and_extensions(registration);
            }
        }
        for extension in world.extensions() {
            let gateway = gateway_of(extension);
            let labelled = world
                .services_of_gateway(&gateway)
                .any(|service| service.key == *key);
            if gateway.namespace == key.namespace && (labelled || key.name.starts_with(&gateway.name)) {
                self.extension(extension);
            }
        }
        if key.name == names::BROKER {
            self.extensions_in(&key.namespace);
        }
    }

    /// What keeps the webhook configurations, when one of ours changes or one that OLM made.
    fn by_webhooks(&mut self, key: &ObjectKey, object: Option<&Value>) {
        let labels = object.and_then(|object| object.pointer("/metadata/labels"));
        let is_olms = labels.is_some_and(|labels| labels.get(OWNER_NAMESPACE_LABEL).is_some());
        if is_olms || key.name.starts_with(webhooks::NAME) {
            let both = [WorkItem::WebhookCertificates, WorkItem::SupplementaryWebhooks];
            self.found.extend(both);
        }
    }

    /// The extension by annotation, and whoever would write a filter of that name.
    fn by_envoy_filter(&mut self, key: &ObjectKey, object: Option<&Value>) {
        let world = self.world;
        let named = object.and_then(extension_of);
        self.found.extend(named.map(WorkItem::Extension));
        for extension in world.extensions() {
            let gateway = gateway_of(extension);
            let own = extension.metadata.namespace.as_deref().unwrap_or_default();
            if gateway.namespace == key.namespace && names::envoy_filter_name(own) == key.name {
                self.extension(extension);
                self.found.insert(WorkItem::ListenerStatus(gateway));
            }
        }
    }
}

/// The extension that an EnvoyFilter says it belongs to.
pub(crate) fn extension_of(filter: &Value) -> Option<ObjectKey> {
    let annotations = filter.pointer("/metadata/annotations")?;
    ObjectKey::parse(annotations.get(names::EXTENSION_ANNOTATION)?.as_str()?)
}

fn names_secret(extension: &MCPGatewayExtension, name: &str) -> bool {
    let spec = &extension.spec;
    let trusted = spec.trusted_headers_key.as_ref();
    name == names::CONFIG_SECRET
        || name == names::SIGNING_KEY_SECRET
        || trusted.is_some_and(|key| {
            name == key.secret_name || name == trusted_headers::private_name(&key.secret_name)
        })
        || spec
            .session_store
            .as_ref()
            .is_some_and(|store| store.secret_name == name)
        || spec
            .ca_cert_bundle_ref
            .as_ref()
            .is_some_and(|bundle| bundle.name == name)
}

/// Every Gateway in the route's status, accepted or not.
fn gateways_of(route: &HttpRoute) -> BTreeSet<ObjectKey> {
    let parents = route.parents.iter();
    parents
        .filter_map(|parent| parent.parent_ref.gateway(&route.key.namespace))
        .collect()
}

/// True when some parent of the route is this Gateway. Names are compared first: this runs over every route.
fn names_gateway(route: &HttpRoute, gateway: &ObjectKey) -> bool {
    route.parents.iter().any(|parent| {
        parent.parent_ref.name == gateway.name
            && parent.parent_ref.gateway(&route.key.namespace).as_ref() == Some(gateway)
    })
}

/// True when some backend of the route is this Service.
fn names_service(route: &HttpRoute, service: &ObjectKey) -> bool {
    let mut references = route.rules.iter().flat_map(|rule| &rule.backend_refs);
    references.any(|reference| {
        reference.name == service.name && reference.service(&route.key.namespace).as_ref() == Some(service)
    })
}

fn backends_of(route: &HttpRoute) -> BTreeSet<ObjectKey> {
    let references = route.rules.iter().flat_map(|rule| &rule.backend_refs);
    references
        .filter_map(|reference| reference.service(&route.key.namespace))
        .collect()
}

#[cfg(test)]
mod tests;
