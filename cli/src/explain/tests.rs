use serde_json::json;

use super::*;
use crate::lint::parse;

const MANIFESTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: istio, listeners: [{name: mcp, hostname: mcp.example.com, port: 8080, protocol: HTTP}]}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPGatewayExtension
metadata: {name: ext, namespace: team}
spec: {targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: infra, sectionName: mcp}}
---
apiVersion: mcp.kuadrant.io/v1alpha1
kind: MCPAuthPolicy
metadata: {name: jwt, namespace: infra}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  authentication: {jwt: {providers: [{name: p, issuer: me, jwks: {remote: {url: "https://issuer/keys"}}}]}}
  rules:
  - {name: me, matches: [{jwt: {claim: sub, value: me}}], resource: {kind: tool, name: "apps/one:*"}}
  - {name: guests, effect: Deny, matches: [{jwt: {claim: groups, value: guests}}], resource: {kind: tool, name: "*"}}
"#;

fn asked(tool: &str) -> Explain {
    Explain {
        claims: None,
        tool: Some(tool.to_owned()),
        prompt: None,
        resource: None,
        arguments: None,
        annotations: None,
        gateway: None,
        extension: None,
        virtual_server: None,
        files: Vec::new(),
        namespace: "default".to_owned(),
        output: Format::Text,
    }
}

fn explained(manifests: &str, explain: &Explain, claims: Option<&Value>) -> Explanation {
    let objects: Vec<Value> = parse("-", manifests)
        .into_iter()
        .map(|document| placed(document.object.expect("an object"), "default"))
        .collect();
    let given = Given {
        claims: claims.map(|claims| claims.as_object().expect("an object").clone()),
        ..Given::default()
    };
    explain
        .explain(&world_of_files(&objects), &given)
        .expect("an explanation")
}

fn text(explain: &Explain, explanation: &Explanation) -> String {
    let mut out = Vec::new();
    print::text(&mut out, explain.name(), explanation).expect("written");
    String::from_utf8(out).expect("text")
}

#[test]
fn an_allowed_tool_names_the_rule_that_allows_it() {
    let explain = asked("apps/one:add");
    let explanation = explained(MANIFESTS, &explain, Some(&json!({"sub": "me"})));
    assert!(explanation.outcome.permits() && explanation.changes.is_empty());
    let text = text(&explain, &explanation);
    assert!(
        text.starts_with("allowed: apps/one:add\n  decided by: infra/jwt me\n"),
        "{text}"
    );
}

#[test]
fn a_denied_tool_says_what_would_have_to_change() {
    let cases = [
        (
            json!({"sub": "you"}),
            "apps/one:add",
            "rule me of infra/jwt would allow it, and needs claim sub to be one of me",
        ),
        (
            json!({"sub": "me", "groups": ["guests"]}),
            "apps/one:add",
            "remove or narrow rule guests of infra/jwt",
        ),
        (
            json!({"sub": "me"}),
            "apps/two:add",
            "add one with resource {kind: tool, name: \"apps/two:add\"} to infra/jwt",
        ),
    ];
    for (claims, tool, change) in cases {
        let explanation = explained(MANIFESTS, &asked(tool), Some(&claims));
        assert!(!explanation.outcome.permits(), "{tool}");
        assert!(
            explanation.changes.concat().contains(change),
            "{:?}",
            explanation.changes
        );
    }
}

#[test]
fn a_policy_that_is_not_accepted_is_named_with_its_defect() {
    let broken = MANIFESTS.replace(
        "kind: Gateway, name: gw}]",
        "kind: Gateway, name: gw}, {group: gateway.networking.k8s.io, kind: Gateway, name: gone}]",
    );
    let explanation = explained(&broken, &asked("apps/one:add"), Some(&json!({"sub": "me"})));
    assert!(!explanation.outcome.permits());
    assert!(
        explanation
            .changes
            .concat()
            .contains("mend infra/jwt: not found: Gateway infra/gone"),
        "{:?}",
        explanation.changes
    );
}

#[test]
fn without_a_provider_claims_count_for_nothing() {
    let (before, rest) = MANIFESTS.split_once("  authentication:").expect("a provider");
    let (_, rules) = rest.split_once("  rules:").expect("rules");
    let unverified = [before, "  rules:", rules].concat();
    let explanation = explained(&unverified, &asked("apps/one:add"), Some(&json!({"sub": "me"})));
    assert!(!explanation.outcome.permits() && explanation.notes.concat().contains("no JWT provider"));
}

#[test]
fn a_name_that_is_none_and_several_extensions_are_said() {
    let objects: Vec<Value> = Vec::new();
    let bad = asked("add").explain(&world_of_files(&objects), &Given::default());
    assert!(matches!(bad, Err(ExplainError::Item(_))));
    let none = asked("a/b:c").explain(&world_of_files(&objects), &Given::default());
    assert!(none.is_err_and(|error| error.to_string().contains("no MCPGatewayExtension")));
}

#[test]
fn conditions_are_explained_with_the_arguments_and_annotations_that_are_given() {
    let manifests = MANIFESTS.replace(
        "claim: sub, value: me}}]",
        "claim: sub, value: me}}], condition: \"arguments.n < 3 && annotations.readOnlyHint\"",
    );
    let objects: Vec<Value> = parse("-", &manifests)
        .into_iter()
        .map(|document| placed(document.object.expect("an object"), "default"))
        .collect();
    let object = |value: Value| value.as_object().cloned();
    let explained = |arguments: Option<Value>, annotations: Option<Value>| {
        let given = Given {
            claims: object(json!({"sub": "me"})),
            arguments: arguments.and_then(object),
            annotations: annotations.and_then(object),
        };
        let explain = asked("apps/one:add");
        let explanation = explain.explain(&world_of_files(&objects), &given);
        let explanation = explanation.expect("an explanation");
        (explanation.outcome.permits(), text(&explain, &explanation))
    };
    let (listed, said) = explained(None, None);
    assert!(
        listed && said.contains("--arguments") && said.contains("--annotations"),
        "{said}"
    );
    let hint = json!({"readOnlyHint": true});
    assert!(explained(Some(json!({"n": 2})), Some(hint.clone())).0);
    let (allowed, said) = explained(Some(json!({"n": 3})), Some(hint));
    assert!(
        !allowed && said.contains("-32602 Denied by policy") && said.contains("`arguments.n < 3"),
        "{said}"
    );
}
