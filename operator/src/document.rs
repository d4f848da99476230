//! The config document of one extension, rendered whole from what exists now (operator.md 7, 8, 9). Pure. Invariant:
//! what cannot be read now keeps its former value, what is confirmed absent is left out, and a policy never vanishes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::fmt::temporal::DateTimePrinter;
use mcp_gateway_api::{
    acceptance::Accepted,
    conditions::ExtensionReason,
    config::{
        CONFIG_MAX_BYTES, ConfigError, Credential, GatewayConfig, RenderedConfig, ServerEntry, ServerState,
        TokenUrlElicitation, VirtualServerEntry, render,
    },
    extension::{Authorization, DataPath, MCPGatewayExtension},
    names,
    object_key::{Age, ObjectKey, is_live},
    registration::{MCPServerRegistration, Transport},
    resolution::Backend,
};

use crate::{
    policies::PolicyInputs,
    secrets::{Demand, MAX_SERVER_CA, Readings, SecretProblem, certificates_for, value_for},
    snapshot::Snapshot,
};

mod policies;

/// The document and what it could not hold.
pub(crate) struct Document {
    /// The bytes and their hash.
    pub(crate) rendered: RenderedConfig,
    /// Registrations in the document, by server name.
    pub(crate) served: BTreeSet<ObjectKey>,
    /// Policies in the document, with the generation that it holds.
    pub(crate) policies: BTreeMap<ObjectKey, i64>,
    /// Registrations that are left out, or kept with a former value, and why.
    pub(crate) problems: BTreeMap<ObjectKey, String>,
    /// True when something could not be read now: evaluate again soon.
    pub(crate) inconclusive: bool,
}

/// A document that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The serializer failed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Policies and virtual servers alone are too large.
    #[error(
        "config too large: {bytes} of {CONFIG_MAX_BYTES} without any server; shorten virtual servers or policies"
    )]
    TooLarge {
        /// Size of the document.
        bytes: usize,
    },
}

/// What a document is made from.
pub(crate) struct Sources<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) extension: &'a MCPGatewayExtension,
    pub(crate) accepted: &'a Accepted,
    pub(crate) secrets: &'a Readings,
    /// What the policies name.
    pub(crate) policy_inputs: PolicyInputs<'a>,
    /// The CA bundle of the extension.
    pub(crate) ca_bundle: &'a str,
    /// The document as it is now.
    pub(crate) former: Option<&'a GatewayConfig>,
}

/// The empty form, for an extension that lost (operator.md 4.4).
pub(crate) fn empty() -> Result<RenderedConfig, ConfigError> {
    render(&GatewayConfig::default())
}

/// The Secrets that the servers of `extension` name.
pub(crate) fn secrets_of(snapshot: &Snapshot, extension: &ObjectKey) -> BTreeSet<ObjectKey> {
    let served = snapshot.plan.served_by(extension);
    served
        .filter_map(|(key, _)| snapshot.world.registration(key))
        .flat_map(|registration| {
            let namespace = registration.metadata.namespace.clone().unwrap_or_default();
            let credential = registration
                .spec
                .credential_ref
                .as_ref()
                .map(|reference| reference.name.clone());
            let ca = registration
                .spec
                .ca_cert_secret_ref
                .as_ref()
                .map(|reference| reference.name.clone());
            credential
                .into_iter()
                .chain(ca)
                .map(move |name| ObjectKey::new(namespace.as_str(), name))
        })
        .collect()
}

/// Renders the document.
pub(crate) fn document(sources: &Sources<'_>) -> Result<Document, DocumentError> {
    let mut servers = Servers::default();
    for (registration, backend) in served(sources) {
        servers.take(sources, registration, backend);
    }
    let (auth_policies, unreadable) = policies::entries(sources);
    servers.inconclusive |= unreadable;
    let policies = auth_policies
        .iter()
        .filter_map(|entry| Some((ObjectKey::parse(&entry.name)?, entry.generation)))
        .collect();
    let mut config = GatewayConfig {
        hash: String::new(),
        servers: Vec::new(),
        virtual_servers: virtual_servers(sources.snapshot),
        gateway_ca_cert_pem: sources.ca_bundle.to_owned(),
        public_hosts: public_hosts(sources),
        allowed_origins: sorted(&sources.extension.spec.allowed_origins),
        auth_policies,
        auth_required: sources.extension.spec.authorization == Authorization::Required,
    };
    let (rendered, fitting) = fit(&mut config, &servers.entries)?;
    for (key, _) in servers.entries.iter().skip(fitting) {
        servers.problems.insert(key.clone(), too_large(&servers.entries));
    }
    let served = servers
        .entries
        .iter()
        .take(fitting)
        .map(|(key, _)| key.clone())
        .collect();
    Ok(Document {
        rendered,
        served,
        policies,
        problems: servers.problems,
        inconclusive: servers.inconclusive,
    })
}

fn too_large(entries: &[(ObjectKey, ServerEntry)]) -> String {
    let count = entries.len();
    format!(
        "config too large: {count} servers do not fit into {CONFIG_MAX_BYTES} bytes; older registrations are served first"
    )
}

/// The registrations that the extension serves, oldest first.
fn served<'a>(sources: &Sources<'a>) -> Vec<(&'a MCPServerRegistration, &'a Backend)> {
    let snapshot = sources.snapshot;
    let mut served: Vec<_> = snapshot
        .plan
        .served_by(sources.accepted.extension())
        .filter_map(|(key, backend)| Some((snapshot.world.registration(key)?.as_ref(), backend)))
        .collect();
    served.sort_by_cached_key(|(registration, _)| Age::of(&registration.metadata));
    served
}

#[derive(Default)]
struct Servers {
    entries: Vec<(ObjectKey, ServerEntry)>,
    problems: BTreeMap<ObjectKey, String>,
    inconclusive: bool,
}

impl Servers {
    fn take(&mut self, sources: &Sources<'_>, registration: &MCPServerRegistration, backend: &Backend) {
        let key = ObjectKey::of(&registration.metadata);
        match entry(sources, registration, backend) {
            Ok(entry) => self.entries.push((key, entry)),
            Err(problem) => {
                let name = key.to_string();
                let former = sources
                    .former
                    .and_then(|former| former.servers.iter().find(|entry| entry.name == name));
                if let Some(former) = former.filter(|_| problem.inconclusive) {
                    self.entries.push((key.clone(), former.clone()));
                }
                self.inconclusive |= problem.inconclusive;
                self.problems.insert(key, problem.message);
            }
        }
    }
}

fn entry(
    sources: &Sources<'_>,
    registration: &MCPServerRegistration,
    backend: &Backend,
) -> Result<ServerEntry, SecretProblem> {
    let spec = &registration.spec;
    let key = ObjectKey::of(&registration.metadata);
    let may_forward = key.namespace == sources.accepted.extension().namespace
        || sources
            .extension
            .spec
            .forward_headers_from
            .contains(&key.namespace);
    Ok(ServerEntry {
        name: key.to_string(),
        url: backend.url.clone(),
        hostname: backend.hostname.clone(),
        prefix: spec.prefix.clone().unwrap_or_default(),
        credential: credential(sources.secrets, registration)?,
        ca_cert: server_ca(sources.secrets, registration)?,
        state: if spec.state.is_enabled() {
            ServerState::Enabled
        } else {
            ServerState::Disabled
        },
        token_url_elicitation: spec
            .token_url_elicitation
            .as_ref()
            .map(|elicitation| TokenUrlElicitation {
                url: elicitation.url.clone().unwrap_or_default(),
            }),
        user_specific_list: spec.user_specific_list.is_enabled(),
        category: spec.category.clone(),
        hint: spec.hint.clone().unwrap_or_default(),
        tags: spec.tags.clone(),
        forward_headers: if may_forward {
            sorted(&spec.forward_headers)
        } else {
            Vec::new()
        },
        transport: transport(sources, registration)?,
        call_timeout: spec
            .call_timeout_seconds
            .map(|seconds| format!("{seconds}s"))
            .unwrap_or_default(),
        created_at: created_at(registration),
        uid: registration.metadata.uid.clone().unwrap_or_default(),
    })
}

/// The older transport works only where the broker carries the calls itself (operator.md 1.2).
fn transport(sources: &Sources<'_>, registration: &MCPServerRegistration) -> Result<String, SecretProblem> {
    match (registration.spec.transport, sources.extension.spec.data_path) {
        (Transport::StreamableHttp, _) => Ok(String::new()),
        (Transport::Sse, DataPath::Direct) => Ok("sse".to_owned()),
        (Transport::Sse, DataPath::ExtProc) => Err(SecretProblem {
            reason: ExtensionReason::InvalidMCPGatewayExtension,
            message: format!(
                "transport sse works only with dataPath Direct of MCPGatewayExtension {}",
                sources.accepted.extension()
            ),
            inconclusive: false,
        }),
    }
}

fn created_at(registration: &MCPServerRegistration) -> String {
    let Some(time) = &registration.metadata.creation_timestamp else {
        return String::new();
    };
    DateTimePrinter::new().timestamp_to_string(&time.0)
}

fn credential(secrets: &Readings, registration: &MCPServerRegistration) -> Result<Credential, SecretProblem> {
    let Some(reference) = &registration.spec.credential_ref else {
        return Ok(Credential::default());
    };
    let secret = beside(registration, &reference.name);
    let demand = Demand {
        secret: &secret,
        key: &reference.key,
        field: "credentialRef",
        label: true,
    };
    let value = value_for(secrets, &demand)?;
    let text = std::str::from_utf8(value).map_err(|_| SecretProblem {
        reason: ExtensionReason::SecretInvalid,
        message: format!("secret {secret}: is invalid: key {} is not text", reference.key),
        inconclusive: false,
    })?;
    Ok(Credential::new(text.strip_suffix('\n').unwrap_or(text)))
}

fn server_ca(secrets: &Readings, registration: &MCPServerRegistration) -> Result<String, SecretProblem> {
    let Some(reference) = &registration.spec.ca_cert_secret_ref else {
        return Ok(String::new());
    };
    let secret = beside(registration, &reference.name);
    let demand = Demand {
        secret: &secret,
        key: &reference.key,
        field: "caCertSecretRef",
        label: true,
    };
    certificates_for(secrets, &demand, MAX_SERVER_CA).map(str::to_owned)
}

fn beside(registration: &MCPServerRegistration, name: &str) -> ObjectKey {
    ObjectKey::new(
        registration.metadata.namespace.as_deref().unwrap_or_default(),
        name,
    )
}

fn virtual_servers(snapshot: &Snapshot) -> Vec<VirtualServerEntry> {
    let live = snapshot
        .world
        .virtual_servers()
        .filter(|server| is_live(&server.metadata));
    live.map(|server| VirtualServerEntry {
        name: ObjectKey::of(&server.metadata).to_string(),
        tools: deduplicated(&server.spec.tools),
        prompts: server.spec.prompts.as_deref().map(deduplicated),
        resources: server.spec.resources.as_deref().map(deduplicated),
    })
    .collect()
}

/// The public host and the exact hostnames of every accepted route on the listener that leads to our Service.
fn public_hosts(sources: &Sources<'_>) -> Vec<String> {
    let accepted = sources.accepted;
    let broker = ObjectKey::new(accepted.extension().namespace.as_str(), names::BROKER);
    let gateway = accepted.gateway();
    let on_listener = |section: Option<&str>| {
        section.is_none_or(|section| {
            gateway
                .listener(section)
                .is_some_and(|listener| listener.port == accepted.listener().port)
        })
    };
    let custom = sources.snapshot.world.routes().filter(|route| {
        let attached = route.accepted_parents().any(|(key, parent)| {
            key == gateway.key && on_listener(parent.parent_ref.section_name.as_deref())
        });
        let mut backends = route.rules.iter().flat_map(|rule| &rule.backend_refs);
        attached && backends.any(|backend| backend.service(&route.key.namespace).as_ref() == Some(&broker))
    });
    let hostnames = custom.flat_map(|route| {
        route
            .hostnames
            .iter()
            .filter(|host| !host.starts_with("*."))
            .cloned()
    });
    let hosts: BTreeSet<String> = hostnames.chain([accepted.public_host().to_owned()]).collect();
    hosts.into_iter().collect()
}

/// Puts the oldest servers that fit into `config` and renders it; the number says how many they are.
fn fit(
    config: &mut GatewayConfig,
    entries: &[(ObjectKey, ServerEntry)],
) -> Result<(RenderedConfig, usize), DocumentError> {
    let mut with = |count: usize| {
        config.servers = entries
            .iter()
            .take(count)
            .map(|(_, entry)| entry.clone())
            .collect();
        render(config)
    };
    let all = with(entries.len())?;
    if all.yaml.len() <= CONFIG_MAX_BYTES {
        return Ok((all, entries.len()));
    }
    let none = with(0)?;
    if none.yaml.len() > CONFIG_MAX_BYTES {
        return Err(DocumentError::TooLarge {
            bytes: none.yaml.len(),
        });
    }
    let (mut fitting, mut best, mut above) = (0, none, entries.len());
    while above - fitting > 1 {
        let middle = fitting.midpoint(above);
        let rendered = with(middle)?;
        if rendered.yaml.len() <= CONFIG_MAX_BYTES {
            (fitting, best) = (middle, rendered);
        } else {
            above = middle;
        }
    }
    Ok((best, fitting))
}

fn sorted(list: &[String]) -> Vec<String> {
    list.iter()
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn deduplicated(list: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    list.iter()
        .filter(|item| seen.insert(item.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
