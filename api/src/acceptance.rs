//! May this extension have its Gateway? Rows 1–9 of operator.md 2.1, as one pure judgement that the webhook and the
//! reconciler share. An [`Accepted`] value can only be made here.

mod rivals;

use std::{fmt, sync::Arc};

use crate::{
    conditions::ExtensionReason,
    extension::{MCPGatewayExtension, MCPGatewayExtensionSpec},
    gateway::{Gateway, Listener},
    grant::Reference,
    hosts, names,
    object_key::ObjectKey,
    references::Switch,
    world::{World, gateway_of},
};

/// The rule that a finding is about, in the order in which status reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Row 1: the spec by itself.
    Spec,
    /// Row 2: one extension for a namespace.
    Namespace,
    /// Row 3: ReferenceGrant.
    Grant,
    /// Row 4: the Gateway exists.
    Gateway,
    /// Row 5: the listener exists.
    Listener,
    /// Row 5a: the listener carries HTTP.
    Protocol,
    /// Row 6: allowedRoutes.
    AllowedRoutes,
    /// Row 7: there is a host name.
    Hostname,
    /// Row 8: one extension for a Gateway.
    GatewayExclusive,
    /// Row 9: one extension for a listener port.
    PortExclusive,
}

impl Rule {
    /// Short name for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Namespace => "namespace",
            Self::Grant => "grant",
            Self::Gateway => "gateway",
            Self::Listener => "listener",
            Self::Protocol => "protocol",
            Self::AllowedRoutes => "allowed-routes",
            Self::Hostname => "hostname",
            Self::GatewayExclusive => "gateway-exclusive",
            Self::PortExclusive => "port-exclusive",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Path of the field to change.
    pub field: &'static str,
    /// Message of the condition, with what to do.
    pub message: String,
    /// Who has what this extension wants.
    pub winner: Option<ObjectKey>,
}

impl Finding {
    /// The reason that the status gives.
    #[must_use]
    pub fn reason(&self) -> ExtensionReason {
        match self.rule {
            Rule::Grant => ExtensionReason::ReferenceGrantRequired,
            _ => ExtensionReason::InvalidMCPGatewayExtension,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The verdict on one extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is wrong, in the order of [`Rule`]; the first one decides the status.
    pub findings: Vec<Finding>,
    /// Proof of acceptance; present exactly when there is no finding.
    pub accepted: Option<Accepted>,
}

/// An extension that passes rows 1–9, with what it was accepted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    extension: ObjectKey,
    gateway: Arc<Gateway>,
    listener: Listener,
    public_host: String,
}

impl Accepted {
    /// The extension.
    #[must_use]
    pub fn extension(&self) -> &ObjectKey {
        &self.extension
    }

    /// Its Gateway.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Its listener.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// The host that clients use, without port.
    #[must_use]
    pub fn public_host(&self) -> &str {
        &self.public_host
    }

    /// The URL that clients use, with the listener's port unless the scheme implies it.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, implied) = if self.listener.is_https() {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let port = if self.listener.port == implied {
            String::new()
        } else {
            format!(":{}", self.listener.port)
        };
        format!("{scheme}://{}{port}/mcp", self.public_host)
    }
}

/// Judges `extension` against everything else in `world`. It need not be stored yet: a stored object of the same key
/// is left out of the contests.
#[must_use]
pub fn judge(world: &World, extension: &MCPGatewayExtension) -> Judgement {
    let mut findings = spec_findings(&extension.spec);
    findings.extend(rivals::namespace_finding(world, extension));
    let site = match site(world, extension) {
        Ok(site) => site,
        Err(mut missing) => {
            findings.append(&mut missing);
            return Judgement {
                findings,
                accepted: None,
            };
        }
    };
    if findings.is_empty() {
        findings.extend(rivals::exclusive_finding(world, extension, &site));
    }
    let accepted = findings.is_empty().then(|| Accepted {
        extension: ObjectKey::of(&extension.metadata),
        gateway: Arc::clone(site.gateway),
        listener: site.listener.clone(),
        public_host: site.public_host,
    });
    Judgement { findings, accepted }
}

/// What can be said about a spec without looking at anything else (row 1).
#[must_use]
pub fn spec_findings(spec: &MCPGatewayExtensionSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut invalid = |field: &'static str, what: &str| {
        findings.push(Finding {
            rule: Rule::Spec,
            field,
            message: format!("invalid: {field}: {what}"),
            winner: None,
        });
    };
    if let Some(host) = &spec.public_host
        && !hosts::is_dns1123_subdomain(hosts::without_port(host))
    {
        invalid(
            "spec.publicHost",
            "is not a DNS-1123 subdomain; use a host name such as mcp.example.com",
        );
    }
    if spec
        .private_host
        .as_deref()
        .is_some_and(|host| !hosts::is_private_host(host))
    {
        invalid(
            "spec.privateHost",
            "is not a host; use [http://|https://]host[:port]",
        );
    }
    if let Some(key) = &spec.trusted_headers_key {
        if [names::CONFIG_SECRET, names::SIGNING_KEY_SECRET].contains(&key.secret_name.as_str()) {
            invalid(
                "spec.trustedHeadersKey.secretName",
                "names a Secret that the operator owns; use another name",
            );
        }
        let shares = |other: Option<&str>| {
            other.is_some_and(|other| {
                other == key.secret_name || other == format!("{}-private", key.secret_name)
            })
        };
        let store = spec
            .session_store
            .as_ref()
            .map(|store| store.secret_name.as_str());
        let bundle = spec
            .ca_cert_bundle_ref
            .as_ref()
            .map(|bundle| bundle.name.as_str());
        if key.generate == Switch::Enabled && (shares(store) || shares(bundle)) {
            invalid(
                "spec.trustedHeadersKey.secretName",
                "is also named by sessionStore or caCertBundleRef; a generated key needs a Secret of its own",
            );
        }
    }
    findings
}

/// What an extension stands on once rows 3–7 hold.
struct Site<'a> {
    gateway: &'a Arc<Gateway>,
    listener: &'a Listener,
    public_host: String,
}

fn site<'a>(world: &'a World, extension: &MCPGatewayExtension) -> Result<Site<'a>, Vec<Finding>> {
    let gateway_key = gateway_of(extension);
    let section = extension.spec.target_ref.section_name.as_str();
    let finding = |rule, field, message| {
        vec![Finding {
            rule,
            field,
            message,
            winner: None,
        }]
    };
    if let Some(message) = missing_grant(world, extension) {
        return Err(finding(Rule::Grant, "spec.targetRef.namespace", message));
    }
    let gateway = world
        .gateway(&gateway_key)
        .filter(|gateway| gateway.live)
        .ok_or_else(|| {
            let message = format!(
                "invalid: gateway target {gateway_key} not found; create it or correct spec.targetRef"
            );
            finding(Rule::Gateway, "spec.targetRef.name", message)
        })?;
    let listener = gateway.listener(section).ok_or_else(|| {
        let names = gateway.listener_names();
        let message =
            format!("invalid: listener {section} not found on gateway {gateway_key}; it has: {names}");
        finding(Rule::Listener, "spec.targetRef.sectionName", message)
    })?;
    let (public_host, findings) = listener_findings(world, extension, (gateway, listener));
    match public_host {
        Some(public_host) if findings.is_empty() => Ok(Site {
            gateway,
            listener,
            public_host,
        }),
        _ => Err(findings),
    }
}

fn listener_findings(
    world: &World,
    extension: &MCPGatewayExtension,
    (gateway, listener): (&Gateway, &Listener),
) -> (Option<String>, Vec<Finding>) {
    let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
    let (section, gateway_key) = (&listener.name, &gateway.key);
    let mut findings = Vec::new();
    let mut invalid = |rule, field, message| {
        findings.push(Finding {
            rule,
            field,
            message,
            winner: None,
        });
    };
    if !listener.carries_http() {
        let protocol = &listener.protocol;
        let message = format!(
            "invalid: listener {section} has protocol {protocol}; HTTP or HTTPS with Terminate is needed"
        );
        invalid(Rule::Protocol, "spec.targetRef.sectionName", message);
    }
    let labels = world.namespace_labels(namespace);
    if !listener
        .allowed_routes
        .allow(namespace, &labels, &gateway_key.namespace)
    {
        let message = format!(
            "invalid: listener {section} on gateway {gateway_key} does not allow routes from namespace {namespace} (allowedRoutes)"
        );
        invalid(Rule::AllowedRoutes, "spec.targetRef.sectionName", message);
    }
    let host = hosts::public_host(
        extension.spec.public_host.as_deref(),
        listener.hostname.as_deref(),
    );
    let usable = host.filter(|host| hosts::is_dns1123_subdomain(host));
    if usable.is_none() {
        let message = format!("invalid: listener {section} has no hostname; set spec.publicHost");
        invalid(Rule::Hostname, "spec.publicHost", message);
    }
    (usable, findings)
}

/// The message of row 3 when the extension refers into another namespace without a grant.
#[must_use]
pub fn missing_grant(world: &World, extension: &MCPGatewayExtension) -> Option<String> {
    let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
    let gateway = gateway_of(extension);
    let reference = Reference {
        from: (names::GROUP, "MCPGatewayExtension"),
        from_namespace: namespace,
        to: (names::GATEWAY_API_GROUP, "Gateway"),
        target: &gateway,
    };
    missing_grant_for(world, &reference).map(|hint| {
        format!(
            "invalid: ReferenceGrant required in namespace {} to allow cross-namespace reference from {namespace}{hint}",
            gateway.namespace
        )
    })
}

/// `None` when the reference stays in its namespace or is granted; else a hint to append to the message.
#[must_use]
pub fn missing_grant_for(world: &World, reference: &Reference<'_>) -> Option<String> {
    let namespace = &reference.target.namespace;
    if namespace == reference.from_namespace
        || world.grants_in(namespace).any(|grant| grant.permits(reference))
    {
        return None;
    }
    let retired = world
        .grants_in(namespace)
        .find(|grant| grant.names_retired_group(reference));
    Some(retired.map_or_else(String::new, |grant| {
        format!(
            "; ReferenceGrant {} names group {}, expected {}",
            grant.key.name,
            names::RETIRED_GROUP,
            reference.from.0
        )
    }))
}

#[cfg(test)]
mod tests;
