//! `config/rbac`: the one table of what operator and webhook may do (operator.md 11.2), and the roles made from it.

use mcp_gateway_api::names;
use serde_json::{Value, json};

use crate::{
    kustomize::{NAMESPACE, kustomization},
    manager,
    tree::{Files, yaml},
};

const READ: &[&str] = &["get", "list", "watch"];
const KINDS: &[&str] =
    &["mcpauthpolicies", "mcpgatewayextensions", "mcpserverregistrations", "mcpvirtualservers"];
const WEBHOOK: &str = mcp_gateway_api::webhooks::NAME;

/// One line of the table. `only` restricts it to objects of these names.
struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    only: &'static [&'static str],
}

const fn rule(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { group, resources, verbs, only: &[] }
}

impl Rule {
    const fn only(mut self, names: &'static [&'static str]) -> Self {
        self.only = names;
        self
    }

    fn manifest(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": self.resources, "verbs": self.verbs});
        if let (false, Some(members)) = (self.only.is_empty(), rule.as_object_mut()) {
            members.insert("resourceNames".to_owned(), json!(self.only));
        }
        rule
    }
}

const ADMISSION: &[&str] = &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
const STATUS: &[&str] = &[
    "mcpauthpolicies/status",
    "mcpgatewayextensions/status",
    "mcpserverregistrations/status",
    "mcpvirtualservers/status",
];

/// What the operator may do in the whole cluster.
const OPERATOR: &[Rule] = &[
    rule(names::GROUP, KINDS, &["get", "list", "watch", "patch"]),
    rule(names::GROUP, STATUS, &["patch"]),
    rule(names::GROUP, &["mcpgatewayextensions/finalizers"], &["update"]),
    rule("", &["configmaps", "namespaces", "secrets", "serviceaccounts", "services"], READ),
    rule("", &["secrets", "serviceaccounts", "services"], &["create"]),
    rule("", &["secrets"], &["delete", "patch"]).only(&[names::CONFIG_SECRET, names::SIGNING_KEY_SECRET]),
    rule("", &["serviceaccounts", "services"], &["delete", "patch"]).only(&[names::BROKER]),
    rule("", &["pods"], &["get", "list"]),
    rule("apps", &["deployments"], &["create", "get", "list", "watch"]),
    rule("apps", &["deployments"], &["delete", "patch"]).only(&[names::BROKER]),
    rule("rbac.authorization.k8s.io", &["rolebindings", "roles"], &["create", "get", "list", "watch"]),
    rule("rbac.authorization.k8s.io", &["rolebindings", "roles"], &["delete", "patch"]).only(&[names::BROKER]),
    rule("networking.k8s.io", &["networkpolicies"], &["create", "get", "list", "watch"]),
    rule("networking.k8s.io", &["networkpolicies"], &["delete", "patch"]).only(&[names::BROKER]),
    rule(names::GATEWAY_API_GROUP, &["gateways", "referencegrants"], READ),
    rule(names::GATEWAY_API_GROUP, &["gateways/status"], &["patch"]),
    rule(names::GATEWAY_API_GROUP, &["httproutes"], &["create", "get", "list", "watch"]),
    rule(names::GATEWAY_API_GROUP, &["httproutes"], &["delete", "patch"]).only(&[names::ROUTE, names::TOKENS_ROUTE]),
    rule(names::GATEWAY_API_GROUP, &["httproutes/status"], &["patch", "update"]),
    rule("networking.istio.io", &["envoyfilters"], &["create", "delete", "get", "list", "patch", "watch"]),
    rule("discovery.k8s.io", &["endpointslices"], READ),
    rule("events.k8s.io", &["events"], &["create", "patch"]),
    rule("coordination.k8s.io", &["leases"], &["get", "list"]),
    rule("admissionregistration.k8s.io", ADMISSION, &["create", "get", "list", "watch"]),
    rule("admissionregistration.k8s.io", ADMISSION, &["delete", "patch", "update"])
        .only(&[WEBHOOK, "mcp-gateway-webhook-supplementary"]),
];

/// What the operator may do in its own namespace: leader lease, claims, the webhook's certificate.
const OPERATOR_OWN: &[Rule] = &[
    rule("coordination.k8s.io", &["leases"], &["create", "delete", "get", "list", "patch", "update", "watch"]),
    rule("", &["secrets"], &["patch"]).only(&["mcp-gateway-webhook-cert"]),
];

/// What the webhook may do in the whole cluster; it reads only metadata of Secrets and ConfigMaps.
const WEBHOOK_CLUSTER: &[Rule] = &[
    rule(names::GROUP, KINDS, READ),
    rule(names::GATEWAY_API_GROUP, &["gateways", "httproutes", "referencegrants"], READ),
    rule("", &["namespaces"], READ),
    rule("", &["configmaps", "secrets"], &["get"]),
];

/// What the webhook may do in its own namespace: claims.
const WEBHOOK_OWN: &[Rule] =
    &[rule("coordination.k8s.io", &["leases"], &["create", "delete", "get", "list", "update", "watch"])];

pub(crate) fn files() -> anyhow::Result<Files> {
    let resources = ["helper_roles.yaml", "operator.yaml", "webhook.yaml"].map(str::to_owned);
    Ok(Files::from([
        ("config/rbac/operator.yaml".into(), yaml(&part(manager::NAME, OPERATOR, OPERATOR_OWN))?),
        ("config/rbac/webhook.yaml".into(), yaml(&part(WEBHOOK, WEBHOOK_CLUSTER, WEBHOOK_OWN))?),
        ("config/rbac/helper_roles.yaml".into(), yaml(&helper_roles())?),
        ("config/rbac/kustomization.yaml".into(), kustomization(None, &resources)?),
    ]))
}

/// ClusterRole and Role of one part, bound to the ServiceAccount of the same name.
fn part(name: &str, cluster: &[Rule], own: &[Rule]) -> [Value; 4] {
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
    let object = |kind: &str, members: Value| {
        let mut object = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mcp-gateway"}},
        });
        if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
            object.extend(members);
        }
        object
    };
    let rules = |rules: &[Rule]| json!({"rules": rules.iter().map(Rule::manifest).collect::<Vec<_>>()});
    let bound = |kind: &str| {
        json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}, "subjects": subject})
    };
    [
        object("ClusterRole", rules(cluster)),
        object("ClusterRoleBinding", bound("ClusterRole")),
        object("Role", rules(own)),
        object("RoleBinding", bound("Role")),
    ]
}

/// Roles for people, aggregated to the cluster's admin, edit and view.
fn helper_roles() -> Vec<Value> {
    let write: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    [("admin", "admin", write), ("editor", "edit", write), ("viewer", "view", READ)]
        .into_iter()
        .map(|(name, aggregate, verbs)| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {
                    "name": format!("mcp-gateway-{name}"),
                    "labels": {
                        "app.kubernetes.io/part-of": "mcp-gateway",
                        format!("rbac.authorization.k8s.io/aggregate-to-{aggregate}"): "true",
                    },
                },
                "rules": [
                    {"apiGroups": [names::GROUP], "resources": KINDS, "verbs": verbs},
                    {"apiGroups": [names::GROUP], "resources": STATUS, "verbs": ["get"]},
                ],
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_uses_a_wildcard_or_escalates() {
        for rule in OPERATOR.iter().chain(OPERATOR_OWN).chain(WEBHOOK_CLUSTER).chain(WEBHOOK_OWN) {
            for word in rule.resources.iter().chain(rule.verbs).chain([&rule.group]) {
                assert!(!word.contains('*'), "{word}");
                assert!(!["escalate", "bind", "impersonate", "pods/exec"].contains(word), "{word}");
            }
        }
    }

    #[test]
    fn secrets_are_changed_by_name_only() {
        for rule in OPERATOR.iter().chain(WEBHOOK_CLUSTER).filter(|rule| rule.resources.contains(&"secrets")) {
            let changes = rule.verbs.iter().any(|verb| ["patch", "update", "delete"].contains(verb));
            assert!(!changes || !rule.only.is_empty());
        }
    }
}
