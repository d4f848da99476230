//! Whether operator and webhook may do what the shipped roles give them. The roles are the files of `config/rbac`; the API
//! server is asked for each line, so that it does not matter by which bindings an account has its permissions.

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};
use serde_json::Value;

use super::{
    Finding, Verdict,
    evidence::{Evidence, OPERATOR, WEBHOOK},
};
use crate::cluster::{Snapshot, items, text};

const ROLES: [(&str, &str); 2] = [
    (OPERATOR, include_str!("../../../config/rbac/operator.yaml")),
    (WEBHOOK, include_str!("../../../config/rbac/webhook.yaml")),
];
/// Questions at the same time.
const AT_ONCE: usize = 16;
/// Missing permissions that a finding names.
const NAMED: usize = 5;

/// What may not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Permissions {
    /// Accounts with what each lacks.
    Asked(Vec<(String, Vec<String>)>),
    /// Nobody was asked, with the reason.
    NotAsked(String),
}

/// One permission of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Permission {
    group: String,
    resource: String,
    verb: String,
    name: String,
    namespace: String,
}

impl Permission {
    fn says(&self) -> String {
        let name = if self.name.is_empty() {
            String::new()
        } else {
            format!(" {}", self.name)
        };
        format!("{} {}{name}", self.verb, self.resource)
    }
}

/// The permissions that the roles in this file hold; those of a Role are for `namespace`.
fn permissions(file: &str, namespace: &str) -> Vec<Permission> {
    let objects = serde_saphyr::from_multiple::<Value>(file).unwrap_or_default();
    let mut found = Vec::new();
    for object in &objects {
        let namespace = match text(object, "/kind") {
            "ClusterRole" => "",
            "Role" => namespace,
            _ => continue,
        };
        for rule in items(object, "/rules") {
            found.extend(of_rule(rule, namespace));
        }
    }
    found
}

fn of_rule(rule: &Value, namespace: &str) -> Vec<Permission> {
    let words = |path| {
        let all = items(rule, path).iter().filter_map(Value::as_str);
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut named = words("/resourceNames");
    if named.is_empty() {
        named.push(String::new());
    }
    let mut found = Vec::new();
    for group in words("/apiGroups") {
        for resource in words("/resources") {
            for (verb, name) in words("/verbs")
                .iter()
                .flat_map(|verb| named.iter().map(move |name| (verb, name)))
            {
                found.push(Permission {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                    namespace: namespace.to_owned(),
                });
            }
        }
    }
    found
}

/// Asks the API server about every line of the roles.
pub(super) async fn ask(client: &Client, snapshot: &Snapshot, namespace: &str) -> Permissions {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut answers = Vec::new();
    for (name, file) in ROLES {
        let Some(account) = account(snapshot, name) else {
            continue;
        };
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let questions = permissions(file, namespace).into_iter().map(async |permission| {
            let review = review(&user, &permission);
            let answer = api.create(&PostParams::default(), &review).await;
            answer.map(|review| (permission, review.status.is_some_and(|status| status.allowed)))
        });
        let asked: Vec<_> = stream::iter(questions).buffered(AT_ONCE).collect().await;
        let mut lacking = Vec::new();
        for answer in asked {
            match answer {
                Ok((_, true)) => {}
                Ok((permission, false)) => lacking.push(permission.says()),
                Err(error) => return Permissions::NotAsked(error.to_string()),
            }
        }
        answers.push((format!("ServiceAccount {namespace}/{account}"), lacking));
    }
    Permissions::Asked(answers)
}

fn account<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a str> {
    let mut all = snapshot.all("Deployment").iter();
    let found = all.find(|object| text(object, "/metadata/labels/app.kubernetes.io~1name") == name)?;
    Some(text(found, "/spec/template/spec/serviceAccountName"))
}

fn review(user: &str, permission: &Permission) -> SubjectAccessReview {
    let (resource, subresource) = match permission.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (permission.resource.as_str(), None),
    };
    let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        group: named(&permission.group),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(permission.verb.clone()),
        name: named(&permission.name),
        namespace: named(&permission.namespace),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    match &evidence.permissions {
        Permissions::NotAsked(why) if why.is_empty() => Vec::new(),
        Permissions::NotAsked(why) => {
            vec![Finding::bad(
                Verdict::Unknown,
                "rbac",
                "",
                (why.as_str(), "ask as a cluster administrator"),
            )]
        }
        Permissions::Asked(accounts) => accounts
            .iter()
            .map(|(account, lacking)| verdict(account, lacking))
            .collect(),
    }
}

fn verdict(account: &str, lacking: &[String]) -> Finding {
    if lacking.is_empty() {
        return Finding::good("rbac", account, "may do what its role gives it");
    }
    let named: Vec<&str> = lacking.iter().take(NAMED).map(String::as_str).collect();
    let rest = lacking.len().saturating_sub(NAMED);
    let more = if rest > 0 {
        format!(", and {rest} more")
    } else {
        String::new()
    };
    let message = format!("may not: {}{more}", named.join(", "));
    let fix = "apply its roles and bindings again: kubectl apply -k config/rbac, or helm upgrade";
    Finding::bad(Verdict::Problem, "rbac", account, (message, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_roles_are_read_as_permissions() {
        let [(_, operator), (_, webhook)] = ROLES;
        let found = permissions(operator, "mcp-system");
        assert!(
            found
                .iter()
                .any(|permission| permission.says() == "patch mcpgatewayextensions/status")
        );
        assert!(found.iter().any(|permission| {
            permission.says() == "patch deployments mcp-gateway" && permission.namespace.is_empty()
        }));
        let leases: Vec<_> = permissions(webhook, "mcp-system")
            .into_iter()
            .filter(|permission| permission.resource == "leases")
            .collect();
        assert!(!leases.is_empty() && leases.iter().all(|lease| lease.namespace == "mcp-system"));
    }
}
