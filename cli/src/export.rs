//! `mcpgw export`: the custom resources as manifests that can be applied elsewhere, or the config of a standalone gateway
//! that serves the same. Secrets are never read; what needs one is said.

use std::io::{self, Write};

use mcp_gateway_api::{
    config::{GatewayConfig, ServerEntry, ServerState, TokenUrlElicitation, VirtualServerEntry},
    object_key::ObjectKey,
    references::Switch,
    registration::{MCPServerRegistration, Transport},
    resolution::Plan,
    world::World,
};
use serde_json::{Map, Value, json};

use crate::{
    cluster::{self, JUDGED, NoClusterError, Snapshot},
    lint::{ReadError, read},
    world::{placed, world_of_files},
};

/// Kinds that are exported as manifests.
const KINDS: [&str; 4] = [
    "MCPGatewayExtension",
    "MCPServerRegistration",
    "MCPVirtualServer",
    "MCPAuthPolicy",
];
/// Annotation that `kubectl apply` keeps its copy in.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum To {
    /// The custom resources, without status and without what the API server adds.
    Cr,
    /// The config file of a standalone gateway.
    Standalone,
}

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// What to write.
    #[arg(long, value_enum)]
    pub to: To,
    /// Only the servers of this extension, `<namespace>/<name>` (standalone).
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub extension: Option<String>,
    /// Files or directories with manifests; without one the cluster of the current context is asked.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub files: Vec<String>,
    /// Namespace of objects that name none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] NoClusterError),
    /// A kind that may not be read.
    #[error("cluster: {0}: {1}")]
    Unreadable(&'static str, String),
    /// The document.
    #[error("cannot render: {0}")]
    Render(#[from] serde_saphyr::SerializeError),
    /// The output.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl Export {
    /// Writes YAML to `out`; the exit code is 0.
    ///
    /// # Errors
    /// [`ExportError`]; that is exit code 2.
    pub async fn run(&self, out: &mut impl Write) -> Result<u8, ExportError> {
        let (world, objects) = self.source().await?;
        match self.to {
            To::Cr => {
                for object in &objects {
                    write!(out, "---\n{}", serde_saphyr::to_string(&cleaned(object))?)?;
                }
            }
            To::Standalone => {
                let (config, notes) = standalone(&world, self.extension.as_deref());
                for note in notes {
                    writeln!(out, "# {note}")?;
                }
                write!(out, "{}", serde_saphyr::to_string(&config)?)?;
            }
        }
        Ok(0)
    }

    async fn source(&self) -> Result<(World, Vec<Value>), ExportError> {
        if self.files.is_empty() {
            let client = cluster::connect().await?;
            let snapshot = Snapshot::take(&client, &JUDGED).await;
            if let Some((kind, why)) = snapshot.unreadable().next() {
                return Err(ExportError::Unreadable(kind, why.to_owned()));
            }
            let ours = KINDS.iter().flat_map(|kind| snapshot.all(kind)).cloned();
            return Ok((snapshot.world(), ours.collect()));
        }
        let mut objects = Vec::new();
        for file in &self.files {
            // What is no object is `mcpgw lint`'s to say.
            let found = read(file)?
                .into_iter()
                .filter_map(|document| document.object.ok());
            objects.extend(found.map(|object| placed(object, &self.namespace)));
        }
        let world = world_of_files(&objects);
        objects.retain(|object| {
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            KINDS.contains(&kind)
        });
        Ok((world, objects))
    }
}

/// The object as a user would write it.
fn cleaned(object: &Value) -> Value {
    let mut metadata = Map::new();
    for member in ["name", "namespace", "labels", "annotations"] {
        let Some(mut value) = object.pointer(&format!("/metadata/{member}")).cloned() else {
            continue;
        };
        if let Some(annotations) = value.as_object_mut() {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                continue;
            }
        }
        metadata.insert(member.to_owned(), value);
    }
    let member = |name: &str| object.get(name).cloned().unwrap_or_default();
    json!({"apiVersion": member("apiVersion"), "kind": member("kind"), "metadata": metadata, "spec": member("spec")})
}

/// The config of a standalone gateway, and what it cannot hold. Pure.
fn standalone(world: &World, extension: Option<&str>) -> (GatewayConfig, Vec<String>) {
    let plan = Plan::compute(world, "cluster.local");
    let mut notes = vec![
        "The URLs are those of the cluster: use them inside it, or put others in their place.".to_owned(),
    ];
    let mut config = GatewayConfig::default();
    for registration in world.registrations() {
        let key = ObjectKey::of(&registration.metadata);
        let Some(resolution) = plan.resolution(&key) else {
            continue;
        };
        let served = |wanted: &str| {
            resolution
                .served_by
                .iter()
                .any(|other| other.to_string() == wanted)
        };
        if extension.is_some_and(|wanted| !served(wanted)) {
            continue;
        }
        let Some(backend) = &resolution.backend else {
            let why = resolution
                .problem
                .as_ref()
                .map_or("", |problem| problem.message.as_str());
            notes.push(format!("{key} is left out: {why}"));
            continue;
        };
        if registration.spec.credential_ref.is_some() {
            notes.push(format!("{key} needs its credential: add credential: 'Bearer …'"));
        }
        if registration.spec.ca_cert_secret_ref.is_some() {
            notes.push(format!("{key} needs its certificate authority: add caCert: |"));
        }
        config.servers.push(entry(&key, registration, &backend.url));
    }
    config.virtual_servers = world
        .virtual_servers()
        .map(|server| VirtualServerEntry {
            name: ObjectKey::of(&server.metadata).to_string(),
            tools: server.spec.tools.clone(),
            prompts: server.spec.prompts.clone(),
            resources: server.spec.resources.clone(),
        })
        .collect();
    if world.policies().next().is_some() {
        notes.push(
            "MCPAuthPolicies are not exported: without them every caller may use every item.".to_owned(),
        );
    }
    (config, notes)
}

fn entry(key: &ObjectKey, registration: &MCPServerRegistration, url: &str) -> ServerEntry {
    let spec = &registration.spec;
    ServerEntry {
        name: key.to_string(),
        url: url.to_owned(),
        prefix: spec.prefix.clone().unwrap_or_default(),
        state: match spec.state {
            Switch::Enabled => ServerState::Enabled,
            Switch::Disabled => ServerState::Disabled,
        },
        token_url_elicitation: spec
            .token_url_elicitation
            .as_ref()
            .map(|elicitation| TokenUrlElicitation {
                url: elicitation.url.clone().unwrap_or_default(),
            }),
        user_specific_list: spec.user_specific_list == Switch::Enabled,
        category: spec.category.clone(),
        hint: spec.hint.clone().unwrap_or_default(),
        tags: spec.tags.clone(),
        forward_headers: spec.forward_headers.clone(),
        call_timeout: spec
            .call_timeout_seconds
            .map_or_else(String::new, |seconds| format!("{seconds}s")),
        transport: match spec.transport {
            Transport::StreamableHttp => String::new(),
            Transport::Sse => "sse".to_owned(),
        },
        ..ServerEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::parse;

    const MANIFESTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: istio, listeners: [{name: mcp, hostname: '*.example.com', port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata: {name: ext, namespace: infra, uid: gone, annotations: {kubectl.kubernetes.io/last-applied-configuration: x}}
spec: {publicHost: mcp.example.com, targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: mcp}}
status: {conditions: []}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: weather, namespace: apps}
spec: {parentRefs: [{name: gw, namespace: infra}], hostnames: [weather.example.com], rules: [{backendRefs: [{name: weather, port: 9000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: weather, namespace: apps}
spec: {ports: [{port: 9000}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: weather, namespace: apps}
spec: {prefix: weather_, targetRef: {name: weather}, credentialRef: {name: token}, callTimeoutSeconds: 7}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: lost, namespace: apps}
spec: {targetRef: {name: nowhere}}
";

    fn objects() -> Vec<Value> {
        parse("-", MANIFESTS)
            .into_iter()
            .map(|document| document.object.expect("an object"))
            .collect()
    }

    #[test]
    fn a_standalone_config_has_the_servers_and_says_what_it_lacks() {
        let world = world_of_files(&objects());
        let (config, notes) = standalone(&world, Some("infra/ext"));
        let yaml = serde_saphyr::to_string(&config).unwrap();
        let read = mcp_gateway_api::config::parse(&yaml).unwrap();
        assert_eq!(read.servers.len(), 1, "{yaml}");
        let server = &read.servers[0];
        assert_eq!(server.name, "apps/weather");
        assert_eq!(server.url, "http://weather.apps.svc.cluster.local:9000/mcp");
        assert_eq!(
            (server.prefix.as_str(), server.call_timeout.as_str()),
            ("weather_", "7s")
        );
        assert!(
            notes
                .iter()
                .any(|note| note.contains("apps/weather needs its credential")),
            "{notes:?}"
        );
        let (_, notes) = standalone(&world, None);
        assert!(
            notes
                .iter()
                .any(|note| note.starts_with("apps/lost is left out: HTTPRoute apps/nowhere not found"))
        );
    }

    #[test]
    fn a_server_of_the_older_transport_keeps_it() {
        let manifests = MANIFESTS.replace("callTimeoutSeconds: 7", "transport: sse");
        let objects: Vec<Value> = parse("-", &manifests)
            .into_iter()
            .map(|document| document.object.expect("an object"))
            .collect();
        let (config, _) = standalone(&world_of_files(&objects), None);
        assert_eq!(config.servers[0].transport, "sse");
    }

    #[test]
    fn a_custom_resource_is_exported_as_a_user_would_write_it() {
        let extension = cleaned(&objects()[1]);
        assert_eq!(
            extension["metadata"],
            json!({"name": "ext", "namespace": "infra"})
        );
        assert_eq!(extension["spec"]["publicHost"], "mcp.example.com");
        assert!(extension.get("status").is_none());
    }
}
