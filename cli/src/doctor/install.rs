//! Custom resource definitions, the operator and the webhook.

use mcp_gateway_api::{admission::Kind, names};
use serde_json::Value;

use super::{
    Finding, Verdict,
    evidence::{Evidence, OPERATOR, WEBHOOK},
};
use crate::{
    cluster::{Listed, items, number, text},
    status::image_version,
};

const INSTALL: &str = "install it again: kubectl apply -k config/install, or helm upgrade --install";
/// Definitions of others: name, what is missing without it, where it comes from.
const OTHERS: [(&str, &str, &str); 3] = [
    (
        "gateways.gateway.networking.k8s.io",
        "there can be no Gateway",
        "install Gateway API's standard channel",
    ),
    (
        "httproutes.gateway.networking.k8s.io",
        "no server can be registered",
        "install Gateway API's standard channel",
    ),
    (
        "referencegrants.gateway.networking.k8s.io",
        "nothing can be shared between namespaces",
        "install Gateway API's standard channel",
    ),
];

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = definitions(evidence);
    findings.push(deployment(evidence, "operator", OPERATOR));
    findings.push(deployment(evidence, "webhook", WEBHOOK));
    findings.extend(retired(evidence));
    findings
}

fn definitions(evidence: &Evidence) -> Vec<Finding> {
    if !matches!(
        evidence.snapshot.listed("CustomResourceDefinition"),
        Listed::Found(_)
    ) {
        return Vec::new();
    }
    let ours = Kind::ALL.into_iter().map(|kind| {
        let name = format!("{}.{}", plural(kind), names::GROUP);
        match definition(evidence, &name) {
            None => missing(
                &name,
                &format!("objects of kind {} are unknown here", kind.as_str()),
                INSTALL,
            ),
            Some(found) if !serves(found) => {
                let message = format!("does not serve version {}, or is not established", names::VERSION);
                let object = format!("CustomResourceDefinition {name}");
                Finding::bad(Verdict::Problem, "crds", object, (message, INSTALL))
            }
            Some(_) => Finding::good("crds", format!("CustomResourceDefinition {name}"), "is served"),
        }
    });
    let others = OTHERS
        .into_iter()
        .map(|(name, what, from)| match definition(evidence, name) {
            None => missing(name, what, from),
            Some(_) => Finding::good("crds", format!("CustomResourceDefinition {name}"), "is served"),
        });
    ours.chain(others).collect()
}

fn missing(name: &str, what: &str, fix: &str) -> Finding {
    let object = format!("CustomResourceDefinition {name}");
    Finding::bad(
        Verdict::Problem,
        "crds",
        object,
        (format!("is missing: {what}"), fix),
    )
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Extension => "mcpgatewayextensions",
        Kind::Registration => "mcpserverregistrations",
        Kind::VirtualServer => "mcpvirtualservers",
        Kind::Policy => "mcpauthpolicies",
    }
}

fn definition<'a>(evidence: &'a Evidence, name: &str) -> Option<&'a Value> {
    let mut all = evidence.snapshot.all("CustomResourceDefinition").iter();
    all.find(|definition| text(definition, "/metadata/name") == name)
}

fn serves(definition: &Value) -> bool {
    let established = items(definition, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == "Established" && text(condition, "/status") == "True");
    let version = items(definition, "/spec/versions").iter().any(|version| {
        text(version, "/name") == names::VERSION
            && version.get("served").and_then(Value::as_bool) == Some(true)
    });
    established && version
}

fn deployment(evidence: &Evidence, check: &'static str, name: &str) -> Finding {
    if let Listed::Unreadable(why) = evidence.snapshot.listed("Deployment") {
        return Finding::bad(Verdict::Unknown, check, "", (why.as_str(), ""));
    }
    let mut all = evidence.snapshot.all("Deployment").iter();
    let found = all.find(|object| text(object, "/metadata/labels/app.kubernetes.io~1name") == name);
    let Some(found) = found else {
        let message = format!("there is no Deployment with label app.kubernetes.io/name={name}");
        return Finding::bad(Verdict::Problem, check, "", (message, INSTALL));
    };
    let (namespace, own) = (text(found, "/metadata/namespace"), text(found, "/metadata/name"));
    let object = format!("Deployment {namespace}/{own}");
    let wanted = number(found, "/spec/replicas").unwrap_or(1);
    let ready = number(found, "/status/readyReplicas").unwrap_or_default();
    if wanted == 0 {
        let fix = format!("kubectl scale deployment/{own} -n {namespace} --replicas=1");
        return Finding::bad(Verdict::Problem, check, object, ("is scaled to 0", fix));
    }
    if ready == 0 {
        let fix = format!(
            "kubectl describe pods -n {namespace} -l app.kubernetes.io/name={name} says what keeps them"
        );
        let message = format!("0 of {wanted} replicas are ready");
        return Finding::bad(Verdict::Problem, check, object, (message, fix));
    }
    let version = image_version(found);
    Finding::good(
        check,
        object,
        format!("{ready} of {wanted} replicas are ready, version {version}"),
    )
}

/// Definitions of the group that ours replaced.
fn retired(evidence: &Evidence) -> Option<Finding> {
    let group = names::RETIRED_GROUP;
    let mut all = evidence.snapshot.all("CustomResourceDefinition").iter();
    let found = all.find(|definition| text(definition, "/spec/group") == group)?;
    let object = format!("CustomResourceDefinition {}", text(found, "/metadata/name"));
    let message = format!("belongs to the retired group {group}, which nobody serves any more");
    let fix = "docs/guides/migrate.md; mcpgw lint says for each manifest what changes";
    Some(Finding::bad(Verdict::Warning, "crds", object, (message, fix)))
}
