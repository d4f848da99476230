//! Objects of files or of a cluster, put together as the world that the rules read.

use std::sync::Arc;

use mcp_gateway_api::{intake::Watched, service::Service, world::World};
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

/// The world of these objects as they are. What cannot be read is left out.
pub(crate) fn world<'a>(objects: impl IntoIterator<Item = &'a Value>) -> World {
    let mut world = World::default();
    for object in objects {
        put(&mut world, object);
    }
    world
}

/// The world of files.
pub(crate) fn world_of_files<'a>(objects: impl IntoIterator<Item = &'a Value>) -> World {
    let mut world = World::default();
    for object in objects {
        if kind(object) == Some(Watched::HttpRoute) {
            put(&mut world, &attached(object));
        } else {
            put(&mut world, object);
        }
    }
    world
}

fn kind(object: &Value) -> Option<Watched> {
    Watched::from_name(object.get("kind").and_then(Value::as_str).unwrap_or_default())
}

fn put(world: &mut World, object: &Value) {
    if let Some(kind) = kind(object) {
        drop(kind.put(world, object));
    } else if object.get("kind").is_some_and(|kind| kind == "Service")
        && let Ok(service) = Service::from_value(object)
    {
        world.set_service(Arc::new(service));
    }
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
