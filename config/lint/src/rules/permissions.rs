//! Rights that the CSV asks for (olm.md 1.4, 3.1; trap 5).

use serde_json::Value;

use crate::{
    bundle::{Bundle, items, strings},
    finding::Report,
};

const WRITES: [&str; 5] = ["create", "patch", "update", "delete", "deletecollection"];
const ESCALATION: [&str; 3] = ["escalate", "bind", "impersonate"];

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    for list in ["clusterPermissions", "permissions"] {
        for entry in bundle.list(&format!("/spec/install/spec/{list}")) {
            let account = entry
                .get("serviceAccountName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            for rule in items(entry, "rules") {
                one((&bundle.csv_file, &format!("{list} of {account}")), rule, report);
            }
        }
    }
}

fn one(place: (&str, &str), rule: &Value, report: &mut Report) {
    let resources: Vec<&str> = strings(rule, "resources").collect();
    let verbs: Vec<&str> = strings(rule, "verbs").collect();
    let words = strings(rule, "apiGroups")
        .chain(resources.iter().copied())
        .chain(verbs.iter().copied());
    let wild = words.into_iter().any(|word| word.contains('*'));
    report.require(!wild, "permissions", place, format!("a wildcard in {rule}"));
    let escalates = verbs.iter().any(|verb| ESCALATION.contains(verb)) || resources.contains(&"pods/exec");
    report.require(
        !escalates,
        "permissions",
        place,
        format!("{verbs:?} on {resources:?} is a way to more rights"),
    );
    let writes = verbs.iter().any(|verb| WRITES.contains(verb));
    let definitions = writes && resources.contains(&"customresourcedefinitions");
    report.require(!definitions, "permissions", place, "CRDs are OLM's to write");
    let constraints = resources.contains(&"securitycontextconstraints");
    report.require(
        !constraints,
        "permissions",
        place,
        "default security context constraints need no right",
    );
    // Names of claims (Leases) follow from their content, so that only Secrets can be named here.
    let changes = verbs
        .iter()
        .any(|verb| ["patch", "update", "delete", "deletecollection"].contains(verb));
    let named = strings(rule, "resourceNames").next().is_some();
    report.require(
        named || !changes || !resources.contains(&"secrets"),
        "named-secrets",
        place,
        "OLM turns a Role into a ClusterRole under AllNamespaces: name the Secrets (resourceNames)",
    );
}
