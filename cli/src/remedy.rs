//! From what is wrong with an object to what mends it. The rules and their messages are the operator's own; only the next
//! step is added here, so that `status` and `doctor` say the same.

use mcp_gateway_api::{
    acceptance::{Finding, Rule},
    conditions::RegistrationReason,
    extension::MCPGatewayExtension,
    names,
    object_key::ObjectKey,
    registration::MCPServerRegistration,
    resolution::Problem,
    world::{World, gateway_of, route_of},
};

/// What is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The field of `mcpgw doctor` that it belongs to.
    pub check: &'static str,
    /// What is wrong.
    pub message: String,
    /// The next step.
    pub fix: String,
}

/// For an extension that is not accepted.
pub(crate) fn of_extension(world: &World, extension: &MCPGatewayExtension, finding: &Finding) -> Remedy {
    let gateway = gateway_of(extension);
    let key = ObjectKey::of(&extension.metadata);
    let (check, fix) = match finding.rule {
        Rule::Spec => ("names", format!("correct {} of {key}", finding.field)),
        Rule::Namespace | Rule::GatewayExclusive => (
            "conflict",
            format!(
                "delete one of the two; or move {key} to a Gateway and namespace of its own. The owner of {gateway} can also \
                 allow one extension for each listener port: kubectl annotate gateway {} -n {} {}={}",
                gateway.name,
                gateway.namespace,
                names::SCOPE_ANNOTATION,
                names::SCOPE_LISTENER
            ),
        ),
        Rule::PortExclusive => (
            "conflict",
            "give the extension a listener on another port of the Gateway".to_owned(),
        ),
        Rule::Grant => (
            "grant",
            grant(&key.namespace, "MCPGatewayExtension", "Gateway", &gateway),
        ),
        Rule::Gateway => (
            "gateway",
            format!(
                "create Gateway {gateway}, or name one that exists in spec.targetRef; there are: {}",
                gateways(world)
            ),
        ),
        Rule::Listener => (
            "listener",
            format!("set spec.targetRef.sectionName of {key} to a listener that exists"),
        ),
        Rule::Protocol => (
            "listener",
            "name a listener with protocol HTTP, or HTTPS with tls.mode Terminate".to_owned(),
        ),
        Rule::AllowedRoutes => (
            "listener",
            format!(
                "on Gateway {gateway} let the listener's allowedRoutes.namespaces admit namespace {}: from: All, or a selector",
                key.namespace
            ),
        ),
        Rule::Hostname => (
            "names",
            format!("set spec.publicHost of {key} to the host that clients use"),
        ),
    };
    Remedy {
        check,
        message: finding.message.clone(),
        fix,
    }
}

/// For a registration that is not served.
pub(crate) fn of_registration(
    world: &World,
    registration: &MCPServerRegistration,
    problem: &Problem,
) -> Remedy {
    let key = ObjectKey::of(&registration.metadata);
    let (check, fix) = match problem.reason {
        RegistrationReason::PrefixConflict => (
            "names",
            format!(
                "a prefix cannot be changed: delete {key} and create it with a prefix that nobody uses, or delete the older registration"
            ),
        ),
        RegistrationReason::ReferenceGrantRequired => ("grant", registration_grant(world, registration)),
        _ => unserved(world, registration, &problem.message),
    };
    Remedy {
        check,
        message: problem.message.clone(),
        fix,
    }
}

fn unserved(world: &World, registration: &MCPServerRegistration, message: &str) -> (&'static str, String) {
    let route = route_of(registration);
    let says = |part: &str| message.contains(part);
    if says("no valid gateways for httproute") {
        let described = format!("kubectl describe httproute {} -n {}", route.name, route.namespace);
        let refusal =
            refusal(world, &route).map_or_else(String::new, |why| format!(" (the Gateway says: {why})"));
        return (
            "route",
            format!(
                "let spec.parentRefs of HTTPRoute {route} name a Gateway and a listener that admit it{refusal}; see {described}"
            ),
        );
    }
    if says("no matching mcpgatewayextensions") {
        let fix = format!(
            "let a parentRef of HTTPRoute {route} name a listener on the port of the extension: {}",
            listeners(world)
        );
        return ("route", fix);
    }
    if says("no valid mcpgatewayextensions") {
        let fix = "create an MCPGatewayExtension for that Gateway, or mend the one that is there".to_owned();
        return ("gateway", fix);
    }
    if says("is already registered by") {
        let fix = format!(
            "delete one of the two registrations, or give {} an HTTPRoute or a spec.path of its own",
            ObjectKey::of(&registration.metadata)
        );
        return ("names", fix);
    }
    if says("service ") {
        let fix = format!(
            "create the Service, or correct backendRefs of HTTPRoute {route}: name, namespace and port"
        );
        return ("backend", fix);
    }
    if says("HTTPRoute") && says("not found") {
        let fix = format!("create HTTPRoute {route}, or correct spec.targetRef");
        return ("route", fix);
    }
    (
        "route",
        format!("correct HTTPRoute {route}: one rule, one backendRef, an exact hostname first"),
    )
}

/// What mends a Secret that an object names.
fn of_secret(reason: &str, message: &str) -> Option<String> {
    let says = |part: &str| message.contains(part);
    let label = names::SECRET_LABEL;
    if says("missing required label") {
        Some(format!("kubectl label secret NAME -n NAMESPACE {label}=true"))
    } else if reason == "SecretNotFound" || (says("secret ") && says("not found")) {
        Some(format!("create the Secret with label {label}=true"))
    } else if reason == "SecretInvalid" || says("secret ") {
        Some("correct the Secret as the message says".to_owned())
    } else {
        None
    }
}

/// For what the operator says in a condition, when nothing better is known.
pub(crate) fn of_condition(reason: &str, message: &str) -> Remedy {
    let says = |part: &str| message.contains(part);
    let (check, fix) = if let Some(fix) = of_secret(reason, message) {
        ("secret", fix)
    } else if reason == "EnvoyFilterUnavailable" {
        (
            "filter",
            "install Istio with its CRDs, or set spec.dataPath: Direct".to_owned(),
        )
    } else if says("certificate") || says("UnknownIssuer") {
        (
            "backend",
            "put the certificate authority of the server into spec.caCertSecretRef of its registration"
                .to_owned(),
        )
    } else if says("failed to connect") || says("failed to ping") || says("failed to list") {
        (
            "backend",
            "see that the server's pods run, that the Service's port is theirs, and that spec.path is its MCP path".to_owned(),
        )
    } else if says("not served yet by") {
        (
            "broker",
            format!(
                "wait some seconds; if it stays: kubectl describe pods -l {}. An operator outside of the cluster's network \
                 (make run-controller) cannot ask brokers",
                broker_label()
            ),
        )
    } else if reason == "DeploymentNotReady" {
        (
            "broker",
            format!(
                "kubectl describe pods -l {} in the extension's namespace",
                broker_label()
            ),
        )
    } else if reason == "RouteNotAccepted" || reason == "GatewayNotReady" {
        (
            "gateway",
            "see the Gateway's status: its controller refuses the listener or the route".to_owned(),
        )
    } else {
        (
            "status",
            "do what the message says; mcpgw doctor looks at what is around it".to_owned(),
        )
    };
    Remedy {
        check,
        message: message.to_owned(),
        fix,
    }
}

/// Selector of the broker's pods, for `kubectl -l`.
pub(crate) fn broker_label() -> String {
    let (label, value) = names::NAME_LABEL;
    format!("{label}={value}")
}

/// The grant that lets `kind` of `from` refer to `target`, as one command.
fn grant(from: &str, kind: &str, target_kind: &str, target: &ObjectKey) -> String {
    let (namespace, name) = (&target.namespace, &target.name);
    let (our_group, group) = (names::GROUP, names::GATEWAY_API_GROUP);
    format!(
        "the owner of namespace {namespace} creates a ReferenceGrant there: {{apiVersion: {group}/v1beta1, kind: ReferenceGrant, \
         metadata: {{name: allow-{from}, namespace: {namespace}}}, spec: {{from: [{{group: {our_group}, kind: {kind}, \
         namespace: {from}}}], to: [{{group: {group}, kind: {target_kind}, name: {name}}}]}}}}"
    )
}

fn registration_grant(world: &World, registration: &MCPServerRegistration) -> String {
    let route = route_of(registration);
    let from = registration.metadata.namespace.as_deref().unwrap_or_default();
    if route.namespace != from {
        return grant(from, "MCPServerRegistration", "HTTPRoute", &route);
    }
    let service = world.route(&route).and_then(|route| {
        let reference = route.rules.first()?.backend_refs.first()?;
        reference.service(&route.key.namespace)
    });
    let namespace = service.map_or_else(String::new, |service| service.namespace);
    format!(
        "the owner of namespace {namespace} creates a ReferenceGrant there, from kind HTTPRoute of namespace {from} to kind Service"
    )
}

/// Why the Gateway refuses a route, in its controller's words.
fn refusal(world: &World, route: &ObjectKey) -> Option<String> {
    let route = world.route(route)?;
    let conditions = route.parents.iter().flat_map(|parent| &parent.conditions);
    let refused = conditions.filter(|condition| condition.kind == "Accepted" && condition.status == "False");
    refused.map(|condition| condition.message.clone()).next()
}

fn gateways(world: &World) -> String {
    let all: Vec<String> = world.gateways().map(|gateway| gateway.key.to_string()).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

/// The listeners that extensions use, with their ports.
fn listeners(world: &World) -> String {
    let all: Vec<String> = world
        .extensions()
        .filter_map(|extension| {
            let gateway = world.gateway(&gateway_of(extension))?;
            let listener = gateway.listener(&extension.spec.target_ref.section_name)?;
            Some(format!("{} port {}", gateway.key, listener.port))
        })
        .collect();
    all.join(", ")
}
