//! Fixed names: API group, labels, annotations, child objects, ports and images. Scripts and users' manifests rely
//! on them; nothing else in the workspace spells them out a second time.

/// API group of our kinds.
pub const GROUP: &str = "mcp.kuadrant.io";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// API group of Gateway API.
pub const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
/// Group of an older system; grants that name it grant nothing, and messages point out the right group.
pub const RETIRED_GROUP: &str = "mcp.kagenti.com";

/// Plural of `MCPGatewayExtension`.
pub const EXTENSIONS: &str = "mcpgatewayextensions";
/// Plural of `MCPServerRegistration`.
pub const REGISTRATIONS: &str = "mcpserverregistrations";
/// Plural of `MCPVirtualServer`.
pub const VIRTUAL_SERVERS: &str = "mcpvirtualservers";
/// Plural of `MCPAuthPolicy`.
pub const AUTH_POLICIES: &str = "mcpauthpolicies";

/// Name of the operator's Deployment, ServiceAccount and roles.
pub const OPERATOR: &str = "mcp-gateway-controller";
/// Lease of the operator's leader election.
pub const OPERATOR_LEASE: &str = "mcp-gateway-operator";
/// Annotation of [`OPERATOR_LEASE`] while the installation goes: no finalizer is taken any more.
pub const UNINSTALLING_ANNOTATION: &str = "mcp.kuadrant.io/uninstalling";
/// Annotation of [`OPERATOR_LEASE`] once that is done: UID of the Deployment [`OPERATOR`] that goes, empty when there was none.
/// An operator of another Deployment does not wait for the Lease to run out.
pub const UNINSTALLED_ANNOTATION: &str = "mcp.kuadrant.io/uninstalled";

/// Field manager of every server-side apply of the operator.
pub const FIELD_MANAGER: &str = "mcp-gateway-operator";
/// `controllerName` of our own entries in `HTTPRoute.status.parents`.
pub const CONTROLLER_NAME: &str = "mcp.kuadrant.io/mcp-gateway-operator";
/// Finalizer on extensions, because their EnvoyFilter may lie in another namespace.
pub const FINALIZER: &str = "mcp.kuadrant.io/finalizer";

/// Annotation with which the owner of a Gateway relaxes the Gateway rule ([`SCOPE_GATEWAY`], [`SCOPE_LISTENER`]).
pub const SCOPE_ANNOTATION: &str = "mcp.kuadrant.io/extension-scope";
/// One extension per Gateway (the default).
pub const SCOPE_GATEWAY: &str = "Gateway";
/// One extension per listener port.
pub const SCOPE_LISTENER: &str = "Listener";

/// Label that marks a Secret as meant for us.
pub const SECRET_LABEL: &str = "mcp.kuadrant.io/secret";
/// Label of the config Secret.
pub const AGGREGATED_LABEL: &str = "mcp.kuadrant.io/aggregated";
/// Label of an EnvoyFilter: name of its extension.
pub const EXTENSION_NAME_LABEL: &str = "mcp.kuadrant.io/extension-name";
/// Label of an EnvoyFilter: namespace of its extension.
pub const EXTENSION_NAMESPACE_LABEL: &str = "mcp.kuadrant.io/extension-namespace";
/// Annotation of an EnvoyFilter: `<namespace>/<name>` of its extension in full.
pub const EXTENSION_ANNOTATION: &str = "mcp.kuadrant.io/extension";
/// Annotation of an EnvoyFilter: `<namespace>/<name>` of its Gateway in full.
pub const GATEWAY_ANNOTATION: &str = "mcp.kuadrant.io/gateway";
/// Annotation of the broker Deployment: sorted comma-separated list of the flags that we have emitted.
pub const OWNED_FLAGS_ANNOTATION: &str = "mcp.kuadrant.io/owned-flags";
/// Annotation of the broker's pod template: keyed hash over the Secret values that its env refers to.
pub const ENV_SECRETS_HASH_ANNOTATION: &str = "mcp.kuadrant.io/env-secrets-hash";

/// Common label, key and value, on every child object.
pub const NAME_LABEL: (&str, &str) = ("app.kubernetes.io/name", "mcp-gateway");
/// Common label, key and value, on every child object.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", OPERATOR);
/// Label of the Services that belong to a Gateway.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// Name of ServiceAccount, Role, RoleBinding, Deployment, Service, NetworkPolicy, PodDisruptionBudget and of the broker's
/// container.
pub const BROKER: &str = "mcp-gateway";
/// Secret with the broker's configuration.
pub const CONFIG_SECRET: &str = "mcp-gateway-config";
/// Key of the document in [`CONFIG_SECRET`].
pub const CONFIG_KEY: &str = "config.yaml";
/// Secret with the key that signs client sessions and hairpin tokens.
pub const SIGNING_KEY_SECRET: &str = "mcp-gateway-session-signing-key";
/// Managed HTTPRoute of the MCP endpoint.
pub const ROUTE: &str = "mcp-gateway-route";
/// Managed HTTPRoute of the token page.
pub const TOKENS_ROUTE: &str = "mcp-gateway-tokens-route";

/// Port of the broker's HTTP listener.
pub const BROKER_HTTP_PORT: i32 = 8080;
/// Port of the router's gRPC listener (Envoy ext_proc).
pub const ROUTER_GRPC_PORT: i32 = 50051;
/// Port of the broker's admin listener (metrics).
pub const BROKER_METRICS_PORT: i32 = 9090;

/// Repository of the broker image; the tag is the operator's own version.
pub const BROKER_IMAGE: &str = "ghcr.io/mcp-gateway-operator/broker";
/// Repository of the operator image.
pub const OPERATOR_IMAGE: &str = "ghcr.io/mcp-gateway-operator/operator";
/// Repository of the webhook image.
pub const WEBHOOK_IMAGE: &str = "ghcr.io/mcp-gateway-operator/webhook";

/// Name of the EnvoyFilter of the extension in namespace `extension_namespace`, at most 253 characters
/// (operator.md 5.8).
#[must_use]
pub fn envoy_filter_name(extension_namespace: &str) -> String {
    shorten(&format!("mcp-ext-proc-{extension_namespace}-gateway"), 253)
}

/// A label value for `text`: itself when it fits into 63 characters, else its first 54, `-` and 8 hex digits of
/// its SHA-256 (operator.md 5.8).
#[must_use]
pub fn label_value(text: &str) -> String {
    shorten(text, 63)
}

fn shorten(text: &str, max: usize) -> String {
    use sha2::{Digest, Sha256};
    if text.len() <= max {
        return text.to_owned();
    }
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    let head: String = text.chars().take(max - 9).collect();
    let tail: String = digest.chars().take(8).collect();
    format!("{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_label_values_are_cut_and_stay_distinct() {
        let (a, b) = (label_value(&"a".repeat(64)), label_value(&"a".repeat(65)));
        assert_eq!((a.len(), b.len()), (63, 63));
        assert_ne!(a, b);
        assert_eq!(label_value("team-a"), "team-a");
    }
}
