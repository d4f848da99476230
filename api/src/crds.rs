//! The CustomResourceDefinitions as they are shipped: printed from the Rust types, without the traces of Rust's
//! `Option` (no `nullable`), in a fixed order and with sorted keys.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    auth_policy::MCPAuthPolicy, extension::MCPGatewayExtension, names, registration::MCPServerRegistration,
    virtual_server::MCPVirtualServer,
};

/// One CRD, ready to be written or applied.
#[derive(Clone, Debug)]
pub struct CrdManifest {
    /// File name in `config/crd`: `<group>_<plural>.yaml`.
    pub file_name: String,
    /// The object.
    pub manifest: Value,
}

/// The four CRDs, by file name.
///
/// # Errors
/// Only when a type cannot be serialised, which a test rules out.
pub fn all() -> Result<Vec<CrdManifest>, serde_json::Error> {
    [
        MCPAuthPolicy::crd(),
        MCPGatewayExtension::crd(),
        MCPServerRegistration::crd(),
        MCPVirtualServer::crd(),
    ]
    .iter()
    .map(manifest)
    .collect()
}

fn manifest(crd: &CustomResourceDefinition) -> Result<CrdManifest, serde_json::Error> {
    let mut manifest = serde_json::to_value(crd)?;
    strip(&mut manifest);
    Ok(CrdManifest {
        file_name: format!("{}_{}.yaml", names::GROUP, crd.spec.names.plural),
        manifest,
    })
}

/// Removes what schemars writes for `Option` and what the API server does not know: `nullable`, and the `null`
/// member that an optional enum gets.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
                if let Some(Value::Array(variants)) = map.get_mut("enum") {
                    variants.retain(|variant| !variant.is_null());
                }
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_status_category_and_short_name() {
        for crd in all().expect("CRDs serialise") {
            let spec = &crd.manifest["spec"];
            assert_eq!(spec["names"]["categories"][0], "mcp", "{}", crd.file_name);
            assert!(
                spec["names"]["shortNames"][0]
                    .as_str()
                    .is_some_and(|name| name.starts_with("mcp"))
            );
            assert!(spec["versions"][0]["subresources"]["status"].is_object());
            assert_eq!(spec["scope"], "Namespaced");
            assert!(spec.get("conversion").is_none());
        }
    }

    #[test]
    fn no_trace_of_rust_options_is_left() {
        for crd in all().expect("CRDs serialise") {
            let text = crd.manifest.to_string();
            assert!(!text.contains("nullable"), "{}", crd.file_name);
            assert!(!text.contains("anyOf"), "{}", crd.file_name);
        }
    }

    #[test]
    fn spec_is_required_on_every_kind() {
        for crd in all().expect("CRDs serialise") {
            let schema = &crd.manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            assert_eq!(
                schema["required"],
                serde_json::json!(["spec"]),
                "{}",
                crd.file_name
            );
        }
    }
}
