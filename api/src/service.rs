//! What we read of a `Service`: type, ports and the Gateway that it belongs to.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    names,
    object_key::{Age, ObjectKey, is_live},
};

/// A Service as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Identity.
    pub key: ObjectKey,
    /// Age.
    pub age: Age,
    /// False while it is being deleted.
    pub live: bool,
    /// Name of the Gateway that it is labelled for.
    pub gateway_name: Option<String>,
    /// Host of a Service of type ExternalName.
    pub external_name: Option<String>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name.
    pub name: Option<String>,
    /// Port of the Service.
    pub port: i32,
    /// Port of the pods.
    pub target_port: Option<IntOrString>,
    /// Protocol spoken on it, such as `https`.
    pub app_protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: Option<String>,
    external_name: Option<String>,
    ports: Vec<ServicePort>,
}

impl Service {
    /// Reads the view out of a Service object.
    ///
    /// # Errors
    /// When a member that we read has another type than the core API gives it.
    pub fn from_value(object: &Value) -> Result<Self, serde_json::Error> {
        let Document { metadata, spec } = Document::deserialize(object)?;
        let is_external = spec.kind.as_deref() == Some("ExternalName");
        Ok(Self {
            key: ObjectKey::of(&metadata),
            age: Age::of(&metadata),
            live: is_live(&metadata),
            gateway_name: metadata
                .labels
                .and_then(|mut labels| labels.remove(names::GATEWAY_NAME_LABEL)),
            external_name: spec.external_name.filter(|_| is_external),
            ports: spec.ports,
        })
    }

    /// The port with number `port`; without a number the only one.
    #[must_use]
    pub fn port(&self, port: Option<i32>) -> Option<&ServicePort> {
        match (port, self.ports.as_slice()) {
            (Some(number), ports) => ports.iter().find(|candidate| candidate.port == number),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

impl ServicePort {
    /// True when it speaks TLS: `appProtocol: https`, or no appProtocol and the name `https` (operator.md 8.7).
    #[must_use]
    pub fn is_https(&self) -> bool {
        let protocol = self.app_protocol.as_deref().or(self.name.as_deref());
        protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("https"))
    }

    /// The port number of the pods, when it is a number.
    #[must_use]
    pub fn numeric_target(&self) -> Option<i32> {
        match &self.target_port {
            Some(IntOrString::Int(port)) => Some(*port),
            Some(IntOrString::String(text)) => text.parse().ok(),
            None => Some(self.port),
        }
    }
}
