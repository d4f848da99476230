//! Least privilege, shown by the API server's audit log: what the suite made operator, webhook and brokers ask for, held
//! against the roles that are installed. Both tests look at everything that ran before, so `test/e2e/suite.sh` runs them
//! in the same sandbox once the suite is done.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing member of a JSON answer reads as null"
)]

use std::collections::BTreeSet;

use mcp_gateway_e2e::{OPERATOR_NAMESPACE, get};
use mcp_gateway_kit::{AuditMark, Kit, Request};
use serde_json::Value;

/// What is granted and leaves no request of its own in the log: account, resource, verb, and why.
const UNSEEN: [(&str, &str, &str, &str); 11] = {
    const OWNER: &str =
        "the admission plugin OwnerReferencesPermissionEnforcement asks for it, without a request";
    const OLM: &str = "supplementary configurations exist in scoped OLM installs only";
    [
        (
            "mcp-gateway-controller",
            "mcpgatewayextensions/finalizers",
            "update",
            OWNER,
        ),
        ("mcp-gateway-controller", "secrets", "delete", OWNER),
        ("mcp-gateway-controller", "serviceaccounts", "delete", OWNER),
        ("mcp-gateway-controller", "services", "delete", OWNER),
        ("mcp-gateway-controller", "deployments", "delete", OWNER),
        ("mcp-gateway-controller", "roles", "delete", OWNER),
        ("mcp-gateway-controller", "rolebindings", "delete", OWNER),
        (
            "mcp-gateway-controller",
            "mutatingwebhookconfigurations",
            "delete",
            OLM,
        ),
        (
            "mcp-gateway-controller",
            "validatingwebhookconfigurations",
            "delete",
            OLM,
        ),
        (
            "mcp-gateway-controller",
            "mutatingwebhookconfigurations",
            "create",
            "config/install ships them; the chart's install creates them",
        ),
        (
            "mcp-gateway-controller",
            "validatingwebhookconfigurations",
            "create",
            "config/install ships them; the chart's install creates them",
        ),
    ]
};

/// One thing that an account may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    account: &'static str,
    /// Empty for the whole cluster.
    namespace: String,
    group: String,
    /// With `/<subresource>`, if any.
    resource: String,
    verb: String,
    /// Empty for every name.
    name: String,
}

impl Grant {
    fn covers(&self, request: &Request) -> bool {
        let resource = if request.subresource.is_empty() {
            request.resource.clone()
        } else {
            format!("{}/{}", request.resource, request.subresource)
        };
        is_of(self.account, &request.user)
            && (self.group == request.group && self.resource == resource && self.verb == request.verb)
            && (self.namespace.is_empty() || self.namespace == request.namespace)
            && (self.name.is_empty() || self.name == request.name)
    }

    fn is_unseen(&self) -> bool {
        UNSEEN.iter().any(|(account, resource, verb, _)| {
            (*account, *resource, *verb) == (self.account, &self.resource, &self.verb)
        })
    }
}

/// The brokers' accounts lie in the teams' namespaces.
fn is_of(account: &str, user: &str) -> bool {
    user.starts_with("system:serviceaccount:") && user.ends_with(&format!(":{account}"))
}

const ACCOUNTS: [&str; 3] = ["mcp-gateway-controller", "mcp-gateway-webhook", "mcp-gateway"];

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn grants_of(account: &'static str, namespace: &str, role: &Value) -> Vec<Grant> {
    let mut grants = Vec::new();
    for rule in role["rules"].as_array().cloned().unwrap_or_default() {
        let mut names = strings(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    grants.extend(names.iter().map(|name| Grant {
                        account,
                        namespace: namespace.to_owned(),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                    }));
                }
            }
        }
    }
    grants
}

/// Everything that is granted to our three accounts, in the cluster as installed.
fn granted() -> anyhow::Result<Vec<Grant>> {
    let mut grants = Vec::new();
    for account in &ACCOUNTS[..2] {
        grants.extend(grants_of(account, "", &get(&format!("clusterrole {account}"))?));
        let own = get(&format!("role {account} -n {OPERATOR_NAMESPACE}"))?;
        grants.extend(grants_of(account, OPERATOR_NAMESPACE, &own));
    }
    let roles = get("role -A --field-selector metadata.name=mcp-gateway")?;
    let broker = roles["items"].as_array().and_then(|items| items.first()).cloned();
    grants.extend(grants_of("mcp-gateway", "", &broker.unwrap_or_default()));
    Ok(grants)
}

fn requests() -> anyhow::Result<Vec<Request>> {
    let mut requests = Kit::from_env()?.requests_since(AuditMark::default())?;
    requests.retain(|request| ACCOUNTS.iter().any(|account| is_of(account, &request.user)));
    anyhow::ensure!(
        requests.len() > 100,
        "the suite did not run before: {} requests",
        requests.len()
    );
    Ok(requests)
}

#[test]
#[ignore = "looks at what the whole suite asked for: make e2e"]
fn nothing_was_forbidden() -> anyhow::Result<()> {
    let forbidden: BTreeSet<String> = requests()?
        .iter()
        .filter(|request| request.forbidden)
        .map(|request| {
            let Request {
                user,
                verb,
                group,
                resource,
                subresource,
                namespace,
                name,
                ..
            } = request;
            format!("{user}: {verb} {group} {resource} {subresource} {namespace}/{name}")
        })
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    Ok(())
}

#[test]
#[ignore = "looks at what the whole suite asked for: make e2e"]
fn every_granted_verb_was_used() -> anyhow::Result<()> {
    let requests = requests()?;
    let unused: Vec<Grant> = granted()?
        .into_iter()
        .filter(|grant| !grant.is_unseen())
        .filter(|grant| !requests.iter().any(|request| grant.covers(request)))
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
    Ok(())
}
