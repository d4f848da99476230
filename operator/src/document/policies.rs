//! The policies in a document (operator.md 10.4, 10.6): every live one that concerns the extension, oldest first. One
//! that is not accepted is there without rules, so that nothing that it concerns is open.

use mcp_gateway_api::{attachment, config::AuthPolicyEntry};

use super::Sources;
use crate::policies;

/// The entries, and whether something could not be read now: a policy then keeps its former entry.
pub(super) fn entries(sources: &Sources<'_>) -> (Vec<AuthPolicyEntry>, bool) {
    let mut inconclusive = false;
    let mut entries = Vec::new();
    for policy in attachment::by_age(&sources.snapshot.world) {
        let of = (sources.extension, sources.accepted);
        let Some((entry, refusal)) = policies::entry(sources.snapshot, of, policy, sources.policy_inputs)
        else {
            continue;
        };
        let unreadable = refusal.is_some_and(|refusal| refusal.inconclusive);
        inconclusive |= unreadable;
        let former = sources.former.filter(|_| unreadable).and_then(|former| {
            let same =
                |other: &&AuthPolicyEntry| other.name == entry.name && other.generation == entry.generation;
            former.auth_policies.iter().find(same)
        });
        entries.push(former.cloned().unwrap_or(entry));
    }
    (entries, inconclusive)
}
