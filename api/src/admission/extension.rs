//! Rules for an extension.

use serde_json::Value;

use super::{
    Facts, Kind, ObjectFact, Verdict, Violation, Warning, exclusivity,
    secrets::{self, SecretUse},
};
use crate::{
    acceptance::{self, Finding, Rule},
    extension::{DataPath, MCPGatewayExtension, TrustedHeadersKey},
    gateway::Gateway,
    hosts, names,
    object_key::ObjectKey,
    references::Switch,
    world::{World, gateway_of},
};

pub(super) fn judge(
    world: &World,
    (old, new): (Option<&Value>, &MCPGatewayExtension),
    facts: &Facts,
) -> Verdict {
    let findings = acceptance::judge(world, &newest(new)).findings;
    let mut violations: Vec<Violation> = findings
        .iter()
        .filter(|finding| finding.rule == Rule::Spec)
        .map(violation)
        .collect();
    let owner = (
        Kind::Extension,
        new.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let used = shared_secrets(new).into_iter();
    violations.extend(used.filter_map(|used| secrets::violation(world, owner, used, facts)));
    let gateway = exclusivity::live_gateway(world, &gateway_of(new), facts);
    let keys = exclusivity::keys(exclusivity::contest(old, new), new, gateway);
    for rival in exclusivity::rivals(world, new, &keys, facts) {
        violations.push(exclusivity::refusal(world, new, &rival.key, &rival.extension));
    }
    let mut warnings: Vec<Warning> = findings
        .iter()
        .filter_map(|finding| warning(new, finding))
        .collect();
    if !findings.iter().any(|finding| finding.rule == Rule::Grant) {
        warnings.extend(
            gateway
                .into_iter()
                .flat_map(|gateway| gateway_warnings(new, gateway)),
        );
    }
    warnings.extend(secret_warnings(new, facts));
    if facts.envoy_filter_served == Some(false) && new.spec.data_path == DataPath::ExtProc {
        let what = "EnvoyFilter (networking.istio.io) is not installed; install Istio's CRDs or use Direct";
        warnings.push(Warning::new("envoy-filter", "spec.dataPath", what));
    }
    Verdict { violations, warnings }
}

/// The object as one that is younger than everything stored: the API server stamps it before admission, with seconds
/// that may equal another's.
fn newest(new: &MCPGatewayExtension) -> MCPGatewayExtension {
    let mut newest = new.clone();
    newest.metadata.creation_timestamp = None;
    newest
}

fn violation(finding: &Finding) -> Violation {
    let repeated = format!("invalid: {}: ", finding.field);
    let message = finding
        .message
        .strip_prefix(&repeated)
        .unwrap_or(&finding.message);
    Violation::new("spec", finding.field, finding.reason().as_str(), message)
}

/// The short form of what reconcile would say at length. Conflicts are not warnings: admission refuses them.
fn warning(new: &MCPGatewayExtension, finding: &Finding) -> Option<Warning> {
    let gateway = gateway_of(new);
    let namespace = ObjectKey::of(&new.metadata).namespace;
    let listener = &new.spec.target_ref.section_name;
    let what = match finding.rule {
        Rule::Spec | Rule::Namespace | Rule::GatewayExclusive | Rule::PortExclusive => return None,
        // A public host that is given and wrong is a violation of its own.
        Rule::Hostname if new.spec.public_host.is_some() => return None,
        Rule::Grant => format!(
            "ReferenceGrant required in namespace {} for {namespace}",
            gateway.namespace
        ),
        Rule::Gateway => format!("gateway {gateway} not found yet"),
        Rule::Listener => format!("listener {listener:?} not found on gateway {gateway} yet"),
        Rule::Protocol => format!("listener {listener:?} is neither HTTP nor HTTPS with Terminate"),
        Rule::AllowedRoutes => {
            format!("listener {listener:?} does not allow routes from namespace {namespace}")
        }
        Rule::Hostname => format!("listener {listener:?} has no hostname; set spec.publicHost"),
    };
    Some(Warning::new(finding.rule.as_str(), finding.field, what))
}

fn gateway_warnings(new: &MCPGatewayExtension, gateway: &Gateway) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let host = new.spec.public_host.as_deref().map(hosts::without_port);
    let listener = gateway.listener(&new.spec.target_ref.section_name);
    if let (Some(host), Some(served)) = (host, listener.and_then(|listener| listener.hostname.as_deref()))
        && !hosts::intersect(Some(host), Some(served))
    {
        let what = format!("{host} is outside the listener's hostname {served}");
        warnings.push(Warning::new("public-host", "spec.publicHost", what));
    }
    if let Some(value) = gateway.unknown_scope() {
        let what = format!(
            "annotation {} of gateway {} is {value:?}; taken as {}",
            names::SCOPE_ANNOTATION,
            gateway.key,
            names::SCOPE_GATEWAY
        );
        warnings.push(Warning::new("scope", "spec.targetRef", what));
    }
    warnings
}

/// Secrets that must be labelled for us and must not be the operator's own.
fn shared_secrets(new: &MCPGatewayExtension) -> Vec<SecretUse<'_>> {
    let store = new
        .spec
        .session_store
        .as_ref()
        .map(|store| store.secret_name.as_str());
    let bundle = new
        .spec
        .ca_cert_bundle_ref
        .as_ref()
        .map(|bundle| bundle.name.as_str());
    [
        ("spec.sessionStore.secretName", store),
        ("spec.caCertBundleRef.name", bundle),
    ]
    .into_iter()
    .filter_map(|(field, name)| Some(SecretUse { field, name: name? }))
    .collect()
}

fn secret_warnings(new: &MCPGatewayExtension, facts: &Facts) -> Vec<Warning> {
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let mut warnings: Vec<Warning> = shared_secrets(new)
        .into_iter()
        .filter_map(|used| secrets::warning(used, namespace, facts))
        .collect();
    warnings.extend(
        new.spec
            .trusted_headers_key
            .as_ref()
            .and_then(|key| key_warning(new, key, facts)),
    );
    warnings
}

fn key_warning(new: &MCPGatewayExtension, key: &TrustedHeadersKey, facts: &Facts) -> Option<Warning> {
    let field = "spec.trustedHeadersKey.secretName";
    let secret = ObjectKey::new(
        new.metadata.namespace.as_deref().unwrap_or_default(),
        key.secret_name.as_str(),
    );
    match (key.generate, facts.secrets.get(&key.secret_name)?) {
        (Switch::Disabled, ObjectFact::Missing) => Some(Warning::new(
            "secret",
            field,
            format!("secret {secret} not found yet"),
        )),
        (Switch::Enabled, ObjectFact::Present { controller_uid, .. })
            if controller_uid.is_none() || *controller_uid != new.metadata.uid =>
        {
            let what = format!("secret {secret} exists and is not ours; no key is generated");
            Some(Warning::new("foreign-secret", field, what))
        }
        _ => None,
    }
}
