//! What every part of the MCP gateway shares: names, the config contract between operator and broker, and, behind
//! the feature `k8s`, the custom resources and the rules that webhook and operator judge them by. No client, no
//! clock, no I/O.

pub mod authorization;
pub mod broker_status;
pub mod config;
pub mod envoy_filter;
pub mod member_names;
pub mod names;
pub mod strict_json;

#[cfg(feature = "k8s")]
pub mod acceptance;
#[cfg(feature = "k8s")]
pub mod admission;
#[cfg(feature = "k8s")]
pub mod attachment;
#[cfg(feature = "k8s")]
pub mod auth_policy;
#[cfg(feature = "k8s")]
pub mod claims;
#[cfg(feature = "k8s")]
pub mod conditions;
#[cfg(feature = "k8s")]
pub mod crds;
#[cfg(feature = "k8s")]
pub mod extension;
#[cfg(all(test, feature = "k8s"))]
mod fixtures;
#[cfg(feature = "k8s")]
pub mod gateway;
#[cfg(feature = "k8s")]
pub mod grant;
#[cfg(feature = "k8s")]
pub mod hosts;
#[cfg(feature = "k8s")]
pub mod intake;
pub mod log_level;
#[cfg(feature = "k8s")]
pub mod object_key;
#[cfg(feature = "k8s")]
pub mod references;
#[cfg(feature = "k8s")]
pub mod registration;
#[cfg(feature = "k8s")]
pub mod resolution;
#[cfg(feature = "k8s")]
pub mod route;
#[cfg(feature = "k8s")]
pub mod selector;
#[cfg(feature = "k8s")]
pub mod service;
#[cfg(feature = "k8s")]
pub mod virtual_server;
#[cfg(feature = "k8s")]
pub mod webhooks;
#[cfg(feature = "k8s")]
pub mod world;
