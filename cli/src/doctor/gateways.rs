//! Extensions with everything that belongs to them: Gateway, grant, listener, broker, Envoy filter, route, names.

use mcp_gateway_api::{
    extension::{DataPath, MCPGatewayExtension},
    gateway::Gateway,
    hosts, names,
    object_key::ObjectKey,
    references::Switch,
    world::gateway_of,
};

use super::{Finding, Verdict, evidence::Evidence};
use crate::{
    cluster::{Listed, condition, number, text},
    remedy,
};

pub(super) fn check(evidence: &Evidence) -> Vec<Finding> {
    let extensions = evidence.world.extensions();
    extensions
        .flat_map(|extension| of_one(evidence, extension))
        .collect()
}

fn of_one(evidence: &Evidence, extension: &MCPGatewayExtension) -> Vec<Finding> {
    let key = ObjectKey::of(&extension.metadata);
    let object = format!("MCPGatewayExtension {key}");
    let judgement = evidence.plan.judgement(&key);
    let refused: Vec<Finding> = judgement
        .into_iter()
        .flat_map(|judgement| &judgement.findings)
        .map(|finding| {
            Finding::of(
                object.clone(),
                remedy::of_extension(&evidence.world, extension, finding),
            )
        })
        .collect();
    if !refused.is_empty() {
        return refused;
    }
    let mut findings: Vec<Finding> = evidence
        .world
        .gateway(&gateway_of(extension))
        .into_iter()
        .flat_map(|gateway| gateway_findings(extension, gateway))
        .collect();
    findings.extend(broker(evidence, extension));
    findings.extend(filter(evidence, extension));
    findings.extend(route(evidence, extension));
    if findings.iter().all(|finding| finding.verdict != Verdict::Problem) {
        findings.push(said(evidence, &key));
    }
    findings
}

/// What the operator says, when nothing else was found.
fn said(evidence: &Evidence, key: &ObjectKey) -> Finding {
    let object = format!("MCPGatewayExtension {key}");
    let stored = evidence.snapshot.one("MCPGatewayExtension", key);
    let Some(ready) = stored.and_then(|stored| condition(stored, "Ready")) else {
        let fix = "see that the operator runs; it writes the first status within seconds";
        return Finding::bad(
            Verdict::Problem,
            "operator",
            object,
            ("has no condition Ready yet", fix),
        );
    };
    if text(ready, "/status") == "True" {
        return Finding::good("gateway", object, text(ready, "/message"));
    }
    Finding::of(
        object,
        remedy::of_condition(text(ready, "/reason"), text(ready, "/message")),
    )
}

fn gateway_findings(extension: &MCPGatewayExtension, gateway: &Gateway) -> Vec<Finding> {
    let object = format!("Gateway {}", gateway.key);
    let mut findings = Vec::new();
    if let Some(scope) = gateway.unknown_scope() {
        let message = format!(
            "annotation {} has the unknown value {scope:?} and counts as {}",
            names::SCOPE_ANNOTATION,
            names::SCOPE_GATEWAY
        );
        let fix = format!("set it to {} or {}", names::SCOPE_GATEWAY, names::SCOPE_LISTENER);
        findings.push(Finding::bad(
            Verdict::Warning,
            "gateway",
            object.clone(),
            (message, fix),
        ));
    }
    if gateway.addresses.is_empty() {
        let message = format!(
            "has no address: the controller of class {} did not program it",
            gateway.class_name
        );
        let fix = format!(
            "kubectl describe gateway {} -n {}; the class must exist and its controller run",
            gateway.key.name, gateway.key.namespace
        );
        findings.push(Finding::bad(Verdict::Problem, "gateway", object, (message, fix)));
    }
    findings.extend(names_agree(extension, gateway));
    findings
}

/// The public host has to be one that the listener takes, or requests for it go elsewhere.
fn names_agree(extension: &MCPGatewayExtension, gateway: &Gateway) -> Option<Finding> {
    let listener = gateway.listener(&extension.spec.target_ref.section_name)?;
    let public = hosts::without_port(extension.spec.public_host.as_deref()?);
    if hosts::intersect(Some(public), listener.hostname.as_deref()) {
        return None;
    }
    let object = format!("MCPGatewayExtension {}", ObjectKey::of(&extension.metadata));
    let own = listener.hostname.as_deref().unwrap_or_default();
    let message = format!(
        "spec.publicHost {public} is no host of listener {} ({own})",
        listener.name
    );
    let fix = format!(
        "set spec.publicHost to a host that {own} covers, or leave it out; a HTTPRoute of your own needs httpRouteManagement: Disabled"
    );
    Some(Finding::bad(Verdict::Warning, "names", object, (message, fix)))
}

fn broker(evidence: &Evidence, extension: &MCPGatewayExtension) -> Vec<Finding> {
    if !matches!(evidence.snapshot.listed("Deployment"), Listed::Found(_)) {
        return Vec::new();
    }
    let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::new(namespace, names::BROKER);
    let object = format!("Deployment {key}");
    let Some(deployment) = evidence.snapshot.one("Deployment", &key) else {
        let fix = "see that the operator runs: it makes this Deployment";
        return vec![Finding::bad(
            Verdict::Problem,
            "broker",
            object,
            ("is missing", fix),
        )];
    };
    let wanted = number(deployment, "/spec/replicas").unwrap_or(1);
    let ready = number(deployment, "/status/readyReplicas").unwrap_or_default();
    if wanted == 0 {
        let fix = format!(
            "kubectl scale deployment/{} -n {namespace} --replicas=1",
            names::BROKER
        );
        let message = "is scaled to 0: every request of the listener fails";
        return vec![Finding::bad(Verdict::Problem, "broker", object, (message, fix))];
    }
    if ready == 0 {
        let label = remedy::broker_label();
        let fix = format!("kubectl describe pods -n {namespace} -l {label} says what keeps them");
        let message = format!("0 of {wanted} replicas are ready");
        return vec![Finding::bad(Verdict::Problem, "broker", object, (message, fix))];
    }
    if wanted > 1 && extension.spec.session_store.is_none() {
        let message =
            format!("has {wanted} replicas without a session store: a session is known to one of them only");
        let fix = "set spec.sessionStore of the extension (docs/guides/sessions.md), or scale to 1";
        return vec![Finding::bad(Verdict::Warning, "broker", object, (message, fix))];
    }
    vec![Finding::good(
        "broker",
        object,
        format!("{ready} of {wanted} replicas are ready"),
    )]
}

fn filter(evidence: &Evidence, extension: &MCPGatewayExtension) -> Option<Finding> {
    if extension.spec.data_path == DataPath::Direct {
        return None;
    }
    let (namespace, gateway) = (
        extension.metadata.namespace.as_deref().unwrap_or_default(),
        gateway_of(extension),
    );
    let name = names::envoy_filter_name(namespace);
    let key = ObjectKey::new(gateway.namespace.as_str(), name.as_str());
    let object = format!("EnvoyFilter {key}");
    let (message, fix) = match evidence.snapshot.listed("EnvoyFilter") {
        Listed::Unreadable(_) => return None,
        Listed::NotServed => (
            "cannot exist: the cluster does not know the kind (networking.istio.io)",
            "install Istio with its CRDs, or set spec.dataPath: Direct, which needs no filter",
        ),
        Listed::Found(_) if evidence.snapshot.one("EnvoyFilter", &key).is_none() => (
            "is missing: Envoy does not ask the router, and calls of tools go nowhere",
            "start the operator: it makes the filter within seconds",
        ),
        Listed::Found(_) => return Some(Finding::good("filter", object, "is there")),
    };
    Some(Finding::bad(Verdict::Problem, "filter", object, (message, fix)))
}

fn route(evidence: &Evidence, extension: &MCPGatewayExtension) -> Option<Finding> {
    if extension.spec.http_route_management == Switch::Disabled {
        return None;
    }
    let namespace = extension.metadata.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::new(namespace, names::ROUTE);
    if evidence.world.route(&key).is_some()
        || matches!(evidence.snapshot.listed("HTTPRoute"), Listed::Unreadable(_))
    {
        return None;
    }
    let message = "is missing: the Gateway does not know the MCP endpoint";
    let fix = "start the operator: it makes the route within seconds";
    Some(Finding::bad(
        Verdict::Problem,
        "route",
        format!("HTTPRoute {key}"),
        (message, fix),
    ))
}
