//! The serving pair straight from its Secret. After a rotation OLM's configurations trust the new pair at once, while the
//! kubelet may take a minute to bring it into the pod's files (olm.md 1.7).

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::RawPair;

/// Pause between two looks.
const POLL: Duration = Duration::from_secs(3);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Reads Secret `name` of `namespace` again and again, for ever, and passes on what it holds when that changes. A Secret
/// that is gone, or cannot be read now, changes nothing.
pub(crate) async fn follow(
    client: Client,
    (namespace, name): (String, String),
    pairs: watch::Sender<Option<RawPair>>,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        match timeout(ANSWER, api.get_opt(&name)).await {
            Ok(Ok(found)) => {
                if let Some(pair) = found.as_ref().and_then(pair_of) {
                    pairs.send_if_modified(|current| {
                        let differs = current.as_ref() != Some(&pair);
                        if differs {
                            *current = Some(pair);
                        }
                        differs
                    });
                }
            }
            Ok(Err(error)) => tracing::debug!(name, %error, "Secret of the serving pair cannot be read"),
            Err(_) => tracing::debug!(name, "Secret of the serving pair was not answered in time"),
        }
        sleep(POLL).await;
    }
}

fn pair_of(secret: &Secret) -> Option<RawPair> {
    let data = secret.data.as_ref()?;
    Some(RawPair {
        chain: data.get("tls.crt")?.0.clone(),
        key: data.get("tls.key")?.0.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_halves_are_needed() {
        let secret = |data| serde_json::from_value::<Secret>(json!({"data": data})).expect("a Secret");
        let whole = pair_of(&secret(
            json!({"tls.crt": "YQ==", "tls.key": "Yg==", "olmCAKey": "Yw=="}),
        ));
        assert!(whole.is_some_and(|pair| (pair.chain, pair.key) == (b"a".to_vec(), b"b".to_vec())));
        assert!(pair_of(&secret(json!({"tls.crt": "YQ=="}))).is_none());
    }
}
