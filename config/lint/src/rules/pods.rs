//! Pods of the Deployments: hardened, with requests and probes; selectors; the disruption budget (olm.md 6.1, 7).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    bundle::{Bundle, items},
    finding::Report,
};

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let mut selectors = BTreeSet::new();
    for (name, spec) in bundle.deployments() {
        let place = (bundle.csv_file.as_str(), name);
        let selector = spec.pointer("/selector/matchLabels").unwrap_or(&Value::Null);
        let fresh = selector.is_object() && selectors.insert(selector.to_string());
        report.require(
            fresh,
            "selectors",
            place,
            "the selector is missing or that of another Deployment",
        );
        pod(
            place,
            spec.pointer("/template/spec").unwrap_or(&Value::Null),
            report,
        );
    }
    for (file, budget) in bundle
        .others
        .iter()
        .filter(|(_, object)| object["kind"] == "PodDisruptionBudget")
    {
        disruption(file, &budget["spec"], &selectors, report);
    }
}

fn pod(place: (&str, &str), pod: &Value, report: &mut Report) {
    let context = &pod["securityContext"];
    let hardened =
        context["runAsNonRoot"] == true && context["seccompProfile"] == json!({"type": "RuntimeDefault"});
    report.require(
        hardened,
        "security",
        place,
        "securityContext: runAsNonRoot, seccompProfile RuntimeDefault",
    );
    for container in items(pod, "containers").chain(items(pod, "initContainers")) {
        let context = &container["securityContext"];
        let hardened = context["readOnlyRootFilesystem"] == true
            && context["allowPrivilegeEscalation"] == false
            && context["capabilities"] == json!({"drop": ["ALL"]});
        report.require(
            hardened,
            "security",
            place,
            "containers: read-only root, no privilege escalation, no capabilities",
        );
        let requested = |what: &str| {
            container
                .pointer(&format!("/resources/requests/{what}"))
                .is_some()
        };
        report.require(
            requested("cpu") && requested("memory"),
            "requests",
            place,
            "requests for cpu and memory",
        );
    }
    for container in items(pod, "containers") {
        let probed = container.get("livenessProbe").is_some() && container.get("readinessProbe").is_some();
        report.require(probed, "probes", place, "liveness and readiness probes");
    }
}

fn disruption(file: &str, spec: &Value, selectors: &BTreeSet<String>, report: &mut Report) {
    let bound = |name: &str| spec.get(name).map(|value| value.to_string().replace('"', ""));
    let (least, most) = (bound("minAvailable"), bound("maxUnavailable"));
    let never = least.as_deref() == Some("100%") || ["0", "0%"].map(Some).contains(&most.as_deref());
    let always = ["0", "0%"].map(Some).contains(&least.as_deref()) || most.as_deref() == Some("100%");
    let one = least.is_some() != most.is_some();
    report.require(
        one && !never && !always,
        "disruption-budget",
        (file, "/spec"),
        "must leave and keep at least one pod",
    );
    let selector = spec
        .pointer("/selector/matchLabels")
        .unwrap_or(&Value::Null)
        .to_string();
    report.require(
        selectors.contains(&selector),
        "disruption-budget",
        (file, "/spec/selector"),
        "selects no Deployment of the CSV",
    );
}
