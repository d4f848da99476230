//! `webhookdefinitions`: what OLM accepts, and the policies of our design (olm.md 1.6, 6.2).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    bundle::{Bundle, items, strings},
    finding::Report,
};

const GROUP: &str = "mcp.kuadrant.io";
const EXTENSIONS: &str = "mcpgatewayextensions";

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let deployments: BTreeSet<&str> = bundle.deployments().map(|(name, _)| name).collect();
    let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for definition in bundle.list("/spec/webhookdefinitions") {
        let text = |name: &str| definition.get(name).and_then(Value::as_str).unwrap_or_default();
        let name = text("generateName");
        let place = (file, name);
        report.require(
            text("type") != "ConversionWebhook",
            "webhook-conversion",
            place,
            "excludes every mode but AllNamespaces",
        );
        report.require(names.insert(name), "webhook-name", place, "a name twice");
        let segments = name
            .split('.')
            .filter(|segment| super::format::dns_label(segment))
            .count();
        report.require(
            segments >= 3 && segments == name.split('.').count(),
            "webhook-name",
            place,
            "must be a domain name of three or more segments",
        );
        let deployment = text("deploymentName");
        let good = deployments.contains(deployment) && !deployment.contains('.');
        report.require(
            good,
            "webhook-deployment",
            place,
            format!("{deployment:?} is not a Deployment of the CSV"),
        );
        ports.insert((
            definition["containerPort"].to_string(),
            definition["targetPort"].to_string(),
        ));
        rules(file, name, definition, report);
        policy(place, definition, report);
    }
    report.require(
        ports.len() <= 1,
        "webhook-ports",
        (file, "/spec/webhookdefinitions"),
        format!("several pairs {ports:?}"),
    );
}

fn rules(file: &str, name: &str, definition: &Value, report: &mut Report) {
    report.require(
        items(definition, "rules").count() > 0,
        "webhook-rules",
        (file, name),
        "no rules",
    );
    for rule in items(definition, "rules") {
        let own = strings(rule, "apiGroups").all(|group| group == GROUP);
        report.require(
            own,
            "webhook-rules",
            (file, name),
            format!("apiGroups must be [{GROUP}]"),
        );
        let main = strings(rule, "resources").all(|resource| !resource.contains(['*', '/']));
        report.require(
            main,
            "webhook-rules",
            (file, name),
            "resources must be kinds: no wildcard, no subresource",
        );
        let writes = strings(rule, "operations").all(|operation| ["CREATE", "UPDATE"].contains(&operation));
        report.require(
            writes,
            "webhook-rules",
            (file, name),
            "operations are CREATE and UPDATE; deletion never waits for a webhook",
        );
    }
}

/// Fails closed for the exclusivity of new extensions, and only there: changes need a match condition, which OLM does not
/// know, so that a deletion does not wait for the webhook. The operator closes them by a supplementary configuration.
fn policy(place: (&str, &str), definition: &Value, report: &mut Report) {
    let extensions = items(definition, "rules")
        .flat_map(|rule| strings(rule, "resources"))
        .any(|name| name == EXTENSIONS);
    let exclusive = extensions && definition["type"] == "ValidatingAdmissionWebhook";
    let updates = items(definition, "rules")
        .flat_map(|rule| strings(rule, "operations"))
        .any(|operation| operation == "UPDATE");
    let failure = if exclusive && !updates { "Fail" } else { "Ignore" };
    let effects = if exclusive { "NoneOnDryRun" } else { "None" };
    let wanted = [
        ("failurePolicy", json!(failure)),
        ("sideEffects", json!(effects)),
        ("matchPolicy", json!("Equivalent")),
        ("admissionReviewVersions", json!(["v1"])),
    ];
    for (name, value) in wanted {
        report.require(
            definition.get(name) == Some(&value),
            "webhook-policy",
            place,
            format!("{name} must be {value}"),
        );
    }
    let seconds = definition
        .get("timeoutSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(10);
    report.require(
        (1..=5).contains(&seconds),
        "webhook-policy",
        place,
        "timeoutSeconds must be 1 to 5",
    );
}
