//! Advice on objects of others: what stops when a Gateway or a ReferenceGrant is deleted. It warns and never refuses,
//! because they belong to somebody else.

use serde_json::Value;

use super::{Kind, MAX_WARNINGS, Warning};
use crate::{
    gateway::Gateway,
    grant::{Reference, ReferenceGrant},
    intake::Watched,
    names,
    object_key::{ObjectKey, is_live},
    world::{World, gateway_of},
};

/// Warnings about the deletion of `object`, a Gateway or a ReferenceGrant; none for anything else.
#[must_use]
pub fn on_delete(world: &World, object: &Value) -> Vec<Warning> {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .and_then(Watched::from_name);
    let mut warnings = match kind {
        Some(Watched::Gateway) => {
            Gateway::from_value(object).map_or_else(|_| vec![], |gateway| of_gateway(world, &gateway.key))
        }
        Some(Watched::ReferenceGrant) => match ReferenceGrant::from_value(object) {
            Ok(Some(grant)) => of_grant(world, &grant),
            _ => vec![],
        },
        _ => vec![],
    };
    warnings.truncate(MAX_WARNINGS);
    warnings
}

fn of_gateway(world: &World, gateway: &ObjectKey) -> Vec<Warning> {
    world
        .extensions_of(gateway)
        .filter(|extension| is_live(&extension.metadata))
        .map(|extension| {
            let what = format!(
                "MCPGatewayExtension {} stops serving",
                ObjectKey::of(&extension.metadata)
            );
            Warning::new("gateway-in-use", "metadata.name", what)
        })
        .collect()
}

/// Extensions that no other grant lets refer to their Gateway.
fn of_grant(world: &World, grant: &ReferenceGrant) -> Vec<Warning> {
    let depends = |from_namespace: &str, target: &ObjectKey| {
        let reference = Reference {
            from: (names::GROUP, Kind::Extension.as_str()),
            from_namespace,
            to: (names::GATEWAY_API_GROUP, "Gateway"),
            target,
        };
        let others = world
            .grants_in(&target.namespace)
            .filter(|other| other.key != grant.key);
        target.namespace != from_namespace
            && grant.permits(&reference)
            && !others.into_iter().any(|other| other.permits(&reference))
    };
    world
        .extensions()
        .filter(|extension| is_live(&extension.metadata))
        .filter(|extension| {
            let own = extension.metadata.namespace.as_deref().unwrap_or_default();
            depends(own, &gateway_of(extension))
        })
        .map(|extension| {
            let what = format!(
                "MCPGatewayExtension {} loses its Gateway",
                ObjectKey::of(&extension.metadata)
            );
            Warning::new("grant-in-use", "metadata.name", what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::WorldBuilder;

    fn texts(world: &World, object: &Value) -> Vec<String> {
        on_delete(world, object)
            .into_iter()
            .map(|warning| warning.text)
            .collect()
    }

    fn grant(name: &str, namespace: &str) -> Value {
        json!({"kind": "ReferenceGrant", "metadata": {"namespace": "infra", "name": name}, "spec": {
            "from": [{"group": names::GROUP, "kind": "MCPGatewayExtension", "namespace": namespace}],
            "to": [{"group": names::GATEWAY_API_GROUP, "kind": "Gateway"}]}})
    }

    #[test]
    fn deleting_a_gateway_names_the_extensions_on_it() {
        let world = WorldBuilder::default()
            .gateway(None)
            .extension("team/e", 1, "infra/gw", "mcp")
            .0;
        let gateway = json!({"kind": "Gateway", "metadata": {"namespace": "infra", "name": "gw"}});
        assert_eq!(
            texts(&world, &gateway),
            ["metadata.name: MCPGatewayExtension team/e stops serving"]
        );
        let other = json!({"kind": "Gateway", "metadata": {"namespace": "infra", "name": "other"}});
        assert!(texts(&world, &other).is_empty());
        assert!(
            texts(
                &world,
                &json!({"kind": "Secret", "metadata": {"name": "gw", "namespace": "infra"}})
            )
            .is_empty()
        );
    }

    #[test]
    fn deleting_a_grant_names_only_those_that_have_no_other() {
        let builder = WorldBuilder::default()
            .gateway(None)
            .extension("team/e", 1, "infra/gw", "mcp");
        let world = builder.gateway_grant("team").0;
        let expected = ["metadata.name: MCPGatewayExtension team/e loses its Gateway"];
        assert_eq!(texts(&world, &grant("grant-team-Gateway", "team")), expected);
        assert!(texts(&world, &grant("grant-team-Gateway", "other")).is_empty());
        assert!(
            texts(&world, &grant("second", "team")).is_empty(),
            "the first one still grants"
        );
    }
}
