//! What the checks look at, gathered with as few questions as possible.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use mcp_gateway_api::{names, resolution::Plan, webhooks::CERT_SECRET, world::World};
use serde_json::json;

use super::access::{self, Permissions};
use crate::cluster::{DEPLOYMENTS, JUDGED, Listing, Snapshot, text};

/// Value of `app.kubernetes.io/name` on the operator's Deployment, in every kind of install.
pub(super) const OPERATOR: &str = "mcp-gateway-operator";
/// Value of `app.kubernetes.io/name` on the webhook's Deployment.
pub(super) const WEBHOOK: &str = mcp_gateway_api::webhooks::NAME;
/// Longest wait for the answer of admission: longer than the API server's own.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

const ALSO: [Listing; 5] = [
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    ),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"),
];

/// What became of a dry-run create of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Admission decided, whatever.
    Decided,
    /// The API server did not get an answer from the webhook.
    Failed(String),
    /// It could not be asked.
    NotAsked(String),
}

/// Everything that is looked at.
pub(super) struct Evidence {
    pub(super) snapshot: Snapshot,
    pub(super) world: World,
    pub(super) plan: Plan,
    pub(super) permissions: Permissions,
    pub(super) probe: Probe,
    /// CA of the certificate that the operator issued, PEM.
    pub(super) issued_ca: Option<Vec<u8>>,
    /// Seconds since the epoch.
    pub(super) now: i64,
}

impl Evidence {
    pub(super) async fn gather(client: &Client) -> Self {
        let kinds: Vec<Listing> = JUDGED.into_iter().chain([DEPLOYMENTS]).chain(ALSO).collect();
        let snapshot = Snapshot::take(client, &kinds).await;
        let operator = namespace_of(&snapshot, OPERATOR);
        let (probe, issued_ca, permissions) = match &operator {
            None => {
                let why = "the operator is not installed".to_owned();
                (Probe::NotAsked(why.clone()), None, Permissions::NotAsked(why))
            }
            Some(namespace) => tokio::join!(
                probe(client, namespace),
                issued_ca(client, namespace),
                access::ask(client, &snapshot, namespace)
            ),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            permissions,
            probe,
            issued_ca,
            now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            ..Self::of(snapshot)
        }
    }

    /// Evidence of a snapshot alone: nothing was asked beside it.
    pub(super) fn of(snapshot: Snapshot) -> Self {
        let world = snapshot.world();
        Self {
            plan: Plan::compute(&world, "cluster.local"),
            snapshot,
            world,
            permissions: Permissions::NotAsked(String::new()),
            probe: Probe::NotAsked(String::new()),
            issued_ca: None,
            now: 0,
        }
    }
}

fn namespace_of(snapshot: &Snapshot, name: &str) -> Option<String> {
    let mut deployments = snapshot.all("Deployment").iter();
    let found = deployments
        .find(|deployment| text(deployment, "/metadata/labels/app.kubernetes.io~1name") == name)?;
    Some(text(found, "/metadata/namespace").to_owned())
}

/// A dry run that passes through the webhooks and stores nothing.
async fn probe(client: &Client, namespace: &str) -> Probe {
    let kind = GroupVersionKind::gvk(names::GROUP, names::VERSION, "MCPGatewayExtension");
    let resource = ApiResource::from_gvk_with_plural(&kind, names::EXTENSIONS);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let spec = json!({"targetRef": {"name": "mcpgw-doctor", "sectionName": "mcpgw-doctor"}});
    let object = DynamicObject::new("mcpgw-doctor", &resource).data(json!({"spec": spec}));
    let dry = PostParams {
        dry_run: true,
        field_manager: None,
    };
    match tokio::time::timeout(PROBE_LIMIT, api.create(&dry, &object)).await {
        Ok(Err(kube::Error::Api(status))) if status.message.contains("failed calling webhook") => {
            Probe::Failed(status.message.clone())
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 && status.message.contains("User ") => {
            Probe::NotAsked(status.message.clone())
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Probe::NotAsked(status.message.clone()),
        Ok(Ok(_) | Err(kube::Error::Api(_))) => Probe::Decided,
        Ok(Err(error)) => Probe::NotAsked(error.to_string()),
        Err(_) => Probe::Failed(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
    }
}

async fn issued_ca(client: &Client, namespace: &str) -> Option<Vec<u8>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = api.get_opt(CERT_SECRET).await.ok().flatten()?;
    secret.data?.remove("ca.crt").map(|bytes| bytes.0)
}
