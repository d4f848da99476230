//! Host names: what clients use, what the broker uses to reach the Gateway, and when two of them meet.

use crate::{
    gateway::{Gateway, Listener},
    object_key::ObjectKey,
    service::Service,
    world::World,
};

/// True for a DNS-1123 subdomain: dot-separated labels of lower-case letters, digits and inner `-`.
#[must_use]
pub fn is_dns1123_subdomain(host: &str) -> bool {
    let label = |label: &str| {
        let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        label.len() <= 63
            && alphanumeric(label.chars().next())
            && alphanumeric(label.chars().last())
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    !host.is_empty() && host.len() <= 253 && host.split('.').all(label)
}

/// `host` without a `:port`.
#[must_use]
pub fn without_port(host: &str) -> &str {
    host.rsplit_once(':')
        .filter(|(_, port)| port.chars().all(|c| c.is_ascii_digit()))
        .map_or(host, |(head, _)| head)
}

/// The host that clients use: `spec.publicHost` without port, else the listener's hostname with a leading `*.`
/// replaced by `mcp.` (operator.md 5.3). `None` when there is neither.
#[must_use]
pub fn public_host(spec: Option<&str>, listener: Option<&str>) -> Option<String> {
    let derived = || {
        let hostname = listener.filter(|hostname| !hostname.is_empty())?;
        Some(
            hostname
                .strip_prefix("*.")
                .map_or_else(|| hostname.to_owned(), |rest| format!("mcp.{rest}")),
        )
    };
    spec.map(|host| without_port(host).to_owned()).or_else(derived)
}

/// True when `route` and `listener` hostnames meet by the rules of Gateway API: absent is everything, `*.` stands for
/// one or more labels.
#[must_use]
pub fn intersect(route: Option<&str>, listener: Option<&str>) -> bool {
    let (Some(route), Some(listener)) = (route, listener) else {
        return true;
    };
    match (route.strip_prefix("*."), listener.strip_prefix("*.")) {
        (None, None) => route.eq_ignore_ascii_case(listener),
        (Some(suffix), None) => below(listener, suffix),
        (None, Some(suffix)) => below(route, suffix),
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b) || below(a, b) || below(b, a),
    }
}

fn below(host: &str, suffix: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(&suffix.to_ascii_lowercase())
        .is_some_and(|head| head.len() > 1 && head.ends_with('.'))
}

/// True when `value` can be a private host: optional `http://` or `https://`, then a host with optional port.
#[must_use]
pub fn is_private_host(value: &str) -> bool {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            value
                .get(..scheme.len())
                .filter(|head| head.eq_ignore_ascii_case(scheme))
                .and(value.get(scheme.len()..))
        })
        .unwrap_or(value);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let address = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let host_holds = address.map_or_else(
        || is_dns1123_subdomain(&host.to_ascii_lowercase()),
        |inner| inner.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    host_holds && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The Gateway's Service that carries `port`: `<gateway>-<class>` when it exists, else the oldest one labelled for
/// the Gateway that exposes the port (operator.md 5.3).
#[must_use]
pub fn gateway_service<'a>(world: &'a World, gateway: &Gateway, port: i32) -> Option<&'a Service> {
    let conventional = ObjectKey::new(gateway.key.namespace.as_str(), service_name(gateway));
    let exposing = |service: &&Service| service.live && service.port(Some(port)).is_some();
    world
        .service(&conventional)
        .filter(|service| service.live)
        .or_else(|| {
            world
                .services_of_gateway(&gateway.key)
                .filter(exposing)
                .min_by(|a, b| {
                    if a.age.older(&b.age) {
                        std::cmp::Ordering::Less
                    } else {
                        std::cmp::Ordering::Greater
                    }
                })
        })
}

fn service_name(gateway: &Gateway) -> String {
    format!("{}-{}", gateway.key.name, gateway.class_name)
}

/// How the broker reaches the Gateway itself (operator.md 5.3): `explicit` verbatim; else the conventional Service;
/// else a labelled one; else `in_use`, what is used for this Gateway now, as far as it is a Service at this listener: one that
/// is gone for a moment must not roll the brokers; else the Gateway's address. HTTPS listeners get the scheme in front.
#[must_use]
pub fn private_host(
    world: &World,
    target: (&Gateway, &Listener),
    explicit: Option<&str>,
    in_use: Option<&str>,
    cluster_domain: &str,
) -> String {
    if let Some(explicit) = explicit {
        return explicit.to_owned();
    }
    let (gateway, listener) = target;
    let scheme = if listener.is_https() { "https://" } else { "" };
    let at_service = |name: &str| {
        format!(
            "{scheme}{name}.{}.svc.{cluster_domain}:{}",
            gateway.key.namespace, listener.port
        )
    };
    if let Some(service) = gateway_service(world, gateway, listener.port) {
        return at_service(&service.key.name);
    }
    let at_address = || address(gateway).map(|host| format!("{scheme}{host}:{}", listener.port));
    let is_at_service = |host: &&str| {
        let name = host
            .strip_prefix(scheme)
            .and_then(|host| host.split('.').next())
            .unwrap_or_default();
        is_dns1123_subdomain(name) && **host == at_service(name)
    };
    in_use
        .filter(is_at_service)
        .map(str::to_owned)
        .or_else(at_address)
        .unwrap_or_else(|| at_service(&service_name(gateway)))
}

fn address(gateway: &Gateway) -> Option<String> {
    let of_kind = |kind: &str| {
        gateway
            .addresses
            .iter()
            .find(|address| address.kind.as_deref().unwrap_or("IPAddress") == kind)
    };
    let address = of_kind("Hostname").or_else(|| of_kind("IPAddress"))?;
    let is_v6 = address.value.contains(':');
    Some(if is_v6 {
        format!("[{}]", address.value)
    } else {
        address.value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_host_prefers_the_spec_and_replaces_the_wildcard() {
        assert_eq!(
            public_host(Some("a.example:8080"), Some("*.b")),
            Some("a.example".to_owned())
        );
        assert_eq!(
            public_host(None, Some("*.example.com")),
            Some("mcp.example.com".to_owned())
        );
        assert_eq!(
            public_host(None, Some("mcp.example.com")),
            Some("mcp.example.com".to_owned())
        );
        assert_eq!(public_host(None, None), None);
    }

    #[test]
    fn hostnames_meet_as_in_gateway_api() {
        assert!(intersect(None, Some("a.b")) && intersect(Some("a.b"), None));
        assert!(intersect(Some("x.mcp.local"), Some("*.mcp.local")));
        assert!(intersect(Some("x.y.mcp.local"), Some("*.mcp.local")));
        assert!(!intersect(Some("mcp.local"), Some("*.mcp.local")));
        assert!(!intersect(Some("xmcp.local"), Some("*.mcp.local")));
        assert!(intersect(Some("*.a.mcp.local"), Some("*.mcp.local")));
        assert!(!intersect(Some("a.b"), Some("a.c")));
    }

    #[test]
    fn private_hosts_are_hosts_with_optional_scheme_and_port() {
        for good in [
            "gw.ns.svc:8080",
            "https://gw.example",
            "HTTP://10.0.0.1:80",
            "[2001:db8::1]:8443",
            "gw",
        ] {
            assert!(is_private_host(good), "{good}");
        }
        for bad in ["http://", "gw:port", "gw:0", "ftp://gw", "gw/path", "[zz]:1", ""] {
            assert!(!is_private_host(bad), "{bad}");
        }
    }

    fn gateway_of_class(class: &str, https: bool) -> crate::gateway::Gateway {
        let listener = serde_json::json!({"name": "mcp", "port": 8443, "protocol": if https { "HTTPS" } else { "HTTP" }});
        crate::gateway::Gateway::from_value(&serde_json::json!({
            "metadata": {"name": "gw", "namespace": "infra"},
            "spec": {"gatewayClassName": class, "listeners": [listener]},
        }))
        .expect("a Gateway")
    }

    fn private(
        world: &World,
        class: &str,
        https: bool,
        explicit: Option<&str>,
        in_use: Option<&str>,
    ) -> String {
        let gateway = gateway_of_class(class, https);
        let listener = gateway.listener("mcp").expect("the listener");
        private_host(world, (&gateway, listener), explicit, in_use, "cluster.local")
    }

    fn labelled(port: i32) -> serde_json::Value {
        serde_json::json!({"ports": [{"port": port}]})
    }

    fn world_with(services: &[(&str, i32)]) -> World {
        let mut world = World::default();
        for (name, port) in services {
            let object = serde_json::json!({"metadata": {"name": name, "namespace": "infra", "uid": name,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"gateway.networking.k8s.io/gateway-name": "gw"}}, "spec": labelled(*port)});
            let service = Service::from_value(&object).expect("a Service");
            world.set_service(std::sync::Arc::new(service));
        }
        world
    }

    #[test]
    fn t36_the_private_host_follows_class_label_and_field() {
        let none = World::default();
        let own = world_with(&[("gw-istio", 8443)]);
        let other = world_with(&[("gw-edge", 8443)]);
        assert_eq!(
            private(&none, "istio", false, None, None),
            "gw-istio.infra.svc.cluster.local:8443"
        );
        assert_eq!(
            private(&own, "istio", true, None, None),
            "https://gw-istio.infra.svc.cluster.local:8443"
        );
        assert_eq!(
            private(&none, "openshift-default", false, None, None),
            "gw-openshift-default.infra.svc.cluster.local:8443"
        );
        assert_eq!(
            private(&other, "edge-class", false, None, None),
            "gw-edge.infra.svc.cluster.local:8443"
        );
        assert_eq!(private(&other, "istio", false, Some("given:1"), None), "given:1");
    }

    #[test]
    fn t36_a_value_in_use_is_kept_while_the_lookup_is_inconclusive() {
        let elsewhere = world_with(&[("gw-edge", 80)]);
        let in_use = Some("gw-edge.infra.svc.cluster.local:8443");
        assert_eq!(
            private(&elsewhere, "istio", false, None, in_use),
            "gw-edge.infra.svc.cluster.local:8443"
        );
    }

    #[test]
    fn t36_a_value_in_use_outlives_the_service_for_a_moment() {
        let mut gateway = gateway_of_class("edge", false);
        gateway.addresses = vec![crate::gateway::Address {
            kind: Some("IPAddress".to_owned()),
            value: "192.0.2.7".to_owned(),
        }];
        let listener = gateway.listener("mcp").expect("the listener");
        let host =
            |world: &World, in_use| private_host(world, (&gateway, listener), None, in_use, "cluster.local");
        let used = Some("gw-edge.infra.svc.cluster.local:8443");
        assert_eq!(
            host(&World::default(), used),
            "gw-edge.infra.svc.cluster.local:8443"
        );
        assert_eq!(host(&World::default(), None), "192.0.2.7:8443");
        assert_eq!(
            host(&world_with(&[("gw-edge", 8443)]), Some("192.0.2.7:8443")),
            "gw-edge.infra.svc.cluster.local:8443"
        );
    }

    /// The private host of a Gateway that has this address, without a Service in its namespace.
    fn after(used: &str, https: bool, address: &str) -> String {
        let mut gateway = gateway_of_class("edge", https);
        gateway.addresses = vec![crate::gateway::Address {
            kind: Some("IPAddress".to_owned()),
            value: address.to_owned(),
        }];
        let listener = gateway.listener("mcp").expect("the listener");
        let target = (&gateway, listener);
        private_host(&World::default(), target, None, Some(used), "cluster.local")
    }

    #[test]
    fn t36_a_value_in_use_goes_with_the_port_and_scheme_of_its_listener() {
        let used = "gw-edge.infra.svc.cluster.local:8080";
        assert_eq!(after(used, true, "192.0.2.7"), "https://192.0.2.7:8443");
        let plain = "gw-edge.infra.svc.cluster.local:8443";
        assert_eq!(after(plain, true, "192.0.2.7"), "https://192.0.2.7:8443");
        let secure = format!("https://{plain}");
        assert_eq!(after(&secure, false, "192.0.2.7"), "192.0.2.7:8443");
        assert_eq!(after(&secure, true, "192.0.2.7"), secure);
    }

    #[test]
    fn t36_a_value_that_the_field_gave_goes_with_the_field() {
        for given in [
            "internal.example.com:8443",
            "gw-edge.elsewhere.svc.cluster.local:8443",
            "gw-edge.infra:8443",
            ".infra.svc.cluster.local:8443",
        ] {
            assert_eq!(after(given, false, "192.0.2.7"), "192.0.2.7:8443", "{given}");
        }
    }

    #[test]
    fn t36_an_address_in_use_gives_way_to_another_one() {
        assert_eq!(after("192.0.2.7:8443", false, "192.0.2.9"), "192.0.2.9:8443");
    }
}
