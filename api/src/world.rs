//! The read-only snapshot that every rule is judged over, with the indexes that keep a judgement cheap. Webhook and
//! operator feed it from watches, `mcpgw lint` from files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    auth_policy::MCPAuthPolicy, extension::MCPGatewayExtension, gateway::Gateway, grant::ReferenceGrant,
    object_key::ObjectKey, registration::MCPServerRegistration, route::HttpRoute, selector::Labels,
    service::Service, virtual_server::MCPVirtualServer,
};

type Index<K = ObjectKey> = BTreeMap<K, BTreeSet<ObjectKey>>;

/// Everything the rules read, by key.
#[derive(Clone, Debug, Default)]
pub struct World {
    extensions: BTreeMap<ObjectKey, Arc<MCPGatewayExtension>>,
    extensions_by_gateway: Index,
    gateways: BTreeMap<ObjectKey, Arc<Gateway>>,
    grants: BTreeMap<ObjectKey, Arc<ReferenceGrant>>,
    namespaces: BTreeMap<String, Labels>,
    routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    registrations: BTreeMap<ObjectKey, Arc<MCPServerRegistration>>,
    registrations_by_route: Index,
    registrations_by_prefix: Index<String>,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    services_by_gateway: Index,
    virtual_servers: BTreeMap<ObjectKey, Arc<MCPVirtualServer>>,
    policies: BTreeMap<ObjectKey, Arc<MCPAuthPolicy>>,
}

/// The Gateway that an extension names; its own namespace when it names none (T10).
#[must_use]
pub fn gateway_of(extension: &MCPGatewayExtension) -> ObjectKey {
    let target = &extension.spec.target_ref;
    let own = extension.metadata.namespace.as_deref().unwrap_or_default();
    ObjectKey::new(target.namespace.as_deref().unwrap_or(own), target.name.as_str())
}

/// The HTTPRoute that a registration names; its own namespace when it names none (T13).
#[must_use]
pub fn route_of(registration: &MCPServerRegistration) -> ObjectKey {
    let target = &registration.spec.target_ref;
    let own = registration.metadata.namespace.as_deref().unwrap_or_default();
    ObjectKey::new(target.namespace.as_deref().unwrap_or(own), target.name.as_str())
}

impl World {
    /// Adds or replaces an extension.
    pub fn set_extension(&mut self, extension: Arc<MCPGatewayExtension>) {
        let key = ObjectKey::of(&extension.metadata);
        self.remove_extension(&key);
        link(&mut self.extensions_by_gateway, gateway_of(&extension), &key);
        self.extensions.insert(key, extension);
    }

    /// Removes an extension and returns it.
    pub fn remove_extension(&mut self, key: &ObjectKey) -> Option<Arc<MCPGatewayExtension>> {
        let former = self.extensions.remove(key)?;
        unlink(&mut self.extensions_by_gateway, &gateway_of(&former), key);
        Some(former)
    }

    /// Adds or replaces a registration.
    pub fn set_registration(&mut self, registration: Arc<MCPServerRegistration>) {
        let key = ObjectKey::of(&registration.metadata);
        self.remove_registration(&key);
        link(&mut self.registrations_by_route, route_of(&registration), &key);
        if let Some(prefix) = prefix_of(&registration) {
            link(&mut self.registrations_by_prefix, prefix.to_owned(), &key);
        }
        self.registrations.insert(key, registration);
    }

    /// Removes a registration and returns it.
    pub fn remove_registration(&mut self, key: &ObjectKey) -> Option<Arc<MCPServerRegistration>> {
        let former = self.registrations.remove(key)?;
        unlink(&mut self.registrations_by_route, &route_of(&former), key);
        if let Some(prefix) = prefix_of(&former) {
            unlink(&mut self.registrations_by_prefix, &prefix.to_owned(), key);
        }
        Some(former)
    }

    /// Adds or replaces a Service.
    pub fn set_service(&mut self, service: Arc<Service>) {
        self.remove_service(&service.key);
        if let Some(gateway) = gateway_of_service(&service) {
            link(&mut self.services_by_gateway, gateway, &service.key);
        }
        self.services.insert(service.key.clone(), service);
    }

    /// Removes a Service and returns it.
    pub fn remove_service(&mut self, key: &ObjectKey) -> Option<Arc<Service>> {
        let former = self.services.remove(key)?;
        if let Some(gateway) = gateway_of_service(&former) {
            unlink(&mut self.services_by_gateway, &gateway, key);
        }
        Some(former)
    }

    /// Adds or replaces a Gateway.
    pub fn set_gateway(&mut self, gateway: Arc<Gateway>) {
        self.gateways.insert(gateway.key.clone(), gateway);
    }

    /// Removes a Gateway and returns it.
    pub fn remove_gateway(&mut self, key: &ObjectKey) -> Option<Arc<Gateway>> {
        self.gateways.remove(key)
    }

    /// Adds or replaces a ReferenceGrant.
    pub fn set_grant(&mut self, grant: Arc<ReferenceGrant>) {
        self.grants.insert(grant.key.clone(), grant);
    }

    /// Removes a ReferenceGrant and returns it.
    pub fn remove_grant(&mut self, key: &ObjectKey) -> Option<Arc<ReferenceGrant>> {
        self.grants.remove(key)
    }

    /// Adds or replaces the labels of a namespace.
    pub fn set_namespace(&mut self, name: impl Into<String>, labels: Labels) {
        self.namespaces.insert(name.into(), labels);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) -> Option<Labels> {
        self.namespaces.remove(name)
    }

    /// Adds or replaces an HTTPRoute.
    pub fn set_route(&mut self, route: Arc<HttpRoute>) {
        self.routes.insert(route.key.clone(), route);
    }

    /// Removes an HTTPRoute and returns it.
    pub fn remove_route(&mut self, key: &ObjectKey) -> Option<Arc<HttpRoute>> {
        self.routes.remove(key)
    }

    /// Adds or replaces a virtual server.
    pub fn set_virtual_server(&mut self, server: Arc<MCPVirtualServer>) {
        self.virtual_servers
            .insert(ObjectKey::of(&server.metadata), server);
    }

    /// Removes a virtual server and returns it.
    pub fn remove_virtual_server(&mut self, key: &ObjectKey) -> Option<Arc<MCPVirtualServer>> {
        self.virtual_servers.remove(key)
    }

    /// Adds or replaces a policy.
    pub fn set_policy(&mut self, policy: Arc<MCPAuthPolicy>) {
        self.policies.insert(ObjectKey::of(&policy.metadata), policy);
    }

    /// Removes a policy and returns it.
    pub fn remove_policy(&mut self, key: &ObjectKey) -> Option<Arc<MCPAuthPolicy>> {
        self.policies.remove(key)
    }

    /// The extension with this key.
    #[must_use]
    pub fn extension(&self, key: &ObjectKey) -> Option<&Arc<MCPGatewayExtension>> {
        self.extensions.get(key)
    }

    /// Every extension.
    pub fn extensions(&self) -> impl Iterator<Item = &Arc<MCPGatewayExtension>> {
        self.extensions.values()
    }

    /// The extensions of one namespace.
    pub fn extensions_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<MCPGatewayExtension>> {
        in_namespace(&self.extensions, namespace)
    }

    /// The extensions that name this Gateway.
    pub fn extensions_of<'a>(
        &'a self,
        gateway: &ObjectKey,
    ) -> impl Iterator<Item = &'a Arc<MCPGatewayExtension>> {
        linked(&self.extensions_by_gateway, gateway, &self.extensions)
    }

    /// The Gateway with this key.
    #[must_use]
    pub fn gateway(&self, key: &ObjectKey) -> Option<&Arc<Gateway>> {
        self.gateways.get(key)
    }

    /// Every Gateway.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }

    /// The grants of one namespace.
    pub fn grants_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<ReferenceGrant>> {
        in_namespace(&self.grants, namespace)
    }

    /// The labels of a namespace; none when it is not known.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }

    /// The HTTPRoute with this key.
    #[must_use]
    pub fn route(&self, key: &ObjectKey) -> Option<&Arc<HttpRoute>> {
        self.routes.get(key)
    }

    /// Every HTTPRoute.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<HttpRoute>> {
        self.routes.values()
    }

    /// The registration with this key.
    #[must_use]
    pub fn registration(&self, key: &ObjectKey) -> Option<&Arc<MCPServerRegistration>> {
        self.registrations.get(key)
    }

    /// Every registration.
    pub fn registrations(&self) -> impl Iterator<Item = &Arc<MCPServerRegistration>> {
        self.registrations.values()
    }

    /// The registrations that name this route.
    pub fn registrations_of<'a>(
        &'a self,
        route: &ObjectKey,
    ) -> impl Iterator<Item = &'a Arc<MCPServerRegistration>> {
        linked(&self.registrations_by_route, route, &self.registrations)
    }

    /// The registrations with this prefix, whatever serves them.
    pub fn registrations_with_prefix<'a>(
        &'a self,
        prefix: &str,
    ) -> impl Iterator<Item = &'a Arc<MCPServerRegistration>> {
        let keys = self.registrations_by_prefix.get(prefix);
        keys.into_iter()
            .flatten()
            .filter_map(|key| self.registrations.get(key))
    }

    /// The Service with this key.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key).map(Arc::as_ref)
    }

    /// The Services that are labelled for this Gateway, in its namespace.
    pub fn services_of_gateway<'a>(&'a self, gateway: &ObjectKey) -> impl Iterator<Item = &'a Service> {
        linked(&self.services_by_gateway, gateway, &self.services).map(Arc::as_ref)
    }

    /// Every virtual server.
    pub fn virtual_servers(&self) -> impl Iterator<Item = &Arc<MCPVirtualServer>> {
        self.virtual_servers.values()
    }

    /// The virtual server with this key.
    #[must_use]
    pub fn virtual_server(&self, key: &ObjectKey) -> Option<&Arc<MCPVirtualServer>> {
        self.virtual_servers.get(key)
    }

    /// Every policy.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<MCPAuthPolicy>> {
        self.policies.values()
    }

    /// The policy with this key.
    #[must_use]
    pub fn policy(&self, key: &ObjectKey) -> Option<&Arc<MCPAuthPolicy>> {
        self.policies.get(key)
    }
}

fn gateway_of_service(service: &Service) -> Option<ObjectKey> {
    service
        .gateway_name
        .as_ref()
        .map(|name| ObjectKey::new(service.key.namespace.as_str(), name.as_str()))
}

/// The prefix of a registration, if it has one.
fn prefix_of(registration: &MCPServerRegistration) -> Option<&str> {
    registration
        .spec
        .prefix
        .as_deref()
        .filter(|prefix| !prefix.is_empty())
}

fn link<K: Ord>(index: &mut Index<K>, to: K, key: &ObjectKey) {
    index.entry(to).or_default().insert(key.clone());
}

fn unlink<K: Ord>(index: &mut Index<K>, to: &K, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(to) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(to);
        }
    }
}

fn linked<'a, T>(
    index: &'a Index,
    to: &ObjectKey,
    objects: &'a BTreeMap<ObjectKey, Arc<T>>,
) -> impl Iterator<Item = &'a Arc<T>> {
    index
        .get(to)
        .into_iter()
        .flatten()
        .filter_map(|key| objects.get(key))
}

fn in_namespace<'a, T>(
    objects: &'a BTreeMap<ObjectKey, T>,
    namespace: &'a str,
) -> impl Iterator<Item = &'a T> {
    objects
        .range(ObjectKey::new(namespace, "")..)
        .take_while(move |(key, _)| key.namespace == namespace)
        .map(|(_, object)| object)
}
