//! The apply engine: compare over the owned fields, then one conditional server-side apply (operator.md 4.3, 6).
//! Invariant: an object that is not ours is never written or deleted, and an object that is settled costs no request.

use json_patch::{PatchOperation, ReplaceOperation, jsonptr::PointerBuf};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
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
    standing::{Standing, standing},
};

/// How often a conflicting write is tried with a fresh read.
pub(crate) const ATTEMPTS: usize = 5;

/// Makes a child from the live object, if there is one.
type Make = Box<dyn Fn(Option<&Value>) -> Child + Send + Sync>;

/// A child to be brought to its wanted state: its body can depend on the live object.
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    pub(crate) key: ObjectKey,
    make: Make,
}

impl Resource {
    /// A child that does not depend on the live object.
    pub(crate) fn fixed(child: Child) -> Self {
        Self {
            kind: child.kind,
            key: child.key.clone(),
            make: Box::new(move |_| child.clone()),
        }
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
    let cached = context.cache.get(kind, key).filter(|_| kind != Kind::Secret);
    if let Some(cached) = cached.as_ref()
        && standing(cached, kind, blueprint) == Standing::Ours
        && settled(resource, cached)
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
    for _ in 0..ATTEMPTS {
        match write(context, &api, blueprint, resource, as_before).await {
            Err(kube::Error::Api(status)) if status.code == 409 => context.metrics.applied(kind, "conflict"),
            Err(error) => return Err(failed(context, kind, key, error)),
            Ok(result) => {
                if result.is_ok() {
                    context.expectations.note(&blueprint.key, (kind, key), &wanted);
                }
                return result;
            }
        }
    }
    let conflict = kube::core::Status::failure("too many conflicting writes", "Conflict").with_code(409);
    Err(failed(context, kind, key, kube::Error::Api(Box::new(conflict))))
}

/// One read and what it calls for. The outer error is the API server's, the inner one is a decision of ours. The same is
/// wanted `as_before`: then a difference is somebody's edit.
async fn write(
    context: &Context,
    api: &Api<DynamicObject>,
    blueprint: &Blueprint,
    resource: &Resource,
    as_before: bool,
) -> Result<Result<Option<Value>, ApplyError>, kube::Error> {
    let (kind, key) = (resource.kind, &resource.key);
    let Some(live) = api.get_opt(&key.name).await?.map(raw) else {
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
    if let Some(drift) = drift(&body, &live, names::FIELD_MANAGER).filter(|_| as_before) {
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

/// Deletes an object if it is ours, exactly in the version that was judged. True when something was deleted.
pub(crate) async fn remove(
    context: &Context,
    kind: Kind,
    key: &ObjectKey,
    is_ours: impl Fn(&Value) -> bool,
) -> Result<bool, ApplyError> {
    let request = |source: kube::Error| ApplyError::Request {
        kind: kind.name(),
        key: key.clone(),
        source: Box::new(source),
    };
    let api = context.api(kind, &key.namespace);
    for _ in 0..ATTEMPTS {
        let Some(live) = api.get_opt(&key.name).await.map_err(request)?.map(raw) else {
            return Ok(false);
        };
        if !is_ours(&live) || live.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(false);
        }
        let text = |pointer| live.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: text("/metadata/uid"),
                resource_version: text("/metadata/resourceVersion"),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            Ok(_) => {
                tracing::info!(kind = kind.name(), name = %key, "Deleted");
                return Ok(true);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(request(error)),
        }
    }
    let conflict = kube::core::Status::failure("too many conflicting writes", "Conflict").with_code(409);
    Err(request(kube::Error::Api(Box::new(conflict))))
}

/// An object as plain JSON.
pub(crate) fn raw(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests;
