//! The admission webhook of the MCP gateway: it judges every write of our four kinds by the rules of
//! `mcp_gateway_api::admission` and makes exclusivity exact by claims. Any number of replicas, no leader.

pub mod cache;
pub mod claims;
pub mod cluster;
pub mod decision;
pub mod health;
mod lookup;
pub mod metrics;
pub mod options;
pub mod review;
pub mod run;
pub mod service;
pub mod tls;

mod kube_cluster;
mod logging;
mod record;
