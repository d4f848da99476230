//! From a backendRef to a URL (operator.md 8.7).

use crate::{
    acceptance,
    grant::Reference,
    hosts, names,
    object_key::ObjectKey,
    registration::MCPServerRegistration,
    resolution::{Backend, Problem, Routed},
    route::BackendRef,
    service::Service,
    world::World,
};

pub(super) fn locate(
    world: &World,
    registration: &MCPServerRegistration,
    routed: &Routed<'_>,
    cluster_domain: &str,
) -> Result<Backend, Problem> {
    let Some(reference) = routed
        .route
        .rules
        .first()
        .and_then(|rule| rule.backend_refs.first())
    else {
        return Err(Problem::not_ready(format!(
            "HTTPRoute {} has no backendRefs",
            routed.route.key
        )));
    };
    let place = Place {
        path: &registration.spec.path,
        forced_https: registration.spec.ca_cert_secret_ref.is_some(),
        hostname: routed.hostname,
        cluster_domain,
    };
    if let Some(key) = reference.service(&routed.route.key.namespace) {
        let service = granted_service(world, routed, &key)?;
        return place.at_service(service, reference.port);
    }
    if reference.kind.as_deref() == Some("Hostname")
        && reference.group.as_deref() == Some("networking.istio.io")
    {
        return place.at_hostname(reference);
    }
    let kind = reference.kind.as_deref().unwrap_or("Service");
    Err(Problem::not_ready(format!(
        "HTTPRoute {} has unsupported backend reference kind {kind}; use a Service or an Istio Hostname",
        routed.route.key
    )))
}

/// The Service, when the route may refer to it: the broker dials it directly, so it must not get around the grant.
fn granted_service<'a>(
    world: &'a World,
    routed: &Routed<'_>,
    key: &ObjectKey,
) -> Result<&'a Service, Problem> {
    let from_namespace = &routed.route.key.namespace;
    let reference = Reference {
        from: (names::GATEWAY_API_GROUP, "HTTPRoute"),
        from_namespace,
        to: ("", "Service"),
        target: key,
    };
    if let Some(hint) = acceptance::missing_grant_for(world, &reference) {
        return Err(Problem::ungranted(&key.namespace, from_namespace, &hint));
    }
    world.service(key).filter(|service| service.live).ok_or_else(|| {
        Problem::not_ready(format!(
            "service {key} not found; create it or correct the HTTPRoute"
        ))
    })
}

struct Place<'a> {
    path: &'a str,
    forced_https: bool,
    hostname: &'a str,
    cluster_domain: &'a str,
}

impl Place<'_> {
    fn at_service(&self, service: &Service, number: Option<i32>) -> Result<Backend, Problem> {
        let port = service.port(number);
        if let (None, Some(number), None) = (port, number, &service.external_name) {
            return Err(Problem::not_ready(format!(
                "service {} has no port {number}",
                service.key
            )));
        }
        let https = self.forced_https || port.is_some_and(crate::service::ServicePort::is_https);
        let number = number.or(port.map(|port| port.port));
        let (host, hostname) = match &service.external_name {
            Some(external) => {
                let host = hosts::without_port(external);
                (host.to_owned(), host.to_owned())
            }
            None => {
                let ObjectKey { namespace, name } = &service.key;
                (
                    format!("{name}.{namespace}.svc.{}", self.cluster_domain),
                    self.hostname.to_owned(),
                )
            }
        };
        Ok(Backend {
            url: self.url(https, &host, number),
            hostname,
        })
    }

    fn at_hostname(&self, reference: &BackendRef) -> Result<Backend, Problem> {
        let name = &reference.name;
        if !hosts::is_dns1123_subdomain(name) {
            return Err(Problem::not_ready(format!(
                "backend Hostname {name} is not a host name"
            )));
        }
        let url = self.url(true, name, Some(reference.port.unwrap_or(443)));
        Ok(Backend {
            url,
            hostname: self.hostname.to_owned(),
        })
    }

    fn url(&self, https: bool, host: &str, port: Option<i32>) -> String {
        let scheme = if https { "https" } else { "http" };
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}://{host}{port}{}", self.path)
    }
}
