//! The world of a cluster: the kinds that decide, listed once.

use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{names, world::World};
use serde_json::Value;

use super::ExplainError;
use crate::world::world as of_objects;

/// Objects that are listed at once.
const PAGE: u32 = 500;

/// Lists what the cluster of the current context holds.
pub(super) async fn world() -> Result<World, ExplainError> {
    let client = Client::try_default().await.map_err(Box::new)?;
    let ours = |kind, plural| (names::GROUP, names::VERSION, kind, plural);
    let kinds = [
        ours("MCPGatewayExtension", "mcpgatewayextensions"),
        ours("MCPServerRegistration", "mcpserverregistrations"),
        ours("MCPVirtualServer", "mcpvirtualservers"),
        ours("MCPAuthPolicy", "mcpauthpolicies"),
        (names::GATEWAY_API_GROUP, "v1", "Gateway", "gateways"),
    ];
    let mut objects = Vec::new();
    for (group, version, kind, plural) in kinds {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await.map_err(Box::new)?;
            for object in list.items {
                let mut object = serde_json::to_value(object).unwrap_or(Value::Null);
                // Members of a list do not carry their kind.
                if let Some(members) = object.as_object_mut() {
                    members.insert("kind".to_owned(), kind.into());
                    members.insert("apiVersion".to_owned(), resource.api_version.clone().into());
                }
                objects.push(object);
            }
            match list.metadata.continue_ {
                Some(token) if !token.is_empty() => page = page.continue_token(&token),
                _ => break,
            }
        }
    }
    Ok(of_objects(objects.iter()))
}
