//! Deleting what is ours, in exactly the version that was judged.

use kube::api::{DeleteParams, Preconditions};
use mcp_gateway_api::object_key::ObjectKey;
use serde_json::Value;

use super::{ATTEMPTS, ApplyError, raw};
use crate::{context::Context, kinds::Kind};

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
