//! `ResourcesResolved` of a policy (operator.md 10.5): whether what it names is there, which is the keys of its issuers,
//! as the brokers fetch them, and the items of its rules, as the brokers serve them. Pure over what the brokers said.

use mcp_gateway_api::{
    auth_policy::{JwtProvider, MCPAuthPolicy, ResourceKind},
    authorization::{GATEWAY_SERVER, resource_name_covers},
    broker_status::KeyProblem,
    conditions::{PolicyReason, name_list},
    object_key::ObjectKey,
};

use crate::{brokers::Namespace, policies::providers};

/// The extensions concerned with what their brokers said.
pub(super) type Observed<'a> = Vec<(&'a ObjectKey, &'a Namespace)>;

/// What is wrong, the gravest first.
pub(super) fn problems(policy: &MCPAuthPolicy, observed: &Observed<'_>) -> Vec<(PolicyReason, String)> {
    let mut found: Vec<_> = providers(policy)
        .flat_map(|provider| observed.iter().filter_map(|one| of_keys(provider, *one)))
        .chain(of_rules(policy, observed))
        .collect();
    found.sort_by_key(|(reason, _)| match reason {
        PolicyReason::KeysUnavailable => 0,
        PolicyReason::KeysStale => 1,
        _ => 2,
    });
    found
}

/// What the replicas of an extension say about the keys of one issuer; the words are those of the one that fares worst.
fn of_keys(
    provider: &JwtProvider,
    (extension, observed): (&ObjectKey, &Namespace),
) -> Option<(PolicyReason, String)> {
    let reported = observed.replicas.values().filter_map(|replica| {
        let mut problems = replica.status.iter().flat_map(|status| &status.key_problems);
        problems.find(|problem| problem.issuer == provider.issuer)
    });
    let reported: Vec<&KeyProblem> = reported.collect();
    let worst = reported.iter().min_by_key(|problem| problem.usable)?;
    let (reason, effect) = if worst.usable {
        (PolicyReason::KeysStale, "callers are still verified")
    } else {
        (
            PolicyReason::KeysUnavailable,
            "callers with its tokens are answered with 503",
        )
    };
    let what = match &provider.jwks.remote {
        Some(remote) => format!(
            "make {} answer to pods of namespace {}, and name its CA in caCertSecretRef when it is a private one",
            remote.url, extension.namespace
        ),
        None => "correct the keys".to_owned(),
    };
    let message = format!(
        "keys of issuer {} {} ({}/{} replicas of {extension}); {effect}; {what}",
        provider.issuer,
        worst.message,
        reported.len(),
        observed.replicas.len()
    );
    Some((reason, message))
}

fn of_rules(policy: &MCPAuthPolicy, observed: &Observed<'_>) -> Option<(PolicyReason, String)> {
    let named = policy
        .spec
        .rules
        .iter()
        .map(|rule| (rule.resource.kind, rule.resource.name.as_str()));
    let unknown: Vec<&str> = named
        .filter(|(kind, name)| *name != "*" && !observed.iter().any(|(_, one)| offers(one, *kind, name)))
        .map(|(_, name)| name)
        .collect();
    if unknown.is_empty() {
        return None;
    }
    let message = format!(
        "nobody serves: {}; names are <namespace>/<server>:<item> without the prefix",
        name_list(unknown)
    );
    Some((PolicyReason::UnknownResource, message))
}

/// True when some replica offers an item that the name covers.
fn offers(observed: &Namespace, kind: ResourceKind, name: &str) -> bool {
    // The gateway's own tools are not listed by any server.
    if name
        .strip_prefix(GATEWAY_SERVER)
        .is_some_and(|rest| rest.starts_with(':'))
    {
        return true;
    }
    let items = observed.replicas.values().flat_map(|replica| &replica.items);
    items.into_iter().any(|(server, items)| {
        let list = match kind {
            ResourceKind::Tool => &items.tools,
            ResourceKind::Prompt => &items.prompts,
            ResourceKind::Resource => &items.resources,
        };
        list.iter()
            .any(|item| resource_name_covers(name, server, &item.name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcp_gateway_api::broker_status::BrokerStatus;
    use serde_json::json;

    use super::*;
    use crate::brokers::Replica;

    fn replica(pod: &str, problem: Option<(bool, &str)>) -> (String, Replica) {
        let problem = problem.map(|(usable, message)| KeyProblem {
            issuer: "https://issuer.example".to_owned(),
            usable,
            message: message.to_owned(),
        });
        let status = BrokerStatus {
            key_problems: problem.into_iter().collect(),
            ..BrokerStatus::default()
        };
        let replica = Replica {
            status: Some(status),
            ..Replica::default()
        };
        (pod.to_owned(), replica)
    }

    fn judged(replicas: &[(String, Replica)]) -> Vec<(PolicyReason, String)> {
        let policy = serde_json::from_value(json!({
            "apiVersion": "mcp.kuadrant.io/v1alpha1", "kind": "MCPAuthPolicy", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"targetRefs": [{"name": "gw"}], "authentication": {"jwt": {"providers": [
                {"name": "p", "issuer": "https://issuer.example", "jwks": {"remote": {"url": "https://issuer.example/keys"}}}]}},
                "rules": [{"resource": {"kind": "tool", "name": "ns/none:add"}}]}
        }))
        .unwrap();
        let observed = Namespace {
            replicas: replicas.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..Namespace::default()
        };
        problems(&policy, &vec![(&ObjectKey::new("team", "ext"), &observed)])
    }

    #[test]
    fn missing_keys_come_before_old_ones_and_both_before_names_that_nobody_serves() {
        let reasons = |replicas: &[(String, Replica)]| {
            let found = judged(replicas);
            found.into_iter().map(|(reason, _)| reason).collect::<Vec<_>>()
        };
        let stale = replica("b", Some((true, "are still those fetched at T: answered 500")));
        assert_eq!(reasons(&[replica("a", None)]), [PolicyReason::UnknownResource]);
        assert_eq!(
            reasons(&[replica("a", None), stale.clone()]),
            [PolicyReason::KeysStale, PolicyReason::UnknownResource]
        );
        let never = replica("c", Some((false, "were never loaded: cannot be reached")));
        let found = judged(&[replica("a", None), stale, never]);
        assert_eq!(found[0].0, PolicyReason::KeysUnavailable);
        assert_eq!(
            found[0].1,
            "keys of issuer https://issuer.example were never loaded: cannot be reached (2/3 replicas of team/ext); \
             callers with its tokens are answered with 503; make https://issuer.example/keys answer to pods of namespace \
             team, and name its CA in caCertSecretRef when it is a private one"
        );
    }
}
