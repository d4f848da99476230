//! `config/rbac`: the one table of what operator and webhook may do (operator.md 11.2), and the roles made from it.

use mcp_gateway_api::names;
use serde_json::{Value, json};

use crate::{
    kustomize::{NAMESPACE, kustomization},
    manager,
    tree::{Files, yaml},
};

const READ: &[&str] = &["get", "list", "watch"];
/// What a cache needs.
const WATCH: &[&str] = &["list", "watch"];
const KINDS: &[&str] = &[
    names::AUTH_POLICIES,
    names::EXTENSIONS,
    names::REGISTRATIONS,
    names::VIRTUAL_SERVERS,
];
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
    Rule {
        group,
        resources,
        verbs,
        only: &[],
    }
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
    rule(names::GROUP, KINDS, &["list", "patch", "watch"]),
    rule(names::GROUP, &[names::EXTENSIONS], &["get"]),
    rule(names::GROUP, STATUS, &["patch"]),
    rule(names::GROUP, &["mcpgatewayextensions/finalizers"], &["update"]),
    rule(
        "",
        &["configmaps", "secrets", "serviceaccounts", "services"],
        READ,
    ),
    rule("", &["namespaces"], WATCH),
    rule("", &["secrets", "serviceaccounts", "services"], &["create"]),
    rule("", &["secrets"], &["delete", "patch"]).only(&[names::CONFIG_SECRET, names::SIGNING_KEY_SECRET]),
    rule("", &["serviceaccounts", "services"], &["delete", "patch"]).only(&[names::BROKER]),
    rule("", &["pods"], &["list"]),
    rule("apps", &["deployments"], &["create", "get", "list", "watch"]),
    rule("apps", &["deployments"], &["delete", "patch"]).only(&[names::BROKER]),
    rule(
        "rbac.authorization.k8s.io",
        &["rolebindings", "roles"],
        &["create", "get", "list", "watch"],
    ),
    rule(
        "rbac.authorization.k8s.io",
        &["rolebindings", "roles"],
        &["delete", "patch"],
    )
    .only(&[names::BROKER]),
    rule(
        "networking.k8s.io",
        &["networkpolicies"],
        &["create", "get", "list", "watch"],
    ),
    rule("networking.k8s.io", &["networkpolicies"], &["delete", "patch"]).only(&[names::BROKER]),
    rule(
        "policy",
        &["poddisruptionbudgets"],
        &["create", "get", "list", "watch"],
    ),
    rule("policy", &["poddisruptionbudgets"], &["delete", "patch"]).only(&[names::BROKER]),
    rule(names::GATEWAY_API_GROUP, &["gateways"], READ),
    rule(names::GATEWAY_API_GROUP, &["referencegrants"], WATCH),
    rule(names::GATEWAY_API_GROUP, &["gateways/status"], &["patch"]),
    rule(
        names::GATEWAY_API_GROUP,
        &["httproutes"],
        &["create", "get", "list", "watch"],
    ),
    rule(names::GATEWAY_API_GROUP, &["httproutes"], &["delete", "patch"])
        .only(&[names::ROUTE, names::TOKENS_ROUTE]),
    rule(names::GATEWAY_API_GROUP, &["httproutes/status"], &["patch"]),
    rule(
        "networking.istio.io",
        &["envoyfilters"],
        &["create", "delete", "get", "list", "patch", "watch"],
    ),
    rule("discovery.k8s.io", &["endpointslices"], WATCH),
    rule("events.k8s.io", &["events"], &["create", "patch"]),
    rule("coordination.k8s.io", &["leases"], &["list"]),
    rule(
        "admissionregistration.k8s.io",
        ADMISSION,
        &["create", "get", "list", "watch"],
    ),
    rule("admissionregistration.k8s.io", ADMISSION, &["delete", "patch"]).only(&[
        WEBHOOK,
        mcp_gateway_api::webhooks::ADVISORY_NAME,
        mcp_gateway_api::webhooks::supplementary::NAME,
    ]),
];

/// What the operator may do in its own namespace: leader lease, claims, the webhook's certificate.
const OPERATOR_OWN: &[Rule] = &[
    rule(
        "coordination.k8s.io",
        &["leases"],
        &["create", "delete", "get", "list", "update"],
    ),
    rule("", &["secrets"], &["patch"]).only(&[mcp_gateway_api::webhooks::CERT_SECRET]),
];

/// What the webhook may do in the whole cluster; it reads only metadata of Secrets and ConfigMaps.
const WEBHOOK_CLUSTER: &[Rule] = &[
    rule(names::GROUP, KINDS, WATCH),
    rule(names::GROUP, &[names::EXTENSIONS], &["get"]),
    rule(
        names::GATEWAY_API_GROUP,
        &["gateways", "httproutes", "referencegrants"],
        WATCH,
    ),
    rule(names::GATEWAY_API_GROUP, &["gateways"], &["get"]),
    rule("", &["namespaces"], WATCH),
    rule("", &["configmaps", "secrets"], &["get"]),
];

/// What the webhook may do in its own namespace: claims.
const WEBHOOK_OWN: &[Rule] = &[rule(
    "coordination.k8s.io",
    &["leases"],
    &["create", "delete", "get", "update"],
)];

/// What one ServiceAccount may do: in the whole cluster, and in the namespace of the installation.
pub(crate) struct Grants {
    /// Name of the ServiceAccount, and of the Role and RoleBinding.
    pub(crate) account: &'static str,
    cluster: &'static [Rule],
    own: &'static [Rule],
}

/// The whole table: the operator's grants and the webhook's.
pub(crate) const TABLE: [Grants; 2] = [
    Grants {
        account: manager::NAME,
        cluster: OPERATOR,
        own: OPERATOR_OWN,
    },
    Grants {
        account: WEBHOOK,
        cluster: WEBHOOK_CLUSTER,
        own: WEBHOOK_OWN,
    },
];

pub(crate) fn files() -> anyhow::Result<Files> {
    let resources = ["helper_roles.yaml", "operator.yaml", "webhook.yaml"].map(str::to_owned);
    let [operator, webhook] = &TABLE;
    Ok(Files::from([
        (
            "config/rbac/operator.yaml".into(),
            yaml(&operator.objects(operator.account, NAMESPACE))?,
        ),
        (
            "config/rbac/webhook.yaml".into(),
            yaml(&webhook.objects(webhook.account, NAMESPACE))?,
        ),
        (
            "config/rbac/helper_roles.yaml".into(),
            yaml(&helper_roles("mcp-gateway"))?,
        ),
        (
            "config/rbac/kustomization.yaml".into(),
            kustomization(None, &resources)?,
        ),
    ]))
}

impl Grants {
    /// The cluster-wide rules, as in a ClusterRole.
    pub(crate) fn cluster_rules(&self) -> Vec<Value> {
        self.cluster.iter().map(Rule::manifest).collect()
    }

    /// The rules for the own namespace, as in a Role.
    pub(crate) fn own_rules(&self) -> Vec<Value> {
        self.own.iter().map(Rule::manifest).collect()
    }

    /// ClusterRole `cluster_name` and Role, bound to the ServiceAccount in `namespace`.
    pub(crate) fn objects(&self, cluster_name: &str, namespace: &str) -> [Value; 4] {
        part(
            &Names {
                account: self.account,
                cluster: cluster_name,
                namespace,
            },
            self,
        )
    }
}

struct Names<'a> {
    account: &'a str,
    cluster: &'a str,
    namespace: &'a str,
}

fn part(names: &Names<'_>, grants: &Grants) -> [Value; 4] {
    let subject = json!([{"kind": "ServiceAccount", "name": names.account, "namespace": names.namespace}]);
    let object = |kind: &str, name: &str, members: Value| {
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
    let bound = |kind: &str, name: &str| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}, "subjects": subject});
    [
        object(
            "ClusterRole",
            names.cluster,
            json!({"rules": grants.cluster_rules()}),
        ),
        object(
            "ClusterRoleBinding",
            names.cluster,
            bound("ClusterRole", names.cluster),
        ),
        object("Role", names.account, json!({"rules": grants.own_rules()})),
        object("RoleBinding", names.account, bound("Role", names.account)),
    ]
}

/// Roles for people, aggregated to the cluster's admin, edit and view; their names begin with `prefix`.
pub(crate) fn helper_roles(prefix: &str) -> Vec<Value> {
    let write: &[&str] = &[
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    [
        ("admin", "admin", write),
        ("editor", "edit", write),
        ("viewer", "view", READ),
    ]
    .into_iter()
    .map(|(name, aggregate, verbs)| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": format!("{prefix}-{name}"),
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
        for rule in OPERATOR
            .iter()
            .chain(OPERATOR_OWN)
            .chain(WEBHOOK_CLUSTER)
            .chain(WEBHOOK_OWN)
        {
            for word in rule.resources.iter().chain(rule.verbs).chain([&rule.group]) {
                assert!(!word.contains('*'), "{word}");
                assert!(
                    !["escalate", "bind", "impersonate", "pods/exec"].contains(word),
                    "{word}"
                );
            }
        }
    }

    #[test]
    fn secrets_are_changed_by_name_only() {
        for rule in OPERATOR
            .iter()
            .chain(WEBHOOK_CLUSTER)
            .filter(|rule| rule.resources.contains(&"secrets"))
        {
            let changes = rule
                .verbs
                .iter()
                .any(|verb| ["patch", "update", "delete"].contains(verb));
            assert!(!changes || !rule.only.is_empty());
        }
    }
}
