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

/// A grant of the operator that leaves no request in the log of this suite: resource, verb, name (empty for all), why.
type Unseen = (&'static str, &'static str, &'static str, &'static str);

const OWNER: &str =
    "the admission plugin OwnerReferencesPermissionEnforcement asks for it, without a request";
const LEAVING: &str = "mcpgw uninstall runs as this account before the chart goes (test/ship)";
const CHART: &str =
    "config/install ships the configurations; of a chart's install the operator makes them (test/ship)";
const OLM: &str = "OLM's installs only (test/ship)";

const UNSEEN: [Unseen; 15] = [
    ("mcpgatewayextensions/finalizers", "update", "", OWNER),
    ("secrets", "delete", "", OWNER),
    ("serviceaccounts", "delete", "", OWNER),
    ("services", "delete", "", OWNER),
    ("deployments", "delete", "", OWNER),
    ("roles", "delete", "", OWNER),
    ("rolebindings", "delete", "", OWNER),
    ("mutatingwebhookconfigurations", "create", "", CHART),
    ("validatingwebhookconfigurations", "create", "", CHART),
    ("mutatingwebhookconfigurations", "delete", "", LEAVING),
    ("validatingwebhookconfigurations", "delete", "", LEAVING),
    (
        "mutatingwebhookconfigurations",
        "patch",
        "mcp-gateway-webhook-supplementary",
        OLM,
    ),
    (
        "validatingwebhookconfigurations",
        "patch",
        "mcp-gateway-webhook-supplementary",
        OLM,
    ),
    (
        "mutatingwebhookconfigurations",
        "patch",
        ADVISORY,
        "there is no mutating one",
    ),
    (
        "validatingwebhookconfigurations",
        "patch",
        ADVISORY,
        "an optional component",
    ),
];

const ADVISORY: &str = mcp_gateway_api::webhooks::ADVISORY_NAME;

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
        let matches = |(resource, verb, name, _): &Unseen| {
            (*resource, *verb) == (self.resource.as_str(), self.verb.as_str())
                && (name.is_empty() || *name == self.name)
        };
        self.account == "mcp-gateway-controller" && UNSEEN.iter().any(matches)
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
        .map(ToString::to_string)
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    Ok(())
}

#[test]
#[ignore = "looks at what the whole suite asked for: make e2e"]
fn every_granted_verb_was_used() -> anyhow::Result<()> {
    let requests = requests()?;
    let granted = granted()?;
    // What a Role allows counts for the Role, so that a ClusterRole is not needed for it.
    let own: Vec<&Grant> = granted
        .iter()
        .filter(|grant| !grant.namespace.is_empty())
        .collect();
    let is_used = |grant: &Grant| {
        requests.iter().any(|request| {
            grant.covers(request)
                && (!grant.namespace.is_empty() || !own.iter().any(|own| own.covers(request)))
        })
    };
    let unused: Vec<&Grant> = granted
        .iter()
        .filter(|grant| !grant.is_unseen() && !is_used(grant))
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
    Ok(())
}
