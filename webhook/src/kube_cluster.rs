//! [`Cluster`] over a Kubernetes client.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{
    admission::ObjectFact,
    claims::{self, Claim, ClaimKey},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    names,
    object_key::ObjectKey,
};
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError};

/// A cluster behind a client.
#[derive(Clone)]
pub(crate) struct KubeCluster {
    client: Client,
    claims_namespace: String,
    gateways: ApiResource,
    extensions: ApiResource,
}

impl KubeCluster {
    pub(crate) fn new(client: Client, claims_namespace: String) -> Self {
        let gateway = GroupVersionKind::gvk(names::GATEWAY_API_GROUP, "v1", "Gateway");
        let extension = GroupVersionKind::gvk(names::GROUP, names::VERSION, "MCPGatewayExtension");
        Self {
            client,
            claims_namespace,
            gateways: ApiResource::from_gvk_with_plural(&gateway, "gateways"),
            extensions: ApiResource::from_gvk_with_plural(&extension, names::EXTENSIONS),
        }
    }

    async fn object(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
        action: &'static str,
    ) -> Result<Option<Value>, ClusterError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, resource);
        let found = absent_is_none(api.get(&key.name).await, action)?;
        found
            .map(|object| serde_json::to_value(object).map_err(|error| failed(action, error)))
            .transpose()
    }

    fn claims(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.claims_namespace)
    }
}

impl Cluster for KubeCluster {
    async fn extension(&self, key: &ObjectKey) -> Result<Option<MCPGatewayExtension>, ClusterError> {
        let found = self.object(&self.extensions, key, "get an extension").await?;
        let undecodable = |_| ClusterError::Undecodable {
            what: "MCPGatewayExtension",
            key: key.clone(),
        };
        found
            .map(|object| serde_json::from_value(object).map_err(undecodable))
            .transpose()
    }

    async fn gateway(&self, key: &ObjectKey) -> Result<Option<Gateway>, ClusterError> {
        let found = self.object(&self.gateways, key, "get a Gateway").await?;
        let undecodable = |_| ClusterError::Undecodable {
            what: "Gateway",
            key: key.clone(),
        };
        found
            .map(|object| Gateway::from_value(&object).map_err(undecodable))
            .transpose()
    }

    async fn secret(&self, key: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api
            .get_metadata_opt(&key.name)
            .await
            .map_err(|error| failed("look up a Secret", error))?;
        Ok(found.map_or(ObjectFact::Missing, |object| {
            ObjectFact::present(&object.metadata)
        }))
    }

    async fn config_map(&self, key: &ObjectKey) -> Result<ObjectFact, ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api
            .get_metadata_opt(&key.name)
            .await
            .map_err(|error| failed("look up a ConfigMap", error))?;
        Ok(found.map_or(ObjectFact::Missing, |object| {
            ObjectFact::present(&object.metadata)
        }))
    }

    async fn envoy_filter_served(&self) -> Result<bool, ClusterError> {
        envoy_filter_served(&self.client)
            .await
            .map_err(|error| failed("look for EnvoyFilter", error))
    }

    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, ClusterError> {
        let found = absent_is_none(self.claims().get(&key.lease_name()).await, "read a claim")?;
        Ok(found.as_ref().map(Claim::of))
    }

    async fn write_claim(&self, lease: Lease) -> Result<Option<String>, ClusterError> {
        let params = PostParams::default();
        let api = self.claims();
        let written = if lease.metadata.resource_version.is_none() {
            api.create(&params, &lease).await
        } else {
            let name = lease.metadata.name.clone().unwrap_or_default();
            api.replace(&name, &params, &lease).await
        };
        match written {
            Ok(lease) => Ok(Some(lease.metadata.resource_version.unwrap_or_default())),
            // Exists already, has changed since, or is gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(failed("write a claim", error)),
        }
    }

    async fn delete_claim(&self, key: &ClaimKey, resource_version: &str) -> Result<(), ClusterError> {
        match self
            .claims()
            .delete(&key.lease_name(), &claims::deletable_at(resource_version))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(failed("give back a claim", error)),
        }
    }

    fn claims_namespace(&self) -> &str {
        &self.claims_namespace
    }
}

/// Asks the API server whether it serves kind EnvoyFilter.
pub(crate) async fn envoy_filter_served(client: &Client) -> Result<bool, kube::Error> {
    match client
        .list_api_group_resources("networking.istio.io/v1alpha3")
        .await
    {
        Ok(list) => Ok(list
            .resources
            .iter()
            .any(|resource| resource.name == "envoyfilters")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

fn absent_is_none<T>(got: Result<T, kube::Error>, action: &'static str) -> Result<Option<T>, ClusterError> {
    match got {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(failed(action, error)),
    }
}

fn failed(action: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> ClusterError {
    ClusterError::Api {
        action,
        source: Box::new(source),
    }
}
