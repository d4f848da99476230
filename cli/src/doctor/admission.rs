//! Webhook configurations, their certificate, and whether admission answers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mcp_gateway_api::{object_key::ObjectKey, webhooks};
use serde_json::Value;

use super::{
    Finding, Verdict,
    evidence::{Evidence, Probe},
};
use crate::cluster::{Listed, items, text};

/// A certificate that ends sooner than this is worth a warning, seconds: the operator renews at 90 days.
const SOON: i64 = 14 * 24 * 3600;

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, wanted) in [
        ("ValidatingWebhookConfiguration", webhooks::EXCLUSIVITY),
        ("MutatingWebhookConfiguration", webhooks::DEFAULTS),
    ] {
        if !matches!(evidence.snapshot.listed(kind), Listed::Found(_)) {
            continue;
        }
        match find(evidence, kind, wanted) {
            None => findings.push(absent(kind, wanted)),
            Some((object, webhook)) => findings.extend(configured(evidence, &object, webhook)),
        }
    }
    findings.extend(probed(&evidence.probe));
    findings
}

fn absent(kind: &str, wanted: &str) -> Finding {
    let fix = "apply it again: kubectl apply -k config/install; with Helm or OLM restart the operator, which makes it";
    let message = format!("no {kind} holds webhook {wanted}: nothing is decided before objects are stored");
    Finding::bad(Verdict::Problem, "webhook", kind, (message, fix))
}

/// The webhook with this name in any configuration: OLM gives configurations names of its own.
fn find<'a>(evidence: &'a Evidence, kind: &str, wanted: &str) -> Option<(String, &'a Value)> {
    evidence.snapshot.all(kind).iter().find_map(|configuration| {
        let mut all = items(configuration, "/webhooks").iter();
        let found = all.find(|webhook| text(webhook, "/name") == wanted)?;
        Some((format!("{kind} {}", text(configuration, "/metadata/name")), found))
    })
}

fn configured(evidence: &Evidence, object: &str, webhook: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = text(webhook, "/name");
    if name == webhooks::EXCLUSIVITY && text(webhook, "/failurePolicy") != "Fail" {
        let message =
            "failurePolicy is not Fail: two extensions can take one Gateway while the webhook is away";
        let fix = "set failurePolicy: Fail, or apply the installation again";
        findings.push(Finding::bad(Verdict::Warning, "webhook", object, (message, fix)));
    }
    findings.push(certificate(evidence, object, webhook));
    let (namespace, service) = (
        text(webhook, "/clientConfig/service/namespace"),
        text(webhook, "/clientConfig/service/name"),
    );
    if !service.is_empty() {
        findings.extend(reachable(evidence, &ObjectKey::new(namespace, service)));
    }
    findings
}

fn certificate(evidence: &Evidence, object: &str, webhook: &Value) -> Finding {
    let problem = |message: String| {
        let fix = "restart the operator (it issues and writes certificates): kubectl rollout restart deployment \
                   -l app.kubernetes.io/name=mcp-gateway-operator -A; with certificates of your own put their CA into caBundle";
        Finding::bad(Verdict::Problem, "certificate", object, (message, fix))
    };
    let encoded = text(webhook, "/clientConfig/caBundle");
    let Some(bundle) = STANDARD.decode(encoded).ok().filter(|bytes| !bytes.is_empty()) else {
        return problem("has no caBundle: the API server cannot verify the webhook".to_owned());
    };
    let Some(end) = not_after(&bundle) else {
        return problem("its caBundle is no PEM certificate".to_owned());
    };
    if end <= evidence.now {
        return problem("the certificate authority of its caBundle has expired".to_owned());
    }
    // Beside it there may be the former authority, until every replica serves the new certificate.
    let holds = |issued: &[u8]| {
        let issued = issued.trim_ascii();
        bundle.windows(issued.len().max(1)).any(|part| part == issued)
    };
    if evidence.issued_ca.as_ref().is_some_and(|issued| !holds(issued)) {
        return problem("its caBundle lacks the authority that issued the webhook's certificate".to_owned());
    }
    if end - evidence.now < SOON {
        let message = "the certificate authority of its caBundle ends within two weeks and was not renewed";
        let fix = "see whether the operator runs: it renews 90 days before the end";
        return Finding::bad(Verdict::Warning, "certificate", object, (message, fix));
    }
    Finding::good("certificate", object, "its caBundle is valid")
}

/// When the first certificate of a PEM text ends, seconds since the epoch.
fn not_after(pem: &[u8]) -> Option<i64> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn reachable(evidence: &Evidence, service: &ObjectKey) -> Option<Finding> {
    if !matches!(evidence.snapshot.listed("EndpointSlice"), Listed::Found(_)) {
        return None;
    }
    let object = format!("Service {service}");
    if has_endpoints(evidence, service) {
        return Some(Finding::good("webhook", object, "has ready endpoints"));
    }
    let message = "has no ready endpoint: nobody decides, and new extensions are refused";
    let fix = format!(
        "kubectl get pods -n {} -l app.kubernetes.io/name={}",
        service.namespace,
        webhooks::NAME
    );
    Some(Finding::bad(Verdict::Problem, "webhook", object, (message, fix)))
}

/// True when an EndpointSlice of the Service has an endpoint that is ready.
pub(super) fn has_endpoints(evidence: &Evidence, service: &ObjectKey) -> bool {
    evidence.snapshot.all("EndpointSlice").iter().any(|slice| {
        text(slice, "/metadata/namespace") == service.namespace
            && text(slice, "/metadata/labels/kubernetes.io~1service-name") == service.name
            && items(slice, "/endpoints").iter().any(|endpoint| {
                endpoint
                    .pointer("/conditions/ready")
                    .and_then(Value::as_bool)
                    .unwrap_or(true)
            })
    })
}

fn probed(probe: &Probe) -> Option<Finding> {
    match probe {
        Probe::Decided => Some(Finding::good("webhook", "admission", "answers")),
        Probe::Failed(why) => {
            let fix = "mend what this text names: no endpoints (start the webhook's pods), x509 (see certificate), \
                       timeout (a NetworkPolicy or firewall between API server and webhook, port 9443)";
            Some(Finding::bad(
                Verdict::Problem,
                "webhook",
                "admission",
                (why.as_str(), fix),
            ))
        }
        Probe::NotAsked(why) if why.is_empty() => None,
        Probe::NotAsked(why) => Some(Finding::bad(
            Verdict::Unknown,
            "webhook",
            "admission",
            (why.as_str(), ""),
        )),
    }
}
