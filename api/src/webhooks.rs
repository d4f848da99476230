//! The admission webhook configurations (operator.md 3, olm.md 6.2): rules, policies and timeouts in one place, for
//! the operator (managed certificates), the manifest generator, the bundle and the tests. Pure.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
        ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::names;

pub mod supplementary;

/// Name of both configuration objects, of the Deployment, of the Service and of the ServiceAccount.
pub const NAME: &str = "mcp-gateway-webhook";
/// Secret of the operator's namespace with the webhook's serving pair, in installs without OLM.
pub const CERT_SECRET: &str = "mcp-gateway-webhook-cert";
/// Path of the validating endpoint.
pub const VALIDATE_PATH: &str = "/validate";
/// Path of the mutating endpoint.
pub const MUTATE_PATH: &str = "/mutate";
/// Path of the advisory endpoint, served with `--advisory` only.
pub const ADVISE_PATH: &str = "/advise";
/// Name of the advisory configuration.
pub const ADVISORY_NAME: &str = "mcp-gateway-webhook-advisory";
/// Webhook name: warnings when something that an extension needs is deleted.
pub const ADVICE: &str = "advice.mcp.kuadrant.io";
/// Port of the Service.
pub const SERVICE_PORT: i32 = 443;
/// Port of the pods.
pub const TARGET_PORT: i32 = 9443;
/// Seconds that the API server waits for an answer.
pub const TIMEOUT_SECONDS: i32 = 5;
/// Webhook name: exclusivity and shape of new extensions, fails closed.
pub const EXCLUSIVITY: &str = "exclusivity.mcp.kuadrant.io";
/// Webhook name: the same for changed extensions, fails closed for those that [`CHANGED`] lets through.
pub const EXCLUSIVITY_OF_CHANGES: &str = "changes.exclusivity.mcp.kuadrant.io";
/// The API server asks about a changed extension only when this holds, so that finalizers, labels, annotations and thus
/// the end of a deletion do not need the webhook (T61). The same as [`crate::admission::is_exempt`].
pub const CHANGED: &str = "!has(object.metadata.deletionTimestamp) && object.spec != oldObject.spec";
/// Webhook name: rules for the other kinds, fails open because reconcile repeats them.
pub const RULES: &str = "rules.mcp.kuadrant.io";
/// Webhook name: defaults, fails open because reconcile treats an absent field the same.
pub const DEFAULTS: &str = "defaults.mcp.kuadrant.io";

/// The API server asks for defaults only when the one field is absent that has any, which spares a call otherwise.
pub const UNFILLED: &str = "!has(object.spec.targetRef.namespace)";

/// How the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookEndpoint {
    /// The Service [`NAME`] (or OLM's) in a namespace, port [`SERVICE_PORT`].
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Name of the Service.
        name: String,
    },
    /// An `https://host:port` prefix without a path; for tests and for a webhook outside the cluster.
    Url(String),
}

/// Address and trust of the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookClient {
    /// Where requests go.
    pub endpoint: WebhookEndpoint,
    /// PEM certificates that the serving certificate is verified with; absent when somebody else injects them.
    pub ca_bundle: Option<Vec<u8>>,
}

impl WebhookClient {
    /// The Service of the kustomize and Helm installs in `namespace`.
    #[must_use]
    pub fn service(namespace: &str, ca_bundle: Option<Vec<u8>>) -> Self {
        Self {
            endpoint: WebhookEndpoint::Service {
                namespace: namespace.to_owned(),
                name: NAME.to_owned(),
            },
            ca_bundle,
        }
    }

    fn config(&self, path: &str) -> WebhookClientConfig {
        let ca_bundle = self.ca_bundle.clone().map(ByteString);
        match &self.endpoint {
            WebhookEndpoint::Service { namespace, name } => WebhookClientConfig {
                ca_bundle,
                service: Some(ServiceReference {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    path: Some(path.to_owned()),
                    port: Some(SERVICE_PORT),
                }),
                url: None,
            },
            WebhookEndpoint::Url(base) => WebhookClientConfig {
                ca_bundle,
                service: None,
                url: Some(format!("{}{path}", base.trim_end_matches('/'))),
            },
        }
    }
}

/// The validating configuration: [`EXCLUSIVITY`] and [`EXCLUSIVITY_OF_CHANGES`] for extensions, [`RULES`] for the other
/// kinds.
#[must_use]
pub fn validating(client: &WebhookClient) -> ValidatingWebhookConfiguration {
    let webhook = |name: &str, rule: RuleWithOperations| ValidatingWebhook {
        name: name.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client.config(VALIDATE_PATH),
        match_policy: Some("Equivalent".to_owned()),
        rules: Some(vec![rule]),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        ..ValidatingWebhook::default()
    };
    let exclusive = |name: &str, operation: &str| ValidatingWebhook {
        failure_policy: Some("Fail".to_owned()),
        side_effects: "NoneOnDryRun".to_owned(),
        ..webhook(name, rule(&[operation], &[names::EXTENSIONS]))
    };
    let others = [names::AUTH_POLICIES, names::REGISTRATIONS, names::VIRTUAL_SERVERS];
    ValidatingWebhookConfiguration {
        metadata: metadata(),
        webhooks: Some(vec![
            exclusive(EXCLUSIVITY, "CREATE"),
            ValidatingWebhook {
                match_conditions: Some(vec![condition("spec-changed", CHANGED)]),
                ..exclusive(EXCLUSIVITY_OF_CHANGES, "UPDATE")
            },
            ValidatingWebhook {
                failure_policy: Some("Ignore".to_owned()),
                side_effects: "None".to_owned(),
                ..webhook(RULES, rule(&["CREATE", "UPDATE"], &others))
            },
        ]),
    }
}

/// The mutating configuration: [`DEFAULTS`] for the two kinds that have a default which the schema cannot express.
#[must_use]
pub fn mutating(client: &WebhookClient) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration {
        metadata: metadata(),
        webhooks: Some(vec![MutatingWebhook {
            name: DEFAULTS.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: client.config(MUTATE_PATH),
            failure_policy: Some("Ignore".to_owned()),
            match_conditions: Some(vec![condition("namespace-absent", UNFILLED)]),
            match_policy: Some("Equivalent".to_owned()),
            reinvocation_policy: Some("Never".to_owned()),
            rules: Some(vec![rule(
                &["CREATE", "UPDATE"],
                &[names::EXTENSIONS, names::REGISTRATIONS],
            )]),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            ..MutatingWebhook::default()
        }]),
    }
}

/// The advisory configuration (kustomize and Helm only, off by default): warns when a Gateway or ReferenceGrant that an
/// extension needs is deleted, and never refuses. Never on Secrets.
#[must_use]
pub fn advisory(client: &WebhookClient) -> ValidatingWebhookConfiguration {
    let owned = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
    ValidatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(ADVISORY_NAME.to_owned()),
            ..metadata()
        },
        webhooks: Some(vec![ValidatingWebhook {
            name: ADVICE.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: client.config(ADVISE_PATH),
            failure_policy: Some("Ignore".to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            rules: Some(vec![RuleWithOperations {
                api_groups: owned(&[names::GATEWAY_API_GROUP]),
                api_versions: owned(&["v1", "v1beta1"]),
                operations: owned(&["DELETE"]),
                resources: owned(&["gateways", "referencegrants"]),
                scope: Some("Namespaced".to_owned()),
            }]),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(1),
            ..ValidatingWebhook::default()
        }]),
    }
}

fn metadata() -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        labels: Some([("app.kubernetes.io/name".to_owned(), NAME.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn condition(name: &str, expression: &str) -> MatchCondition {
    MatchCondition {
        name: name.to_owned(),
        expression: expression.to_owned(),
    }
}

/// Operations on main resources of ours; never DELETE, never a subresource.
fn rule(operations: &[&str], resources: &[&str]) -> RuleWithOperations {
    let owned = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
    RuleWithOperations {
        api_groups: owned(&[names::GROUP]),
        api_versions: owned(&[names::VERSION]),
        operations: owned(operations),
        resources: owned(resources),
        scope: Some("Namespaced".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(rules: Option<&Vec<RuleWithOperations>>) -> Vec<String> {
        rules
            .into_iter()
            .flatten()
            .flat_map(|rule| {
                let resources = rule.resources.clone().unwrap_or_default();
                assert!(resources.iter().all(|resource| !resource.contains('/')));
                rule.operations.clone().unwrap_or_default()
            })
            .collect()
    }

    #[test]
    fn t61_deletion_and_subresources_are_never_matched() {
        let client = WebhookClient::service("mcp-system", None);
        let mut seen = Vec::new();
        for webhook in validating(&client).webhooks.unwrap_or_default() {
            seen.extend(operations(webhook.rules.as_ref()));
        }
        for webhook in mutating(&client).webhooks.unwrap_or_default() {
            seen.extend(operations(webhook.rules.as_ref()));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["CREATE", "UPDATE"]);
    }

    #[test]
    fn only_exclusivity_fails_closed() {
        let client = WebhookClient::service("mcp-system", Some(b"pem".to_vec()));
        let closed: Vec<_> = validating(&client)
            .webhooks
            .unwrap_or_default()
            .into_iter()
            .filter(|webhook| webhook.failure_policy.as_deref() == Some("Fail"))
            .map(|webhook| (webhook.name, webhook.side_effects))
            .collect();
        let expected = [EXCLUSIVITY, EXCLUSIVITY_OF_CHANGES];
        assert_eq!(
            closed,
            expected.map(|name| (name.to_owned(), "NoneOnDryRun".to_owned()))
        );
    }

    #[test]
    fn advice_never_refuses_and_never_looks_at_secrets() {
        let webhooks = advisory(&WebhookClient::service("mcp-system", None))
            .webhooks
            .unwrap_or_default();
        assert_eq!(webhooks.len(), 1);
        assert_eq!(webhooks[0].failure_policy.as_deref(), Some("Ignore"));
        let rules = webhooks[0].rules.clone().unwrap_or_default();
        let resources: Vec<_> = rules
            .iter()
            .flat_map(|rule| rule.resources.clone().unwrap_or_default())
            .collect();
        assert_eq!(resources, ["gateways", "referencegrants"]);
    }

    #[test]
    fn a_url_endpoint_gets_the_path_once() {
        let client = WebhookClient {
            endpoint: WebhookEndpoint::Url("https://127.0.0.1:9443/".to_owned()),
            ca_bundle: None,
        };
        assert_eq!(
            client.config(MUTATE_PATH).url.as_deref(),
            Some("https://127.0.0.1:9443/mutate")
        );
    }
}
