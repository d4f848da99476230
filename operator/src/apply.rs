//! The apply engine: compare over the owned fields, then one conditional server-side apply (operator.md 4.3, 6).
//! Invariant: an object that is not ours is never written or deleted, and an object that is settled costs no request.

use json_patch::{PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
    runtime::events::EventType,
};
use mcp_gateway_api::{names, object_key::ObjectKey};
use serde_json::Value;

use crate::{
    blueprint::Blueprint,
    children::Child,
    context::Context,
    fields::{Drift, drift, is_settled},
    kinds::Kind,
};

/// How often a conflicting write is tried with a fresh read.
const ATTEMPTS: usize = 5;

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

/// Whose object it is (operator.md 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    Predecessor(String),
    Foreign,
}

/// Brings one child to its wanted state; returns the object when it had to be read or written.
pub(crate) async fn settle(
    context: &Context,
    blueprint: &Blueprint,
    resource: &Resource,
) -> Result<Option<Value>, ApplyError> {
    let (kind, key) = (resource.kind, &resource.key);
    let cached = context.cache.get(kind, key).filter(|_| kind != Kind::Secret);
    if let Some(cached) = cached.as_deref()
        && standing(cached, kind, blueprint) == Standing::Ours
        && settled(resource, cached)
    {
        context.metrics.applied("unchanged");
        return Ok(None);
    }
    let api = context.api(kind, &key.namespace);
    for _ in 0..ATTEMPTS {
        match write(context, &api, blueprint, resource).await {
            Err(kube::Error::Api(status)) if status.code == 409 => context.metrics.applied("conflict"),
            Err(error) => return Err(failed(context, kind, key, error)),
            Ok(result) => return result,
        }
    }
    let conflict = kube::core::Status::failure("too many conflicting writes", "Conflict").with_code(409);
    Err(failed(context, kind, key, kube::Error::Api(Box::new(conflict))))
}

/// One read and one conditional write. The outer error is the API server's, the inner one is a decision of ours.
async fn write(
    context: &Context,
    api: &Api<DynamicObject>,
    blueprint: &Blueprint,
    resource: &Resource,
) -> Result<Result<Option<Value>, ApplyError>, kube::Error> {
    let (kind, key) = (resource.kind, &resource.key);
    let live = api.get_opt(&key.name).await?.map(raw);
    if let Some(live) = &live {
        match standing(live, kind, blueprint) {
            Standing::Ours => {}
            Standing::Predecessor(owner) => {
                return Ok(Err(ApplyError::Predecessor {
                    kind: kind.name(),
                    key: key.clone(),
                    owner,
                }));
            }
            Standing::Foreign => {
                return Ok(Err(ApplyError::Foreign {
                    kind: kind.name(),
                    key: key.clone(),
                }));
            }
        }
        if settled(resource, live) {
            context.metrics.applied("unchanged");
            return Ok(Ok(Some(live.clone())));
        }
    }
    let version = live
        .as_ref()
        .and_then(|live| live.pointer("/metadata/resourceVersion"))
        .and_then(Value::as_str);
    let body = (resource.make)(live.as_ref()).body(version);
    let applied = api
        .patch(&key.name, &apply_params(), &Patch::Apply(&body))
        .await?;
    let applied = replace_spec(api, kind, &body, raw(applied)).await?;
    let result = if live.is_some() { "changed" } else { "created" };
    tracing::info!(kind = kind.name(), name = %key, result, "Applied");
    context.metrics.applied(result);
    if let Some(drift) = live.and_then(|live| drift(&body, &live, names::FIELD_MANAGER)) {
        report(context, blueprint, resource, &drift).await;
    }
    Ok(Ok(Some(applied)))
}

/// Says on the extension that somebody's edit of a field of ours was set back (operator.md 6.8).
async fn report(context: &Context, blueprint: &Blueprint, resource: &Resource, drift: &Drift) {
    let (kind, key) = (resource.kind.name(), &resource.key);
    let Drift { field, manager } = drift;
    let note =
        format!("{kind} {key}: {field}, changed by {manager}, was set back; it belongs to the operator");
    tracing::info!(kind, name = %key, field, manager, "Drift reverted");
    if let Some(extension) = context.cache.get(Kind::Extension, &blueprint.key) {
        let subject = (Kind::Extension, extension.as_ref());
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
    let at = |path: &[&str]| PointerBuf::from_tokens(path.iter().copied());
    let patch = json_patch::Patch(vec![
        PatchOperation::Test(TestOperation {
            path: at(&["metadata", "resourceVersion"]),
            value: member(&applied, "/metadata/resourceVersion"),
        }),
        PatchOperation::Replace(ReplaceOperation {
            path: at(&["spec"]),
            value: member(body, "/spec"),
        }),
    ]);
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = applied
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    api.patch(name, &params, &Patch::<()>::Json(patch)).await.map(raw)
}

/// Parameters of every server-side apply.
pub(crate) fn apply_params() -> PatchParams {
    PatchParams::apply(names::FIELD_MANAGER).force()
}

fn settled(resource: &Resource, live: &Value) -> bool {
    let wanted = (resource.make)(Some(live)).body(None);
    let whole = resource.kind != Kind::EnvoyFilter || wanted.get("spec") == live.get("spec");
    whole && is_settled(&wanted, live, names::FIELD_MANAGER, None)
}

fn failed(context: &Context, kind: Kind, key: &ObjectKey, source: kube::Error) -> ApplyError {
    context.metrics.applied("error");
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

/// True when `extension_uid` controls the object.
pub(crate) fn is_controlled_by(object: &Value, extension_uid: &str) -> bool {
    controller(object)
        .and_then(|owner| owner.get("uid"))
        .and_then(Value::as_str)
        == Some(extension_uid)
}

/// True for an EnvoyFilter that carries our labels for the extension `key`.
pub(crate) fn is_filter_of(object: &Value, key: &ObjectKey) -> bool {
    let label = |name: &str| {
        object
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(name))
            .and_then(Value::as_str)
    };
    label(names::MANAGED_BY_LABEL.0) == Some(names::MANAGED_BY_LABEL.1)
        && label(names::EXTENSION_NAME_LABEL) == Some(names::label_value(&key.name).as_str())
        && label(names::EXTENSION_NAMESPACE_LABEL) == Some(names::label_value(&key.namespace).as_str())
}

fn standing(live: &Value, kind: Kind, blueprint: &Blueprint) -> Standing {
    if kind == Kind::EnvoyFilter {
        return if is_filter_of(live, &blueprint.key) {
            Standing::Ours
        } else {
            Standing::Foreign
        };
    }
    if is_controlled_by(live, blueprint.uid()) {
        return Standing::Ours;
    }
    let Some(owner) = controller(live) else {
        return if is_adoptable(live, kind) {
            Standing::Ours
        } else {
            Standing::Foreign
        };
    };
    let is_extension = owner.get("kind").and_then(Value::as_str) == Some(Kind::Extension.name());
    match owner.get("name").and_then(Value::as_str) {
        Some(name) if is_extension => Standing::Predecessor(format!("{}/{name}", blueprint.namespace())),
        _ => Standing::Foreign,
    }
}

/// A config Secret of an older install: our label and no owner at all (T32).
fn is_adoptable(live: &Value, kind: Kind) -> bool {
    let is = |pointer: &str, wanted: &str| live.pointer(pointer).and_then(Value::as_str) == Some(wanted);
    let ownerless = live
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    let aggregated = live
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(names::AGGREGATED_LABEL))
        .and_then(Value::as_str);
    kind == Kind::Secret
        && is("/metadata/name", names::CONFIG_SECRET)
        && ownerless
        && aggregated == Some("true")
}

fn controller(object: &Value) -> Option<&Value> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// An object as plain JSON.
pub(crate) fn raw(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
