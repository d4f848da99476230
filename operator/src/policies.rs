//! A policy, resolved (operator.md 10): what it is attached to, whether it is accepted, and how the brokers get it. Pure
//! over the snapshot and what was read; the document and the policy's own status ask the same functions.

use std::collections::BTreeSet;

use mcp_gateway_api::{
    acceptance::Accepted,
    admission::jwks,
    attachment::{self, Entrance, acceptable, by_age, is_on, target_key},
    auth_policy::{JwtProvider, MCPAuthPolicy, PolicyTargetKind, PolicyTargetRef},
    conditions::{ExtensionReason, PolicyReason},
    config::{AuthPolicyEntry, PolicyProvider},
    extension::MCPGatewayExtension,
    object_key::ObjectKey,
    world::World,
};

use crate::{
    secrets::{Demand, MAX_SERVER_CA, Reading, Readings, SecretProblem, certificates_for, value_for},
    snapshot::Snapshot,
};

/// Largest key document of a Secret or ConfigMap in bytes.
const MAX_JWKS: usize = 65_536;

/// What the policies' references were read as.
#[derive(Clone, Copy)]
pub(crate) struct PolicyInputs<'a> {
    pub(crate) secrets: &'a Readings,
    pub(crate) config_maps: &'a Readings,
}

/// Why a policy is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: PolicyReason,
    pub(crate) message: String,
    /// The API server could not be asked: the former entry stays in use.
    pub(crate) inconclusive: bool,
}

/// True when the target has to do with what this extension serves.
pub(crate) fn concerns(
    snapshot: &Snapshot,
    accepted: &Accepted,
    (policy, target): (&MCPAuthPolicy, &PolicyTargetRef),
) -> bool {
    let entrance = Entrance {
        gateway: accepted.gateway(),
        port: accepted.listener().port,
        extension: accepted.extension(),
    };
    match target.kind {
        PolicyTargetKind::MCPServerRegistration => {
            let key = target_key(policy, target);
            let mut served = snapshot.plan.served_by(accepted.extension());
            served.any(|(registration, _)| *registration == key)
        }
        PolicyTargetKind::MCPVirtualServer => true,
        PolicyTargetKind::Gateway | PolicyTargetKind::MCPGatewayExtension => is_on(&entrance, policy, target),
    }
}

/// Secrets and ConfigMaps that the providers of a policy name.
pub(crate) fn references(policy: &MCPAuthPolicy) -> (BTreeSet<ObjectKey>, BTreeSet<ObjectKey>) {
    let beside = |name: &str| ObjectKey::new(namespace_of(policy), name);
    let (mut secrets, mut config_maps) = (BTreeSet::new(), BTreeSet::new());
    for provider in providers(policy) {
        let jwks = &provider.jwks;
        secrets.extend(jwks.secret_ref.iter().map(|named| beside(&named.name)));
        config_maps.extend(jwks.config_map_ref.iter().map(|named| beside(&named.name)));
        let bundle = jwks
            .remote
            .iter()
            .filter_map(|remote| remote.ca_cert_secret_ref.as_ref());
        secrets.extend(bundle.map(|named| beside(&named.name)));
    }
    (secrets, config_maps)
}

fn namespace_of(policy: &MCPAuthPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or_default()
}

/// The issuers that a policy declares.
pub(crate) fn providers(policy: &MCPAuthPolicy) -> impl Iterator<Item = &JwtProvider> {
    let authentication = policy.spec.authentication.iter();
    authentication.flat_map(|authentication| &authentication.jwt.providers)
}

/// The entry of a policy in the document of `extension`, with the targets that concern it; nothing when none does.
pub(crate) fn entry(
    snapshot: &Snapshot,
    (extension, accepted): (&MCPGatewayExtension, &Accepted),
    policy: &MCPAuthPolicy,
    inputs: PolicyInputs<'_>,
) -> Option<(AuthPolicyEntry, Option<Refusal>)> {
    let targets: Vec<&PolicyTargetRef> = policy
        .spec
        .target_refs
        .iter()
        .filter(|target| concerns(snapshot, accepted, (policy, target)))
        .collect();
    if targets.is_empty() {
        return None;
    }
    let entry = |accepted_policy| {
        attachment::entry(
            policy,
            targets.iter().copied(),
            accepted.listener().port,
            accepted_policy,
        )
    };
    match judge(&snapshot.world, policy, inputs) {
        Ok(mut providers) => {
            let audiences = audiences(extension, accepted);
            for provider in &mut providers {
                if provider.audiences.is_empty() {
                    provider.audiences.clone_from(&audiences);
                }
            }
            let entry = AuthPolicyEntry {
                providers,
                ..entry(true)
            };
            Some((entry, None))
        }
        Err(refusal) => Some((entry(false), Some(refusal))),
    }
}

/// What tokens are for when the provider does not say: the resource that the metadata names. Clients learn it with the
/// scheme and port at which they asked, and ask for a token for that (RFC 8707).
fn audiences(extension: &MCPGatewayExtension, accepted: &Accepted) -> Vec<String> {
    let named = extension.spec.oauth_protected_resource.as_ref();
    if let Some(resource) = named.and_then(|oauth| oauth.resource.clone()) {
        return vec![resource];
    }
    let mut audiences = vec![format!("https://{}/mcp", accepted.public_host()), accepted.url()];
    audiences.dedup();
    audiences
}

/// Whether the policy is accepted; its providers with their keys, audiences as the policy says them.
pub(crate) fn judge(
    world: &World,
    policy: &MCPAuthPolicy,
    inputs: PolicyInputs<'_>,
) -> Result<Vec<PolicyProvider>, Refusal> {
    acceptable(world, policy).map_err(|(reason, message)| Refusal {
        reason,
        message,
        inconclusive: false,
    })?;
    providers(policy)
        .map(|provider| resolved(policy, provider, inputs))
        .collect()
}

fn resolved(
    policy: &MCPAuthPolicy,
    provider: &JwtProvider,
    inputs: PolicyInputs<'_>,
) -> Result<PolicyProvider, Refusal> {
    let mut entry = PolicyProvider {
        name: provider.name.clone(),
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.clone(),
        algorithms: provider.algorithms.iter().map(|one| format!("{one:?}")).collect(),
        leeway_seconds: u32::try_from(provider.leeway_seconds).ok(),
        required_scopes: provider.required_scopes.clone(),
        ..PolicyProvider::default()
    };
    let beside = |name: &str| ObjectKey::new(namespace_of(policy), name);
    let jwks = &provider.jwks;
    if let Some(inline) = &jwks.inline {
        entry.jwks.clone_from(inline);
    } else if let Some(named) = &jwks.secret_ref {
        let secret = beside(&named.name);
        let demand = demand(
            &secret,
            &named.key,
            "authentication.jwt.providers[].jwks.secretRef",
        );
        let value = value_for(inputs.secrets, &demand).map_err(of_secret)?;
        entry.jwks = key_document(value, &format!("secret {secret}"), PolicyReason::SecretInvalid)?;
    } else if let Some(named) = &jwks.config_map_ref {
        entry.jwks = of_config_map(inputs.config_maps, &beside(&named.name), &named.key)?;
    } else if let Some(remote) = &jwks.remote {
        entry.jwks_url.clone_from(&remote.url);
        entry.refresh_interval_seconds = u32::try_from(remote.refresh_interval_seconds).ok();
        if let Some(named) = &remote.ca_cert_secret_ref {
            let secret = beside(&named.name);
            let field = "authentication.jwt.providers[].jwks.remote.caCertSecretRef";
            let demand = demand(&secret, &named.key, field);
            let bundle = certificates_for(inputs.secrets, &demand, MAX_SERVER_CA).map_err(of_secret)?;
            bundle.clone_into(&mut entry.jwks_ca_cert);
        }
    }
    Ok(entry)
}

fn demand<'a>(secret: &'a ObjectKey, key: &'a str, field: &'a str) -> Demand<'a> {
    Demand {
        secret,
        key,
        field,
        label: true,
    }
}

fn of_secret(problem: SecretProblem) -> Refusal {
    Refusal {
        reason: if problem.reason == ExtensionReason::SecretNotFound {
            PolicyReason::SecretNotFound
        } else {
            PolicyReason::SecretInvalid
        },
        message: problem.message,
        inconclusive: problem.inconclusive,
    }
}

fn of_config_map(config_maps: &Readings, key: &ObjectKey, member: &str) -> Result<String, Refusal> {
    let field = "spec.authentication.jwt.providers[].jwks.configMapRef";
    let absent = |message: String, inconclusive| Refusal {
        reason: PolicyReason::ConfigMapNotFound,
        message,
        inconclusive,
    };
    match config_maps.get(key) {
        Some(Reading::Present(content)) => {
            let value = content.value(member).ok_or_else(|| Refusal {
                reason: PolicyReason::Invalid,
                message: format!("configmap {key}: missing key {member}"),
                inconclusive: false,
            })?;
            key_document(value, &format!("configmap {key}"), PolicyReason::Invalid)
        }
        Some(Reading::Absent) => Err(absent(
            format!("configmap {key} not found ({field}); create it"),
            false,
        )),
        Some(Reading::Unknown) | None => Err(absent(
            format!("configmap {key} cannot be read now ({field}); retrying"),
            true,
        )),
    }
}

fn key_document(value: &[u8], place: &str, reason: PolicyReason) -> Result<String, Refusal> {
    let refusal = |what: &str| Refusal {
        reason,
        message: format!("{place}: {what}"),
        inconclusive: false,
    };
    if value.len() > MAX_JWKS {
        return Err(refusal("is larger than 65536 bytes"));
    }
    let text = std::str::from_utf8(value).map_err(|_| refusal("is not JSON; give a JWK set"))?;
    jwks::check(text).map_err(|what| refusal(&what))?;
    Ok(text.to_owned())
}

/// An older policy on the same target that declares one of this policy's issuers otherwise.
pub(crate) fn overruled_by<'a>(
    world: &'a World,
    policy: &MCPAuthPolicy,
) -> Option<(&'a MCPAuthPolicy, String)> {
    let own = ObjectKey::of(&policy.metadata);
    let older = by_age(world)
        .into_iter()
        .take_while(|other| ObjectKey::of(&other.metadata) != own)
        .filter(|other| {
            namespace_of(other) == namespace_of(policy)
                && other
                    .spec
                    .target_refs
                    .iter()
                    .any(|target| policy.spec.target_refs.contains(target))
        });
    older
        .flat_map(|other| providers(other).map(move |theirs| (other, theirs)))
        .find_map(|(other, theirs)| {
            let ours = providers(policy).find(|ours| ours.issuer == theirs.issuer)?;
            let same = ours.jwks == theirs.jwks
                && ours.audiences == theirs.audiences
                && ours.algorithms == theirs.algorithms;
            (!same).then(|| (other, theirs.issuer.clone()))
        })
}

#[cfg(test)]
mod tests;
