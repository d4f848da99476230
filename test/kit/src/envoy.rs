//! The bootstrap of a Gateway's Envoy: who it is, and where istiod is.

use serde_json::{Value, json};

use crate::control_plane::{NODE_ADDRESS, XDS_PORT};

/// The port of Envoy's admin interface, in the pod.
pub(crate) const ADMIN_PORT: u16 = 15000;
const ISTIO_VERSION: &str = "1.31.0";

/// Where the pod has its token for istiod, and what stands for its text in the bootstrap.
pub(crate) const TOKEN_DIR: &str = "/var/run/secrets/tokens";
const TOKEN_MARK: &str = "@TOKEN@";
/// The variable with the bootstrap.
pub(crate) const BOOTSTRAP_VARIABLE: &str = "ENVOY_BOOTSTRAP";

/// The entrypoint of the proxy's image: puts the token into the bootstrap and becomes Envoy.
pub(crate) fn entrypoint(envoy: &str) -> Vec<String> {
    let script = format!(
        r#"exec "$0" --config-yaml "$(printf %s "${BOOTSTRAP_VARIABLE}" | sed "s|{TOKEN_MARK}|$(cat {TOKEN_DIR}/istio-token)|")" "$@""#
    );
    ["/bin/sh", "-c", &script, envoy].map(str::to_owned).to_vec()
}

/// The bootstrap, with `$(POD_IP)` and `$(POD_NAME)` left for the pod's own environment to fill in. The token proves to
/// istiod who asks: without it no Secret is sent, and HTTPS listeners stay empty.
pub(crate) fn bootstrap(namespace: &str, gateway: &str) -> Value {
    let labels = json!({(crate::gateways::GATEWAY_LABEL): gateway});
    json!({
        "node": {
            "id": format!("router~$(POD_IP)~$(POD_NAME).{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{gateway}.{namespace}"),
            "metadata": {
                "LABELS": labels, "NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes",
                "ISTIO_VERSION": ISTIO_VERSION, "INSTANCE_IPS": "$(POD_IP)",
            },
        },
        "admin": {"address": socket("0.0.0.0", ADMIN_PORT)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds-grpc"},
                    "initial_metadata": [{"key": "authorization", "value": format!("Bearer {TOKEN_MARK}")}],
                }],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(NODE_ADDRESS, XDS_PORT)}},
            ]}]},
        }]},
    })
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}
