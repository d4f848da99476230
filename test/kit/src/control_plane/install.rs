//! What is stored before anybody uses the cluster: CRDs, namespaces, Gateway classes.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::control_plane::ControlPlaneError;
use crate::eventually::eventually;

/// How many objects are sent at once: enough to keep a two-core API server busy.
const PARALLEL: usize = 8;
/// The Gateway classes that the kit plays, both served by the one istiod.
pub(crate) const GATEWAY_CLASSES: [&str; 2] = ["istio", "openshift-default"];

/// Stores everything and waits until the kinds are served.
pub(crate) async fn everything(client: &kube::Client, binaries: &Binaries) -> Result<(), ControlPlaneError> {
    let mut crds = read(&binaries.gateway_api_crds)?;
    if with_istio_kinds() {
        crds.extend(read(&binaries.istio_crds)?);
    }
    stream::iter(crds)
        .map(|crd| create(client, crd))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    create(
        client,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}),
    )
    .await?;
    established(client).await?;
    for class in GATEWAY_CLASSES {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": class},
            "spec": {"controllerName": "istio.io/gateway-controller"},
        });
        eventually(
            Duration::from_secs(20),
            "the GatewayClass resource to be served",
            async || {
                create(client, object.clone())
                    .await
                    .map_err(|error| error.to_string())
            },
        )
        .await?;
    }
    Ok(())
}

/// `MCPGW_KIT_ISTIO_CRDS=0` leaves Istio's kinds out: a cluster whose Gateway API implementation is another one.
fn with_istio_kinds() -> bool {
    std::env::var("MCPGW_KIT_ISTIO_CRDS").map_or(true, |value| value != "0")
}

fn read(path: &Path) -> Result<Vec<Value>, ControlPlaneError> {
    let text = std::fs::read(path)?;
    serde_json::from_slice(&text).map_err(|source| ControlPlaneError::Crds {
        path: path.to_owned(),
        source,
    })
}

/// Creates a cluster-scoped object; one that is there already is left as it is.
async fn create(client: &kube::Client, object: Value) -> Result<(), ControlPlaneError> {
    let part = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let what = format!("{} {}", part("/kind"), part("/metadata/name"));
    let object: DynamicObject =
        serde_json::from_value(object).map_err(|error| ControlPlaneError::Object {
            what: what.clone(),
            reason: error.to_string(),
        })?;
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types).map_err(|error| ControlPlaneError::Object {
        what: what.clone(),
        reason: error.to_string(),
    })?;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(source) => Err(ControlPlaneError::Store {
            what,
            source: Box::new(source),
        }),
    }
}

async fn established(client: &kube::Client) -> Result<(), ControlPlaneError> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    eventually(
        Duration::from_secs(30),
        "all CRDs to be established",
        async || {
            let list = crds
                .list_metadata(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            for item in list.items {
                let name = item.metadata.name.unwrap_or_default();
                let crd = crds.get(&name).await.map_err(|error| error.to_string())?;
                let conditions = crd
                    .status
                    .and_then(|status| status.conditions)
                    .unwrap_or_default();
                if !conditions
                    .iter()
                    .any(|condition| condition.type_ == "Established" && condition.status == "True")
                {
                    return Err(format!("{name} is not established"));
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}
