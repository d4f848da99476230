//! The replicas of the webhook, and whether all of them serve a pair of one authority: seen by a handshake with each, for
//! a file in a pod may come minutes after its Secret.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kube::api::ListParams;
use mcp_gateway_api::webhooks;
use reqwest::{Certificate, Client, redirect::Policy};
use serde_json::Value;

use super::certificate::dns_names;
use crate::{apply::raw, context::Context, kinds::Kind, reconcile::ReconcileError};

/// Longest wait for one replica.
const ANSWER: Duration = Duration::from_secs(3);

/// One address of the webhook's Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    address: Option<SocketAddr>,
    /// Whether the Service leads to it.
    pub(super) ready: bool,
}

/// Every replica that serves, ready or on its way out.
pub(super) async fn replicas(context: &Context) -> Result<Vec<Replica>, ReconcileError> {
    let labels = format!("kubernetes.io/service-name={}", webhooks::NAME);
    let api = context.api(Kind::EndpointSlice, &context.settings.namespace);
    let slices = api.list(&ListParams::default().labels(&labels)).await;
    let slices = slices.map_err(ReconcileError::request("list webhook endpoints"))?;
    Ok(slices
        .items
        .into_iter()
        .map(raw)
        .flat_map(|slice| of_slice(&slice))
        .collect())
}

fn of_slice(slice: &Value) -> Vec<Replica> {
    let port = slice.pointer("/ports/0/port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let is = |endpoint: &Value, name: &str| {
        let condition = endpoint.pointer("/conditions").and_then(|all| all.get(name));
        condition.and_then(Value::as_bool)
    };
    endpoints
        .into_iter()
        .flatten()
        .map(|endpoint| {
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            let address = address.and_then(|text| text.parse::<IpAddr>().ok());
            let ready = is(endpoint, "ready").unwrap_or(true);
            let serving = is(endpoint, "serving").unwrap_or(ready);
            let replica = Replica {
                address: address.zip(port).map(SocketAddr::from),
                ready,
            };
            (serving, replica)
        })
        .filter_map(|(serving, replica)| serving.then_some(replica))
        .collect()
}

/// True when there are replicas and every one proves to be of the authority `ca`, a text in PEM. One that cannot be
/// reached has proven nothing.
pub(super) async fn all_serve(context: &Context, replicas: &[Replica], ca: &str) -> bool {
    let Ok(authority) = Certificate::from_pem(ca.as_bytes()) else {
        return false;
    };
    let names = dns_names(&context.settings.namespace, &context.settings.cluster_domain);
    let Some(name) = names.first() else {
        return false;
    };
    let asked = replicas.iter().map(|replica| serves(replica, &authority, name));
    !replicas.is_empty()
        && futures::future::join_all(asked)
            .await
            .into_iter()
            .all(|serves| serves)
}

async fn serves(replica: &Replica, authority: &Certificate, name: &str) -> bool {
    let Some(address) = replica.address else {
        return false;
    };
    let client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .timeout(ANSWER)
        .tls_certs_only([authority.clone()])
        .resolve(name, address)
        .build();
    let Ok(client) = client else {
        return false;
    };
    // Any answer will do: it came over a connection that was verified.
    let answer = client
        .get(format!("https://{name}:{}/", address.port()))
        .send()
        .await;
    if let Err(error) = &answer {
        tracing::debug!(%address, %error, "Replica of the webhook does not serve the new certificate yet");
    }
    answer.is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_serves_without_being_ready_is_asked_too() {
        let slice = json!({"ports": [{"port": 9443}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
            {"addresses": ["10.0.0.4"]},
        ]});
        let found = of_slice(&slice);
        let ready: Vec<_> = found
            .iter()
            .map(|replica| (replica.address, replica.ready))
            .collect();
        let at = |last: u8| Some(SocketAddr::from(([10, 0, 0, last], 9443)));
        assert_eq!(ready, [(at(1), true), (at(2), false), (at(4), true)]);
    }
}
