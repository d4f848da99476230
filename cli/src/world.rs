//! Objects of files or of a cluster, put together as the world that the rules read.

use mcp_gateway_api::{intake::Watched, world::World};
use serde_json::{Value, json};

/// The object with `namespace` as its namespace, when it names none and needs one.
pub(crate) fn placed(mut object: Value, namespace: &str) -> Value {
    let cluster_scoped = object.get("kind").is_some_and(|kind| kind == "Namespace");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && !cluster_scoped
    {
        metadata.entry("namespace").or_insert(json!(namespace));
    }
    object
}

/// The world of these objects. What cannot be read is left out.
pub(crate) fn world<'a>(objects: impl Iterator<Item = &'a Value>) -> World {
    let mut world = World::default();
    for object in objects {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        match Watched::from_name(kind) {
            Some(Watched::HttpRoute) => drop(Watched::HttpRoute.put(&mut world, &attached(object))),
            Some(kind) => drop(kind.put(&mut world, object)),
            None => {}
        }
    }
    world
}

/// A route of a file has no status: its parents are taken to accept it, because nothing here can say otherwise.
fn attached(route: &Value) -> Value {
    let mut route = route.clone();
    let parents = route
        .pointer("/spec/parentRefs")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let accepted = |parent: Value| json!({"controllerName": "mcpgw-lint", "parentRef": parent, "conditions": [{"type": "Accepted", "status": "True"}]});
    if let Some(members) = route.as_object_mut() {
        let parents: Vec<Value> = parents.into_iter().map(accepted).collect();
        members
            .entry("status")
            .or_insert_with(|| json!({"parents": parents}));
    }
    route
}
