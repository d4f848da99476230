//! The apply engine: compare over the owned fields, then one conditional server-side apply (operator.md 4.3, 6).
//! Invariant: an object that is not ours is never written or deleted, and an object that is settled costs no request.

use std::sync::Arc;

use json_patch::{PatchOperation, ReplaceOperation, jsonptr::PointerBuf};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
    runtime::events::EventType,
};
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::{Value, json};

use crate::{
    blueprint::Blueprint,
    children::Child,
    context::Context,
    fields::{Drift, drift, is_settled},
    kinds::Kind,
    ownership::handed_over,
    queue::WorkItem,
    standing::{Standing, standing},
};

mod removal;

pub(crate) use removal::remove;

/// How often a conflicting write is tried with a fresh read.
pub(crate) const ATTEMPTS: usize = 5;

/// Makes a child from the live object, if there is one.
type Make = Box<dyn Fn(Option<&Value>) -> Child + Send + Sync>;

/// A child to be brought to its wanted state: its body can depend on the live object.
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    pub(crate) key: ObjectKey,
    make: Make,
    /// The object as it was just read, for a kind whose contents are not watched.
    read: Option<Arc<Value>>,
    /// Its body takes something of the live object, which is then read right before the write.
    merged: bool,
}

impl Resource {
    /// A child that does not depend on the live object.
    pub(crate) fn fixed(child: Child) -> Self {
        Self {
            kind: child.kind,
            key: child.key.clone(),
            make: Box::new(move |_| child.clone()),
            read: None,
            merged: false,
        }
    }

    /// The object was read as this a moment ago, so that it is not read again to be compared.
    pub(crate) fn read_as(self, read: Option<Arc<Value>>) -> Self {
        Self { read, ..self }
    }

    /// A child that keeps something of the live object.
    pub(crate) fn merged(
        kind: Kind,
        key: ObjectKey,
        make: impl Fn(Option<&Value>) -> Child + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            key,
            make: Box::new(make),
            read: None,
            merged: true,
        }
    }
}

/// What is to happen with a child that is not always there.
pub(crate) enum Intent {
    /// It shall be as described.
    Apply(Resource),
    /// It shall be gone, if it is ours.
    Remove(Kind, ObjectKey),
    /// It is left as it is.
    Leave,
}

/// Why a child could not be brought to its wanted state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Somebody else's object has the name.
    #[error(
        "conflict: {kind} {key} exists and is not controlled by this MCPGatewayExtension; rename or delete it"
    )]
    Foreign {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        key: ObjectKey,
    },
    /// A child of a predecessor, which is on its way out.
    #[error("waiting for {kind} {key} of the terminating MCPGatewayExtension {owner}")]
    Predecessor {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        key: ObjectKey,
        /// Name of the predecessor.
        owner: String,
    },
    /// The API server says that the object is invalid.
    #[error("{kind} {key} was refused: {message}")]
    Refused {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        key: ObjectKey,
        /// What the API server says.
        message: String,
    },
    /// Anything else; worth another try.
    #[error("apply {kind} {key}: {source}")]
    Request {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        key: ObjectKey,
        /// The error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Brings one child to its wanted state; returns the object when it had to be read or written.
pub(crate) async fn settle(
    context: &Context,
    blueprint: &Blueprint,
    resource: &Resource,
) -> Result<Option<Value>, ApplyError> {
    let (kind, key) = (resource.kind, &resource.key);
    let known = if kind == Kind::Secret {
        resource.read.clone()
    } else {
        context.cache.get(kind, key).map(Arc::new)
    };
    if let Some(known) = known.as_deref()
        && standing(known, kind, blueprint) == Standing::Ours
        && settled(resource, known)
    {
        if !context.expectations.knows(&blueprint.key, (kind, key)) {
            let wanted = (resource.make)(None).body(None);
            context.expectations.note(&blueprint.key, (kind, key), &wanted);
        }
        context.metrics.applied(kind, "unchanged");
        return Ok(None);
    }
    let api = context.api(kind, &key.namespace);
    let wanted = (resource.make)(None).body(None);
    // Whatever fails on the way: what is wanted counts as seen only once the child is like that.
    let as_before = context
        .expectations
        .is_noted(&blueprint.key, (kind, key), &wanted);
    // What the cache holds can be old; what was read for this evaluation is written over in exactly that version.
    let mut read = resource.read.clone().filter(|_| !resource.merged);
    for _ in 0..ATTEMPTS {
        let attempt = Attempt {
            as_before,
            read: read.take(),
        };
        match write(context, &api, blueprint, resource, attempt).await {
            Err(kube::Error::Api(status)) if status.code == 409 => context.metrics.applied(kind, "conflict"),
            Err(error) => return Err(failed(context, kind, key, error)),
            Ok(result) => {
                if let Ok(live) = &result {
                    context.expectations.note(&blueprint.key, (kind, key), &wanted);
                    remember(context, blueprint, resource, live.as_ref());
                }
                return result;
            }
        }
    }
    let conflict = kube::core::Status::failure("too many conflicting writes", "Conflict").with_code(409);
    Err(failed(context, kind, key, kube::Error::Api(Box::new(conflict))))
}

/// The watch is ahead of itself with a Secret of ours: its own write is no news to the extension that made it.
fn remember(context: &Context, blueprint: &Blueprint, resource: &Resource, live: Option<&Value>) {
    let Some(metadata) = live.and_then(|live| live.get("metadata")) else {
        return;
    };
    if resource.kind == Kind::Secret {
        let seen = json!({"apiVersion": "v1", "kind": resource.kind.name(), "metadata": metadata});
        let mut items = context.cache.apply(resource.kind, &resource.key, seen);
        items.remove(&WorkItem::Extension(blueprint.key.clone()));
        context.queue.add(items);
    }
}

/// How a write begins.
struct Attempt {
    /// The same is wanted as before: then a difference is somebody's edit.
    as_before: bool,
    /// The object, when it was read already.
    read: Option<Arc<Value>>,
}

/// One read and what it calls for. The outer error is the API server's, the inner one is a decision of ours.
async fn write(
    context: &Context,
    api: &Api<DynamicObject>,
    blueprint: &Blueprint,
    resource: &Resource,
    attempt: Attempt,
) -> Result<Result<Option<Value>, ApplyError>, kube::Error> {
    let (kind, key) = (resource.kind, &resource.key);
    let live = match attempt.read {
        Some(read) => Some(Arc::unwrap_or_clone(read)),
        None => api.get_opt(&key.name).await?.map(raw),
    };
    let Some(live) = live else {
        return create(context, api, resource).await.map(|made| Ok(Some(made)));
    };
    let (name, key) = (kind.name(), key.clone());
    match standing(&live, kind, blueprint) {
        Standing::Ours => {}
        Standing::Predecessor(owner) => {
            return Ok(Err(ApplyError::Predecessor {
                kind: name,
                key,
                owner,
            }));
        }
        Standing::Foreign => return Ok(Err(ApplyError::Foreign { kind: name, key })),
    }
    let live = take_over(api, &(resource.make)(Some(&live)).body(None), live).await?;
    if settled(resource, &live) {
        context.metrics.applied(kind, "unchanged");
        return Ok(Ok(Some(live)));
    }
    let version = live.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    let body = (resource.make)(Some(&live)).body(version);
    let applied = api
        .patch(&key.name, &apply_params(), &Patch::Apply(&body))
        .await?;
    let applied = replace_spec(api, kind, &body, raw(applied)).await?;
    tracing::info!(kind = name, name = %key, "Applied");
    context.metrics.applied(kind, "changed");
    // A child that is wanted otherwise than before differs by our own doing.
    if let Some(drift) = drift(&body, &live, names::FIELD_MANAGER).filter(|_| attempt.as_before) {
        report(context, blueprint, resource, &drift).await;
    }
    Ok(Ok(Some(applied)))
}

/// Makes an object by POST, so that one which somebody else makes at the same moment is never taken over.
async fn create(
    context: &Context,
    api: &Api<DynamicObject>,
    resource: &Resource,
) -> Result<Value, kube::Error> {
    let body = (resource.make)(None).body(None);
    let object = serde_json::from_value(body.clone()).map_err(kube::Error::SerdeError)?;
    let params = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        dry_run: false,
    };
    let created = raw(api.create(&params, &object).await?);
    tracing::info!(kind = resource.kind.name(), name = %resource.key, "Created");
    context.metrics.applied(resource.kind, "created");
    take_over(api, &body, created).await
}

/// Hands what former managers hold of `body` to our apply, in exactly the version that was seen (operator.md 6.2).
async fn take_over(api: &Api<DynamicObject>, body: &Value, live: Value) -> Result<Value, kube::Error> {
    match handed_over(body, &live) {
        Some(fields) => {
            replace(
                api,
                &live,
                ["metadata", "managedFields"].as_slice(),
                json!(fields),
            )
            .await
        }
        None => Ok(live),
    }
}

/// Says on the extension that somebody's edit of a field of ours was set back (operator.md 6.8).
async fn report(context: &Context, blueprint: &Blueprint, resource: &Resource, drift: &Drift) {
    let (kind, key) = (resource.kind.name(), &resource.key);
    let Drift { field, manager } = drift;
    let note =
        format!("{kind} {key}: {field}, changed by {manager}, was set back; it belongs to the operator");
    tracing::info!(kind, name = %key, field, manager, "Drift reverted");
    if let Some(extension) = context.cache.get(Kind::Extension, &blueprint.key) {
        let subject = (Kind::Extension, &extension);
        context
            .events
            .publish(subject, EventType::Warning, "DriftReverted", &note)
            .await;
    }
}

/// The spec of an EnvoyFilter is ours completely (operator.md 5.8), but server-side apply leaves what others added to
/// it: then the whole spec is replaced, in exactly the version that was applied.
async fn replace_spec(
    api: &Api<DynamicObject>,
    kind: Kind,
    body: &Value,
    applied: Value,
) -> Result<Value, kube::Error> {
    let member = |object: &Value, pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    if kind != Kind::EnvoyFilter || body.get("spec") == applied.get("spec") {
        return Ok(applied);
    }
    let spec = member(body, "/spec");
    replace(api, &applied, &["spec"], spec).await
}

/// Replaces one member of an object, in exactly the version of `live`; another version is a conflict (409).
async fn replace(
    api: &Api<DynamicObject>,
    live: &Value,
    path: &[&str],
    value: Value,
) -> Result<Value, kube::Error> {
    let text = |pointer| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let step = |path: &[&str], value| {
        PatchOperation::Replace(ReplaceOperation {
            path: PointerBuf::from_tokens(path.iter().copied()),
            value,
        })
    };
    let version = json!(text("/metadata/resourceVersion"));
    let patch = json_patch::Patch(vec![
        step(path, value),
        step(&["metadata", "resourceVersion"], version),
    ]);
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(text("/metadata/name"), &params, &Patch::<()>::Json(patch))
        .await
        .map(raw)
}

/// Parameters of every server-side apply.
pub(crate) fn apply_params() -> PatchParams {
    PatchParams::apply(names::FIELD_MANAGER).force()
}

fn settled(resource: &Resource, live: &Value) -> bool {
    let wanted = (resource.make)(Some(live)).body(None);
    if handed_over(&wanted, live).is_some() {
        return false;
    }
    let whole = resource.kind != Kind::EnvoyFilter || wanted.get("spec") == live.get("spec");
    whole && is_settled(&wanted, live, names::FIELD_MANAGER, None)
}

fn failed(context: &Context, kind: Kind, key: &ObjectKey, source: kube::Error) -> ApplyError {
    context.metrics.applied(kind, "error");
    let (kind, key) = (kind.name(), key.clone());
    match source {
        kube::Error::Api(status) if status.code == 422 => ApplyError::Refused {
            kind,
            key,
            message: status.message.clone(),
        },
        source => ApplyError::Request {
            kind,
            key,
            source: Box::new(source),
        },
    }
}

/// An object as plain JSON.
pub(crate) fn raw(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests;
