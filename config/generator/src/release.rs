//! What a release says about itself, wherever it says it (chart, bundle, catalog): identity, people, links.

/// Package in catalogs, chart name, prefix of CSV names.
pub(crate) const PACKAGE: &str = "mcp-gateway";
/// The one channel, and the default one.
pub(crate) const CHANNEL: &str = "preview";
/// Oldest supported Kubernetes: CEL ratcheting is on by default since 1.30.
pub(crate) const MIN_KUBE_VERSION: &str = "1.30.0";
/// Home of the source.
pub(crate) const REPOSITORY: &str = "https://github.com/mcp-gateway-operator/mcp-gateway-operator";
/// Who maintains it.
pub(crate) const MAINTAINER: &str = "MCP Gateway Operator maintainers";
/// How to reach them.
pub(crate) const EMAIL: &str = "mcp-gateway-operator@users.noreply.github.com";
/// Who provides it.
pub(crate) const VENDOR: &str = "MCP Gateway Operator";
