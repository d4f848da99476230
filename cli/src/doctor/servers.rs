//! Registered servers, virtual servers and policies.

use mcp_gateway_api::{
    object_key::{ObjectKey, is_live},
    references::Switch,
    registration::MCPServerRegistration,
    world::route_of,
};
use serde_json::Value;

use super::{Finding, Verdict, admission::has_endpoints, evidence::Evidence};
use crate::{
    cluster::{Listed, condition, text},
    remedy,
};

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let registrations = evidence.world.registrations();
    let mut findings: Vec<Finding> = registrations
        .filter(|registration| is_live(&registration.metadata))
        .filter(|registration| registration.spec.state == Switch::Enabled)
        .map(|registration| registered(evidence, registration))
        .collect();
    findings.extend(names_of_others(evidence));
    findings
}

fn registered(evidence: &Evidence, registration: &MCPServerRegistration) -> Finding {
    let key = ObjectKey::of(&registration.metadata);
    let object = format!("MCPServerRegistration {key}");
    let resolution = evidence.plan.resolution(&key);
    if let Some(problem) = resolution.and_then(|resolution| resolution.problem.as_ref()) {
        return Finding::of(
            object,
            remedy::of_registration(&evidence.world, registration, problem),
        );
    }
    if let Some(finding) = endpoints(evidence, registration) {
        return finding;
    }
    let stored = evidence.snapshot.one("MCPServerRegistration", &key);
    match stored.and_then(|stored| condition(stored, "Ready")) {
        None => {
            let fix = "see that the operator runs; it writes the first status within seconds";
            Finding::bad(
                Verdict::Problem,
                "operator",
                object,
                ("has no condition Ready yet", fix),
            )
        }
        Some(ready) if text(ready, "/status") == "True" => {
            Finding::good("server", object, text(ready, "/message"))
        }
        Some(ready) => Finding::of(
            object,
            remedy::of_condition(text(ready, "/reason"), text(ready, "/message")),
        ),
    }
}

/// A Service without a ready endpoint, before anybody times out.
fn endpoints(evidence: &Evidence, registration: &MCPServerRegistration) -> Option<Finding> {
    if !matches!(evidence.snapshot.listed("EndpointSlice"), Listed::Found(_)) {
        return None;
    }
    let route = evidence.world.route(&route_of(registration))?;
    let reference = route.rules.first()?.backend_refs.first()?;
    let key = reference.service(&route.key.namespace)?;
    let service = evidence.world.service(&key)?;
    if service.external_name.is_some() || has_endpoints(evidence, &key) {
        return None;
    }
    let message = format!(
        "no pod of Service {key} is ready, so MCPServerRegistration {} has no server",
        ObjectKey::of(&registration.metadata)
    );
    let fix = format!(
        "start the server's pods, or correct the Service's selector: kubectl get endpointslices -n {} -l kubernetes.io/service-name={}",
        key.namespace, key.name
    );
    Some(Finding::bad(
        Verdict::Problem,
        "backend",
        format!("Service {key}"),
        (message, fix),
    ))
}

/// Names that nobody publishes, names that somebody else publishes, policies that are not in force.
fn names_of_others(evidence: &Evidence) -> Vec<Finding> {
    let cases = [
        (
            "MCPServerRegistration",
            "Conflicted",
            "True",
            "names",
            "give the younger registration a prefix",
        ),
        (
            "MCPVirtualServer",
            "ToolsResolved",
            "False",
            "names",
            "correct spec.tools: mcpgw tools list says which names are published",
        ),
        (
            "MCPAuthPolicy",
            "Accepted",
            "False",
            "policy",
            "correct the policy; until then it denies what it names",
        ),
        (
            "MCPAuthPolicy",
            "ResourcesResolved",
            "False",
            "policy",
            "do what the message says; names in rules are <namespace>/<registration>:<tool>, without prefix",
        ),
    ];
    let mut findings = Vec::new();
    for (kind, wanted, bad, check, fix) in cases {
        for object in evidence.snapshot.all(kind) {
            let found = condition(object, wanted).filter(|found| text(found, "/status") == bad);
            findings.extend(found.map(|found| wrong(object, found, (check, fix))));
        }
    }
    findings
}

fn wrong(object: &Value, found: &Value, (check, fix): (&'static str, &str)) -> Finding {
    let name = format!(
        "{} {}/{}",
        text(object, "/kind"),
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name")
    );
    Finding::bad(Verdict::Warning, check, name, (text(found, "/message"), fix))
}
