//! What users are told about a config document that changed (operator.md 11.4). Pure, but for the telling.

use kube::runtime::events::EventType;
use mcp_gateway_api::{config::GatewayConfig, extension::Authorization};

use super::validate::Validated;
use crate::{brokers::Contents, context::Context, kinds::Kind};

/// What a document changes in the one that is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// It is another one.
    pub(super) is_new: bool,
    /// The stored one had policies and this one has none.
    lost_policies: bool,
}

impl Change {
    /// From the `stored` document to one with this hash and these contents.
    pub(super) fn to(hash: &str, contents: &Contents, stored: Option<&GatewayConfig>) -> Self {
        Self {
            is_new: stored.is_none_or(|stored| stored.hash != hash),
            lost_policies: contents.policies.is_empty()
                && stored.is_some_and(|stored| !stored.auth_policies.is_empty()),
        }
    }
}

/// Tells what the document that was just written changes.
pub(super) async fn tell(context: &Context, validated: &Validated) {
    let change = validated.change;
    let Some(extension) = context.cache.get(Kind::Extension, &validated.blueprint.key) else {
        return;
    };
    let subject = (Kind::Extension, &extension);
    if change.is_new {
        let Contents {
            served,
            virtual_servers,
            policies,
            ..
        } = &validated.contents;
        let note = format!(
            "config {}: {} servers, {} virtual servers, {} policies",
            validated.config.hash,
            served.len(),
            virtual_servers.len(),
            policies.len()
        );
        let events = &context.events;
        events
            .publish(subject, EventType::Normal, "ConfigUpdated", &note)
            .await;
    }
    if change.lost_policies && validated.oversize.is_none() {
        let note = match validated.blueprint.extension.spec.authorization {
            Authorization::Required => {
                "the last MCPAuthPolicy of this gateway is gone; spec.authorization is Required, so nothing passes until there is one"
            }
            Authorization::WhenPolicies => {
                "the last MCPAuthPolicy of this gateway is gone; every caller may use everything; set spec.authorization to Required to keep it closed"
            }
        };
        let events = &context.events;
        events
            .publish(subject, EventType::Warning, "LastPolicyRemoved", note)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::config::parse;

    use super::*;

    #[test]
    fn only_a_document_that_had_policies_can_lose_them() {
        let stored = |policies: &str| {
            parse(&format!(
                "servers: []\nvirtualServers: []\nhash: old\nauthPolicies: {policies}\n"
            ))
            .expect("a document")
        };
        let policy = stored(
            "[{name: ns/p, generation: 1, valid: true, targets: [], defaultAction: Deny, providers: [], rules: []}]",
        );
        let none = Contents::default();
        let some = Contents {
            policies: [(mcp_gateway_api::object_key::ObjectKey::new("ns", "p"), 1)].into(),
            ..Contents::default()
        };
        let lost = |contents: &Contents, stored: Option<&GatewayConfig>| {
            Change::to("new", contents, stored).lost_policies
        };
        assert!(lost(&none, Some(&policy)));
        assert!(!lost(&some, Some(&policy)));
        assert!(!lost(&none, Some(&stored("[]"))));
        assert!(!lost(&none, None));
        assert!(Change::to("new", &none, None).is_new);
        assert!(!Change::to("old", &none, Some(&policy)).is_new);
    }
}
