//! `MCPAuthPolicy` objects of a file → entries of the plain document (operator.md 10, data-plane.md 13), without any
//! Kubernetes type. The one gateway of the process stands for every Gateway and extension that a policy names. Keys come
//! from the policy itself, from a ConfigMap or Secret of the file, or by `https`. A policy that does not validate denies
//! everything that it concerns, and one whose targets cannot be read concerns everything.

use super::resources::{File, key, namespace, text};
use mcp_gateway_api::authorization::{condition, is_resource_name};
use mcp_gateway_api::config::{
    AuthPolicyEntry, PolicyAction, PolicyMatch, PolicyProvider, PolicyRule, PolicyTarget,
};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    target_refs: Vec<TargetRef>,
    authentication: Option<Authentication>,
    #[serde(default)]
    default_action: PolicyAction,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetRef {
    #[serde(default, rename = "group")]
    _group: String,
    #[serde(default = "gateway")]
    kind: String,
    name: String,
    #[serde(rename = "sectionName")]
    _section_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authentication {
    jwt: Jwt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwt {
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    name: String,
    issuer: String,
    #[serde(default)]
    audiences: Vec<String>,
    jwks: Jwks,
    #[serde(default)]
    algorithms: Vec<String>,
    leeway_seconds: Option<u32>,
    #[serde(default)]
    required_scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwks {
    inline: Option<String>,
    secret_ref: Option<Value>,
    config_map_ref: Option<Value>,
    remote: Option<Remote>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Remote {
    url: String,
    ca_cert_secret_ref: Option<Value>,
    refresh_interval_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    name: String,
    effect: Option<PolicyAction>,
    #[serde(default)]
    matches: Vec<Match>,
    resource: Resource,
    #[serde(default)]
    condition: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    #[serde(default, rename = "type")]
    _type: String,
    jwt: ClaimMatch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimMatch {
    claim: String,
    value: Option<String>,
    values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    kind: String,
    name: String,
}

fn gateway() -> String {
    "Gateway".to_owned()
}

/// The entry of a policy, and why it denies everything when it does not validate.
pub(super) fn entry(file: &File, policy: &Value) -> (AuthPolicyEntry, Option<String>) {
    let closed = |why: String, targets: Vec<PolicyTarget>| {
        let entry = AuthPolicyEntry {
            name: key(policy),
            targets,
            ..AuthPolicyEntry::default()
        };
        (entry, Some(why))
    };
    let spec = policy.get("spec").cloned().unwrap_or_default();
    let raw = spec.get("targetRefs").and_then(Value::as_array).cloned();
    let mut spec = match Spec::deserialize(spec) {
        Ok(spec) => spec,
        Err(error) => {
            // Without every target it concerns everything.
            let raw = raw.unwrap_or_default().into_iter();
            let targets: Option<_> = raw
                .map(|one| Some(target(policy, TargetRef::deserialize(one).ok()?)))
                .collect();
            return closed(format!("spec: {error}"), targets.unwrap_or_default());
        }
    };
    let targets = std::mem::take(&mut spec.target_refs).into_iter();
    let targets: Vec<_> = targets.map(|one| target(policy, one)).collect();
    if targets.is_empty() {
        let why = "spec.targetRefs: name what the policy is attached to";
        return closed(why.to_owned(), targets);
    }
    match (validated(file, policy, spec), missing(file, &targets)) {
        (Ok(entry), None) => (AuthPolicyEntry { targets, ..entry }, None),
        (Err(why), _) | (Ok(_), Some(why)) => closed(why, targets),
    }
}

fn target(policy: &Value, target: TargetRef) -> PolicyTarget {
    PolicyTarget {
        name: format!("{}/{}", namespace(policy), target.name),
        kind: target.kind,
        port: None,
    }
}

fn missing(file: &File, targets: &[PolicyTarget]) -> Option<String> {
    let absent = |target: &&PolicyTarget| match target.kind.as_str() {
        "Gateway" | "MCPGatewayExtension" => false,
        kind => !file.of_kind(kind).any(|object| key(object) == target.name),
    };
    let target = targets.iter().find(absent)?;
    Some(format!(
        "spec.targetRefs: {} {} is not in the file",
        target.kind, target.name
    ))
}

fn validated(file: &File, policy: &Value, spec: Spec) -> Result<AuthPolicyEntry, String> {
    let providers = spec
        .authentication
        .into_iter()
        .flat_map(|authentication| authentication.jwt.providers);
    let providers = providers.enumerate().map(|(index, provider)| {
        resolved(file, policy, provider)
            .map_err(|why| format!("spec.authentication.jwt.providers[{index}].jwks: {why}"))
    });
    let rules = spec.rules.into_iter().enumerate();
    Ok(AuthPolicyEntry {
        name: key(policy),
        valid: true,
        default_action: spec.default_action,
        providers: providers.collect::<Result<_, _>>()?,
        rules: rules
            .map(|(index, one)| rule(one, index).map_err(|why| format!("spec.rules[{index}].{why}")))
            .collect::<Result<_, _>>()?,
        ..AuthPolicyEntry::default()
    })
}

fn rule(rule: Rule, index: usize) -> Result<PolicyRule, String> {
    if !["tool", "prompt", "resource"].contains(&rule.resource.kind.as_str()) {
        return Err("resource.kind: must be tool, prompt or resource".to_owned());
    }
    if !is_resource_name(&rule.resource.name) {
        return Err("resource.name: matches nothing; use * or <namespace>/<server>:<item>".to_owned());
    }
    if !rule.condition.is_empty() {
        condition::check(&rule.condition).map_err(|error| format!("condition: {error}"))?;
    }
    let one = |wanted: Match| {
        let values = match (wanted.jwt.value, wanted.jwt.values) {
            (Some(value), None) => vec![value],
            (None, Some(values)) => values,
            _ => return Err("matches[].jwt: exactly one of value and values".to_owned()),
        };
        Ok(PolicyMatch {
            claim: wanted.jwt.claim,
            values,
        })
    };
    Ok(PolicyRule {
        name: match rule.name.as_str() {
            "" => format!("rule-{index}"),
            _ => rule.name,
        },
        effect: rule.effect.unwrap_or(PolicyAction::Allow),
        matches: rule.matches.into_iter().map(one).collect::<Result<_, _>>()?,
        kind: rule.resource.kind,
        resource: rule.resource.name,
        condition: rule.condition,
    })
}

fn resolved(file: &File, policy: &Value, provider: Provider) -> Result<PolicyProvider, String> {
    let mut entry = PolicyProvider {
        name: provider.name,
        issuer: provider.issuer,
        audiences: provider.audiences,
        algorithms: provider.algorithms,
        leeway_seconds: provider.leeway_seconds,
        required_scopes: provider.required_scopes,
        ..PolicyProvider::default()
    };
    let place = namespace(policy);
    let jwks = provider.jwks;
    match (jwks.inline, jwks.secret_ref, jwks.config_map_ref, jwks.remote) {
        (Some(inline), None, None, None) => entry.jwks = inline,
        (None, Some(reference), None, None) => {
            let value = file.secret(place, (&reference, "jwks.json"));
            entry.jwks = value.ok_or("secretRef: the Secret is not in the file, as stringData")?;
        }
        (None, None, Some(reference), None) => {
            let value = file.config_map(place, (&reference, "jwks.json"));
            entry.jwks = value.ok_or("configMapRef: the ConfigMap is not in the file")?;
        }
        (None, None, None, Some(remote)) => {
            entry.jwks_url = remote.url;
            entry.refresh_interval_seconds = remote.refresh_interval_seconds;
            if let Some(reference) = remote.ca_cert_secret_ref {
                let value = file.secret(place, (&reference, "ca.crt"));
                entry.jwks_ca_cert =
                    value.ok_or("remote.caCertSecretRef: the Secret is not in the file, as stringData")?;
            }
            return Ok(entry);
        }
        _ => return Err("exactly one of inline, secretRef, configMapRef, remote".to_owned()),
    }
    match serde_json::from_str::<Map<String, Value>>(&entry.jwks) {
        Ok(_) => Ok(entry),
        Err(_) => Err("is not a JWK set and not a JWK".to_owned()),
    }
}

impl File {
    fn config_map(&self, namespace: &str, (reference, default): (&Value, &str)) -> Option<String> {
        let map = self.find("ConfigMap", (namespace, text(reference, "/name")))?;
        let key = match text(reference, "/key") {
            "" => default,
            key => key,
        };
        map.get("data")?.get(key)?.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::document::{Dialect, read_as};
    use crate::config::model::Snapshot;
    use mcp_gateway_api::authorization::{Item, ItemKind, Purpose, Request};
    use serde_json::json;

    const SERVERS: &str = "
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPServerRegistration
metadata: {name: one, namespace: team, annotations: {mcp.kuadrant.io/url: 'http://localhost:1/x'}}
spec: {targetRef: {kind: HTTPRoute, name: none}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: keys, namespace: team}, data: {jwks.json: '{\"keys\": []}'}}
";

    fn read(policies: &str) -> Snapshot {
        let dialect = Dialect {
            forwards: true,
            local: Some(|_| None),
        };
        read_as(format!("{SERVERS}{policies}").as_bytes(), dialect).unwrap()
    }

    fn policy(spec: &str) -> Snapshot {
        read(&format!(
            "---\napiVersion: mcp.kuadrant.io/v1alpha1\nkind: MCPAuthPolicy\nmetadata: {{name: p, namespace: team}}\nspec: {spec}\n"
        ))
    }

    fn permits(config: &Snapshot, server: &str, arguments: &str) -> bool {
        let claims = json!({"sub": "me"});
        let request = Request {
            claims: claims.as_object(),
            purpose: Purpose::Call(arguments),
            ..Request::default()
        };
        let item = Item {
            kind: ItemKind::Tool,
            server,
            name: "add",
            annotations: None,
        };
        config.policies.decide(&request, &item).permits()
    }

    #[test]
    fn a_policy_among_manifests_decides_as_in_a_cluster() {
        let config = policy(
            "{targetRefs: [{name: gw}], authentication: {jwt: {providers: [{name: i, issuer: me, audiences: [a], jwks: {configMapRef: {name: keys}}}]}}, \
             rules: [{matches: [{jwt: {claim: sub, value: me}}], condition: 'arguments.a < 5', resource: {kind: tool, name: 'team/one:add'}}]}",
        );
        assert_eq!(config.errors, Vec::<String>::new());
        assert_eq!(
            (config.providers.len(), config.providers[0].issuer.as_str()),
            (1, "me")
        );
        assert_eq!(config.providers[0].jwks, "{\"keys\": []}");
        assert!(permits(&config, "team/one", r#"{"a":4}"#));
        assert!(!permits(&config, "team/one", r#"{"a":5}"#) && !permits(&config, "team/two", r#"{"a":4}"#));
    }

    #[test]
    fn a_policy_for_one_server_leaves_the_others_open() {
        let config = policy(
            "{targetRefs: [{group: mcp.kuadrant.io, kind: MCPServerRegistration, name: one}], rules: []}",
        );
        assert!(!permits(&config, "team/one", "{}") && permits(&config, "team/two", "{}"));
    }

    #[test]
    fn a_policy_that_does_not_validate_is_named_with_its_line_and_closes_what_it_concerns() {
        let allow = "rules: [{resource: {kind: tool, name: '*'}}]";
        for (spec, named) in [
            (format!("{{targetRefs: [{{name: gw}}], {allow}, oops: 1}}"), "oops"),
            (format!("{{{allow}}}"), "targetRefs"),
            ("{targetRefs: [{name: gw}], rules: [{condition: 'claims.', resource: {kind: tool, name: '*'}}]}".to_owned(), "rules[0].condition"),
            ("{targetRefs: [{name: gw}], rules: [{resource: {kind: tool, name: x}}]}".to_owned(), "rules[0].resource.name"),
            (format!("{{targetRefs: [{{name: gw}}], authentication: {{jwt: {{providers: [{{name: i, issuer: me, jwks: {{secretRef: {{name: none}}}}}}]}}}}, {allow}}}"), "jwks: secretRef"),
            (format!("{{targetRefs: [{{name: gw}}], authentication: {{jwt: {{providers: [{{name: i, issuer: me, jwks: {{inline: x}}}}]}}}}, {allow}}}"), "JWK"),
            (format!("{{targetRefs: [{{kind: MCPServerRegistration, name: one}}, {{kind: MCPServerRegistration, name: absent}}], {allow}}}"), "team/absent"),
        ] {
            let config = policy(&spec);
            let [error] = config.errors.as_slice() else { panic!("{spec}: {:?}", config.errors) };
            assert!(error.starts_with("line 9: MCPAuthPolicy \"team/p\": ") && error.contains(named), "{error}");
            assert!(!permits(&config, "team/one", "{}"), "{spec}");
        }
        let unreadable =
            read("---\n{apiVersion: mcp.kuadrant.io/v1alpha1, kind: MCPAuthPolicy, metadata: {name: p}}\n");
        assert!(!permits(&unreadable, "team/one", "{}") && unreadable.errors[0].starts_with("line 9: "));
    }
}
