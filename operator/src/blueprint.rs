//! What the children of one accepted extension are made from: plain values, decided by `validate`, read by the
//! builders in `children/`. Nothing here comes from a client or a clock.

use std::sync::Arc;

use mcp_gateway_api::{
    extension::{DataPath, LogLevel, MCPGatewayExtension},
    names,
    object_key::ObjectKey,
    references::Switch,
};

/// Largest request body in bytes when nothing says otherwise (operator.md 1.1).
const DEFAULT_MAX_BODY: u64 = 5_242_880;
/// Envoy's default of `per_connection_buffer_limit_bytes`.
const ENVOY_BUFFER: u64 = 1_048_576;

/// Settings of the operator process that children depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Image of the broker.
    pub(crate) broker_image: String,
    /// Default of the broker's `--log-level`, from `BROKER_ROUTER_LOG_LEVEL`.
    pub(crate) broker_log_level: Option<i32>,
    /// The cluster's DNS domain.
    pub(crate) cluster_domain: String,
    /// Namespace that the operator runs in.
    pub(crate) namespace: String,
    /// Certificate and configurations of the admission webhook are kept here (`--webhook-certs=managed`).
    pub(crate) manages_webhook: bool,
    /// ClusterRole that owns the webhook configurations.
    pub(crate) webhook_configuration_owner: Option<String>,
    /// Name of OLM's OperatorCondition, when OLM installed this operator.
    pub(crate) operator_condition: Option<String>,
}

/// One accepted extension with everything that its children show.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    /// The extension.
    pub(crate) extension: Arc<MCPGatewayExtension>,
    /// Its key.
    pub(crate) key: ObjectKey,
    /// Its Gateway.
    pub(crate) gateway: ObjectKey,
    /// Port that Envoy binds for the listener (operator.md 5.8).
    pub(crate) bound_port: i32,
    /// Host that clients use.
    pub(crate) public_host: String,
    /// Address under which the broker reaches the Gateway.
    pub(crate) private_host: String,
    /// `istio.io/rev` of the Gateway or of its namespace.
    pub(crate) revision: Option<String>,
    /// The rendered config document; it holds credentials.
    pub(crate) config_yaml: Arc<str>,
    /// Keyed hash over the Secret values that the broker's env refers to.
    pub(crate) env_secrets_hash: String,
    /// A new signing key, for a Secret that has none; the one in use is never carried here.
    pub(crate) fresh_signing_key: SigningKey,
    /// A user's own `--max-request-body-size`, when `maxBodyBytes` is unset.
    pub(crate) users_max_body: Option<u64>,
    /// Image of the broker now: that of the settings, or the running one while others roll (operator.md 6.7).
    pub(crate) broker_image: String,
    /// Settings of the operator.
    pub(crate) settings: Arc<Settings>,
}

/// The value of the signing-key Secret: hex or whatever a user put there. It has no `Display`, `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SigningKey(Vec<u8>);

impl SigningKey {
    pub(crate) fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl Blueprint {
    /// Namespace of the extension and of its children.
    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// UID of the extension; empty only for an object that was never stored.
    pub(crate) fn uid(&self) -> &str {
        self.extension.metadata.uid.as_deref().unwrap_or_default()
    }

    /// True while the operator writes HTTPRoutes.
    pub(crate) fn manages_routes(&self) -> bool {
        self.extension.spec.http_route_management == Switch::Enabled
    }

    /// True while the token page is routed.
    pub(crate) fn routes_tokens(&self) -> bool {
        self.manages_routes() && self.extension.spec.url_elicitation.is_enabled()
    }

    /// True while Envoy carries the calls, so that an EnvoyFilter is needed.
    pub(crate) fn needs_envoy_filter(&self) -> bool {
        self.extension.spec.data_path == DataPath::ExtProc
    }

    /// The numeric log level to emit as a flag, if any.
    pub(crate) fn log_level(&self) -> Option<i32> {
        let of_spec = self.extension.spec.log_level.map(|level| match level {
            LogLevel::Debug => -4,
            LogLevel::Info => 0,
            LogLevel::Warn => 4,
            LogLevel::Error => 8,
        });
        of_spec.or(self.settings.broker_log_level)
    }

    /// The effective body limit in bytes.
    pub(crate) fn max_body(&self) -> u64 {
        self.extension
            .spec
            .max_body_bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .or(self.users_max_body)
            .unwrap_or(DEFAULT_MAX_BODY)
    }

    /// `per_connection_buffer_limit_bytes` of the listener, when Envoy's default is too small.
    pub(crate) fn buffer_limit(&self) -> Option<u64> {
        let wanted = self.max_body() + mcp_gateway_api::envoy_filter::BUFFER_LIMIT_MARGIN;
        (wanted > ENVOY_BUFFER).then_some(wanted)
    }

    /// DNS name of the broker's Service.
    pub(crate) fn broker_host(&self) -> String {
        format!(
            "{}.{}.svc.{}",
            names::BROKER,
            self.key.namespace,
            self.settings.cluster_domain
        )
    }
}
