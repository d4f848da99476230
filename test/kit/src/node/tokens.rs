//! Service-account tokens of a pod: asked of the API server by TokenRequest, bound to the pod, renewed at 80 % of their life.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};

/// The API server gave no token.
#[derive(Debug, thiserror::Error)]
#[error("token of service account {account:?}: {reason}")]
pub(crate) struct TokenError {
    account: String,
    reason: String,
}

struct Token {
    text: String,
    renew_at: Instant,
}

/// The tokens of one pod, by audience.
pub(crate) struct Tokens {
    client: kube::Client,
    held: BTreeMap<String, Token>,
}

impl Tokens {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            client,
            held: BTreeMap::new(),
        }
    }

    /// A token for `audience` (empty: the API server's) that lives for `seconds` from when it was issued.
    pub(crate) async fn get(
        &mut self,
        pod: &Pod,
        audience: &str,
        seconds: i64,
    ) -> Result<String, TokenError> {
        if let Some(token) = self.held.get(audience)
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let spec = pod.spec.as_ref();
        let account = spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let failed = |reason: String| TokenError {
            account: account.clone(),
            reason,
        };
        let answer = api
            .create_token_request(&account, &PostParams::default(), &request(pod, audience, seconds))
            .await
            .map_err(|error| failed(answer_of(&error)))?;
        let text = answer
            .status
            .ok_or_else(|| failed("no status in the answer".to_owned()))?
            .token;
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(3600));
        self.held.insert(
            audience.to_owned(),
            Token {
                text: text.clone(),
                renew_at: Instant::now() + life * 4 / 5,
            },
        );
        Ok(text)
    }
}

/// The API server's sentence, without the whole status around it.
fn answer_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn request(pod: &Pod, audience: &str, seconds: i64) -> TokenRequest {
    // The API server binds a token to a pod only when the pod names the account; the admission plugin that would have put
    // `default` there is off.
    let named = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.service_account_name.is_some());
    let audiences = if audience.is_empty() {
        Vec::new()
    } else {
        vec![audience.to_owned()]
    };
    TokenRequest {
        spec: TokenRequestSpec {
            audiences,
            expiration_seconds: Some(seconds),
            bound_object_ref: named.then(|| BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    }
}
