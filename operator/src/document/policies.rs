//! The policies in a document (operator.md 10.4, 10.6): every live one is there, so that nothing that it concerns is
//! open, and a policy that is attached to the Gateway, listener or extension closes the endpoint.

use mcp_gateway_api::{
    auth_policy::{MCPAuthPolicy, PolicyTargetKind},
    config::{AuthPolicyEntry, PolicyAction, PolicyTarget},
    extension::Authorization,
    object_key::{ObjectKey, is_live},
};

use super::Sources;
use crate::snapshot::Snapshot;

/// Every live policy, so that nothing that one concerns is open. Resolving rules and keys is not done yet: each entry
/// is written as not valid, which denies everything that it concerns (operator.md 10.4).
pub(super) fn entries(snapshot: &Snapshot) -> Vec<AuthPolicyEntry> {
    let live = snapshot
        .world
        .policies()
        .filter(|policy| is_live(&policy.metadata));
    live.map(|policy| AuthPolicyEntry {
        name: ObjectKey::of(&policy.metadata).to_string(),
        generation: policy.metadata.generation.unwrap_or_default(),
        valid: false,
        targets: targets(snapshot, policy),
        default_action: PolicyAction::Deny,
        providers: Vec::new(),
        rules: Vec::new(),
    })
    .collect()
}

fn targets(snapshot: &Snapshot, policy: &MCPAuthPolicy) -> Vec<PolicyTarget> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let named = policy.spec.target_refs.iter().map(|target| {
        let key = ObjectKey::new(namespace, target.name.as_str());
        let port = target.section_name.as_deref().and_then(|section| {
            let listener = snapshot.world.gateway(&key)?.listener(section)?;
            u16::try_from(listener.port).ok()
        });
        PolicyTarget {
            kind: format!("{:?}", target.kind),
            name: key.to_string(),
            port,
        }
    });
    named.collect()
}

/// True when a policy, valid or not, attaches to the Gateway, the listener's port or the extension.
pub(super) fn required(sources: &Sources<'_>) -> bool {
    let accepted = sources.accepted;
    let gateway = accepted.gateway();
    let concerns = |policy: &MCPAuthPolicy| {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        policy.spec.target_refs.iter().any(|target| match target.kind {
            PolicyTargetKind::Gateway => {
                gateway.key == ObjectKey::new(namespace, target.name.as_str())
                    && target.section_name.as_deref().is_none_or(|section| {
                        gateway
                            .listener(section)
                            .is_none_or(|listener| listener.port == accepted.listener().port)
                    })
            }
            PolicyTargetKind::MCPGatewayExtension => {
                *accepted.extension() == ObjectKey::new(namespace, target.name.as_str())
            }
            _ => false,
        })
    };
    sources.extension.spec.authorization == Authorization::Required
        || sources
            .snapshot
            .world
            .policies()
            .any(|policy| is_live(&policy.metadata) && concerns(policy))
}
