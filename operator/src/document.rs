//! The config document of one extension, rendered whole from what exists now (operator.md 7, 8, 9). Pure. Invariant:
//! what cannot be read now keeps its former value, what is confirmed absent is left out, and a policy never vanishes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::fmt::temporal::DateTimePrinter;
use mcp_gateway_api::{
    acceptance::Accepted,
    conditions::ExtensionReason,
    config::{
        AuthPolicyEntry, CONFIG_MAX_BYTES, ConfigError, Credential, GatewayConfig, RenderedConfig,
        ServerEntry, ServerState, TokenUrlElicitation, VirtualServerEntry, render,
    },
    extension::{Authorization, DataPath, MCPGatewayExtension},
    object_key::{Age, ObjectKey, is_live},
    registration::{MCPServerRegistration, Transport},
    resolution::Backend,
    virtual_server::MCPVirtualServer,
};

use crate::{
    brokers::Contents,
    policies::PolicyInputs,
    queue::WorkItem,
    secrets::{Demand, MAX_SERVER_CA, Readings, SecretProblem, certificates_for, value_for},
    snapshot::Snapshot,
};

mod oversize;
mod policies;
mod public_hosts;

/// The document and what it could not hold.
pub(crate) struct Document {
    /// The bytes and their hash.
    pub(crate) rendered: RenderedConfig,
    /// What is in it, and what is not and why.
    pub(crate) contents: Contents,
    /// It is the former one, because the one that is wanted would be too large: what makes it so.
    pub(crate) oversize: Option<String>,
    /// True when something could not be read now: evaluate again soon.
    pub(crate) inconclusive: bool,
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
pub(crate) fn document(sources: &Sources<'_>) -> Result<Document, ConfigError> {
    let mut servers = Servers::default();
    for (registration, backend) in served(sources) {
        servers.take(sources, registration, backend);
    }
    let (auth_policies, unreadable) = policies::entries(sources);
    servers.inconclusive |= unreadable;
    let mut config = GatewayConfig {
        hash: String::new(),
        servers: Vec::new(),
        virtual_servers: virtual_servers(sources.snapshot),
        gateway_ca_cert_pem: sources.ca_bundle.to_owned(),
        public_hosts: public_hosts::of(sources),
        allowed_origins: sorted(&sources.extension.spec.allowed_origins),
        auth_policies,
        auth_required: sources.extension.spec.authorization == Authorization::Required,
    };
    let (rendered, fitting) = match fit(&mut config, &servers.entries)? {
        Fit::Within(rendered, fitting) => (rendered, fitting),
        Fit::Beyond(bytes) => return oversize::document(sources, &config, servers, bytes),
    };
    for (key, _) in servers.entries.iter().skip(fitting) {
        let left_out = WorkItem::Registration(key.clone());
        servers.problems.insert(left_out, too_large(&servers.entries));
    }
    let served = servers.entries.iter().take(fitting);
    let served = served.map(|(key, _)| (key.clone(), generation_of(sources.snapshot, key)));
    let contents = Contents {
        served: served.collect(),
        virtual_servers: live_virtual_servers(sources.snapshot)
            .map(|server| {
                (
                    ObjectKey::of(&server.metadata),
                    server.metadata.generation.unwrap_or_default(),
                )
            })
            .collect(),
        policies: generations(&config.auth_policies),
        problems: servers.problems,
    };
    Ok(Document {
        rendered,
        contents,
        oversize: None,
        inconclusive: servers.inconclusive,
    })
}

fn too_large(entries: &[(ObjectKey, ServerEntry)]) -> String {
    let count = entries.len();
    format!(
        "config too large: {count} servers do not fit into {CONFIG_MAX_BYTES} bytes; older registrations are served first"
    )
}

/// Generation of a registration as it is now.
fn generation_of(snapshot: &Snapshot, registration: &ObjectKey) -> i64 {
    let found = snapshot.world.registration(registration);
    found
        .and_then(|found| found.metadata.generation)
        .unwrap_or_default()
}

/// The policies of a document with the generation that it holds.
fn generations(entries: &[AuthPolicyEntry]) -> BTreeMap<ObjectKey, i64> {
    let named = entries
        .iter()
        .filter_map(|entry| Some((ObjectKey::parse(&entry.name)?, entry.generation)));
    named.collect()
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
    problems: BTreeMap<WorkItem, String>,
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
                self.problems.insert(WorkItem::Registration(key), problem.message);
            }
        }
    }
}

/// True when the extension passes on to the server what its `forwardHeaders` name (operator.md 1.2).
pub(crate) fn may_forward(extension: &MCPGatewayExtension, registration: &MCPServerRegistration) -> bool {
    let namespace = registration.metadata.namespace.as_deref().unwrap_or_default();
    let trusted = &extension.spec.forward_headers_from;
    extension.metadata.namespace.as_deref() == Some(namespace)
        || trusted.iter().any(|trusted| trusted == namespace)
}

fn entry(
    sources: &Sources<'_>,
    registration: &MCPServerRegistration,
    backend: &Backend,
) -> Result<ServerEntry, SecretProblem> {
    let spec = &registration.spec;
    let key = ObjectKey::of(&registration.metadata);
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
        forward_headers: if may_forward(sources.extension, registration) {
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
    let entry = |server: &MCPVirtualServer| VirtualServerEntry {
        name: ObjectKey::of(&server.metadata).to_string(),
        tools: deduplicated(&server.spec.tools),
        prompts: server.spec.prompts.as_deref().map(deduplicated),
        resources: server.spec.resources.as_deref().map(deduplicated),
    };
    live_virtual_servers(snapshot).map(entry).collect()
}

fn live_virtual_servers(snapshot: &Snapshot) -> impl Iterator<Item = &MCPVirtualServer> {
    let all = snapshot.world.virtual_servers().map(AsRef::as_ref);
    all.filter(|server: &&MCPVirtualServer| is_live(&server.metadata))
}

/// What came of the limit.
enum Fit {
    /// The document, and how many servers are in it.
    Within(RenderedConfig, usize),
    /// It is too large without any server: its bytes.
    Beyond(usize),
}

/// Puts the oldest servers that fit into `config` and renders it.
fn fit(config: &mut GatewayConfig, entries: &[(ObjectKey, ServerEntry)]) -> Result<Fit, ConfigError> {
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
        return Ok(Fit::Within(all, entries.len()));
    }
    let none = with(0)?;
    if none.yaml.len() > CONFIG_MAX_BYTES {
        return Ok(Fit::Beyond(none.yaml.len()));
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
    Ok(Fit::Within(best, fitting))
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
