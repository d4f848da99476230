//! The environment of the broker that the operator owns (operator.md 5.2): each variable only while its feature is on.

use mcp_gateway_api::{extension::OAuthProtectedResource, names};
use serde_json::{Value, json};

use super::{deployment::live_container, signing_key};
use crate::blueprint::Blueprint;

/// A key of a Secret in the extension's namespace that a variable refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretKey {
    pub(crate) variable: &'static str,
    pub(crate) secret: String,
    pub(crate) key: &'static str,
    pub(crate) optional: bool,
}

/// Key of a session store's connection string.
pub(crate) const STORE_KEY: &str = "CACHE_CONNECTION_STRING";

/// The variables that come from Secrets; their values make the template's hash.
pub(crate) fn secret_keys(spec: &mcp_gateway_api::extension::MCPGatewayExtensionSpec) -> Vec<SecretKey> {
    let of = |variable, secret: &str, key, optional| SecretKey {
        variable,
        secret: secret.to_owned(),
        key,
        optional,
    };
    let mut keys = vec![
        of(
            "GATEWAY_SIGNING_KEY",
            names::SIGNING_KEY_SECRET,
            signing_key::KEY,
            false,
        ),
        of(
            "GATEWAY_SIGNING_KEY_PREVIOUS",
            names::SIGNING_KEY_SECRET,
            signing_key::PREVIOUS,
            true,
        ),
    ];
    if let Some(trusted) = &spec.trusted_headers_key {
        keys.push(of(
            "TRUSTED_HEADER_PUBLIC_KEY",
            &trusted.secret_name,
            "key",
            false,
        ));
    }
    if let Some(store) = &spec.session_store {
        keys.push(of(STORE_KEY, &store.secret_name, STORE_KEY, false));
    }
    keys
}

/// The `env` list.
pub(crate) fn variables(blueprint: &Blueprint) -> Vec<Value> {
    let mut variables: Vec<Value> = secret_keys(&blueprint.extension.spec)
        .iter()
        .map(from_secret)
        .collect();
    if let Some(oauth) = &blueprint.extension.spec.oauth_protected_resource {
        variables.extend(oauth_variables(oauth, &blueprint.public_host));
    }
    variables.push(from_field("POD_NAME", "metadata.name"));
    variables.push(from_field("POD_NAMESPACE", "metadata.namespace"));
    variables
}

/// Variables of ours that the live container has more than once: somebody added one of the same name, and only one counts.
pub(crate) fn repeated_variables(live: &Value, blueprint: &Blueprint) -> Vec<String> {
    let name = |variable: &Value| variable.get("name").and_then(Value::as_str).map(str::to_owned);
    let live: Vec<String> = live_container(live)
        .and_then(|container| container.get("env")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(name)
        .collect();
    let ours = variables(blueprint).iter().filter_map(name).collect::<Vec<_>>();
    let repeated = ours
        .into_iter()
        .filter(|ours| live.iter().filter(|name| *name == ours).count() > 1);
    repeated.collect()
}

fn oauth_variables(oauth: &OAuthProtectedResource, public_host: &str) -> Vec<Value> {
    let joined =
        |list: Option<&Vec<String>>, default: &str| list.map_or(default.to_owned(), |list| list.join(","));
    let resource = oauth
        .resource
        .clone()
        .unwrap_or_else(|| format!("https://{public_host}/mcp"));
    let name = oauth.resource_name.as_deref().unwrap_or("MCP Server");
    vec![
        plain("OAUTH_RESOURCE_NAME", name),
        plain("OAUTH_RESOURCE", &resource),
        plain(
            "OAUTH_AUTHORIZATION_SERVERS",
            &oauth.authorization_servers.join(","),
        ),
        plain(
            "OAUTH_BEARER_METHODS_SUPPORTED",
            &joined(oauth.bearer_methods_supported.as_ref(), "header"),
        ),
        plain(
            "OAUTH_SCOPES_SUPPORTED",
            &joined(oauth.scopes_supported.as_ref(), "basic"),
        ),
    ]
}

fn plain(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn from_secret(key: &SecretKey) -> Value {
    let mut reference = json!({"name": key.secret, "key": key.key});
    if key.optional
        && let Value::Object(reference) = &mut reference
    {
        reference.insert("optional".to_owned(), json!(true));
    }
    json!({"name": key.variable, "valueFrom": {"secretKeyRef": reference}})
}

fn from_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}
