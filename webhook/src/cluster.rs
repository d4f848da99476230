//! What a judgement asks the API server for, live: never from a cache, because claims rest on it. A trait, so that
//! the whole service runs in tests against a store in memory.

use std::future::Future;

use k8s_openapi::api::coordination::v1::Lease;
use mcp_gateway_api::{
    admission::ObjectFact,
    claims::{Claim, ClaimKey},
    extension::MCPGatewayExtension,
    gateway::Gateway,
    object_key::ObjectKey,
};
use thiserror::Error;

/// Why something could not be had.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The API server refused or could not be reached.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stored object is not one of ours by its shape.
    #[error("cannot decode {what} {key}")]
    Undecodable {
        /// Its kind.
        what: &'static str,
        /// Which one.
        key: ObjectKey,
    },
    /// The answer did not come in time.
    #[error("no answer in time")]
    Deadline,
}

/// Live access to the cluster.
pub trait Cluster: Send + Sync + 'static {
    /// The extension, `None` when it does not exist.
    fn extension(
        &self,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<MCPGatewayExtension>, ClusterError>> + Send;

    /// The Gateway, `None` when it, or its kind, does not exist.
    fn gateway(&self, key: &ObjectKey) -> impl Future<Output = Result<Option<Gateway>, ClusterError>> + Send;

    /// Existence and labels of a Secret; its content is never asked for.
    fn secret(&self, key: &ObjectKey) -> impl Future<Output = Result<ObjectFact, ClusterError>> + Send;

    /// Existence of a ConfigMap.
    fn config_map(&self, key: &ObjectKey) -> impl Future<Output = Result<ObjectFact, ClusterError>> + Send;

    /// Whether kind EnvoyFilter is served.
    fn envoy_filter_served(&self) -> impl Future<Output = Result<bool, ClusterError>> + Send;

    /// The claim on `key`.
    fn claim(&self, key: &ClaimKey) -> impl Future<Output = Result<Option<Claim>, ClusterError>> + Send;

    /// Creates (no resourceVersion) or replaces (under its resourceVersion) a claim. `Ok(None)`: somebody else was
    /// faster; read again. `Ok(Some)`: the new resourceVersion.
    fn write_claim(&self, lease: Lease) -> impl Future<Output = Result<Option<String>, ClusterError>> + Send;

    /// Deletes a claim if it still has this resourceVersion.
    fn delete_claim(
        &self,
        key: &ClaimKey,
        resource_version: &str,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Namespace in which claims live.
    fn claims_namespace(&self) -> &str;
}
