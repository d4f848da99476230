//! Which origins and hosts may speak to the gateway (data-plane.md 4.9, S18).

use crate::protocol::host;
use std::collections::HashSet;
use url::Url;

/// The rules of one config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Hosts whose origins are allowed with any scheme and port, in comparable form.
    pub hosts: HashSet<String>,
    /// Exact origins, lower case, without a trailing slash.
    pub exact: HashSet<String>,
    /// Everything is allowed.
    pub any: bool,
}

impl Origins {
    /// Rules from the public hosts and the configured origins.
    pub fn new<'a>(
        hosts: impl IntoIterator<Item = &'a str>,
        allowed: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut rules = Self {
            hosts: hosts.into_iter().map(host::comparable).collect(),
            ..Self::default()
        };
        for origin in allowed {
            match origin.trim() {
                "*" => rules.any = true,
                "" => {}
                text => drop(
                    rules
                        .exact
                        .insert(text.trim_end_matches('/').to_ascii_lowercase()),
                ),
            }
        }
        rules
    }

    /// Whether a request with this `Origin` may go on; an absent one may.
    pub fn allow(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let origin = origin.trim().to_ascii_lowercase();
        if self.exact.contains(origin.trim_end_matches('/')) {
            return true;
        }
        let Ok(url) = Url::parse(&origin) else {
            return false;
        };
        match url.host_str() {
            Some(name) if matches!(url.scheme(), "http" | "https") => {
                let name = host::comparable(name.trim_start_matches('[').trim_end_matches(']'));
                self.hosts.contains(&name) || host::is_loopback(&name)
            }
            _ => false,
        }
    }

    /// Whether the broker's own listener serves this `Host`.
    pub fn allow_host(&self, name: &str) -> bool {
        let name = host::comparable(name);
        self.hosts.contains(&name)
            || host::is_loopback(&name)
            || host::is_ip_literal(&name)
            || name.ends_with(".svc")
            || name.ends_with(".svc.cluster.local")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s18_only_our_hosts_loopback_and_configured_origins_pass() {
        let rules = Origins::new(["mcp.example.com"], ["https://app.example.com/"]);
        for good in [
            "http://mcp.example.com:8001",
            "https://MCP.example.com",
            "http://localhost:3000",
            "http://[::1]:1",
            "http://127.0.0.1",
            "https://app.example.com",
        ] {
            assert!(rules.allow(Some(good)), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://evil.com",
            "https://mcp.example.com.evil.com",
            "https://app.example.com:8443",
            "file://mcp.example.com",
            "ftp://localhost",
        ] {
            assert!(!rules.allow(Some(bad)), "{bad}");
        }
        assert!(rules.allow(None));
        assert!(Origins::new([], ["*"]).allow(Some("https://evil.com")));
    }

    #[test]
    fn s18_foreign_hosts_are_refused_by_the_listener() {
        let rules = Origins::new(["mcp.example.com"], []);
        assert!(
            rules.allow_host("mcp.example.com:8080")
                && rules.allow_host("mcp-gateway.team-a.svc.cluster.local:8080")
        );
        assert!(rules.allow_host("10.0.0.7:8080") && rules.allow_host("localhost"));
        assert!(!rules.allow_host("evil.com") && !rules.allow_host(""));
    }
}
