//! Host names as they stand in `Host`, `:authority`, flags and URLs.

use std::net::IpAddr;

/// The host of `host[:port]`; IPv6 keeps its brackets off.
pub fn without_port(text: &str) -> &str {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match text.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => text,
    }
}

/// Lower case, without port and trailing dot: the form in which hosts are compared.
pub fn comparable(text: &str) -> String {
    without_port(text.trim())
        .trim_end_matches('.')
        .to_ascii_lowercase()
}

/// True for `localhost`, its subdomains and loopback addresses; `host` is in comparable form.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// True for any IP literal; `host` is in comparable form.
pub fn is_ip_literal(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

/// Whether `pattern` (a host, or `*.` and a suffix) covers `host` with exactly one label for the star.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == host,
        Some(suffix) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut_and_addresses_are_not() {
        assert_eq!(without_port("a.example:80"), "a.example");
        assert_eq!(without_port("[::1]:80"), "::1");
        assert_eq!(without_port("::1"), "::1");
        assert_eq!(comparable("A.Example.:80"), "a.example");
    }

    #[test]
    fn a_star_is_one_label() {
        assert!(covers("*.mcp.local", "a.mcp.local"));
        assert!(!covers("*.mcp.local", "a.b.mcp.local"));
        assert!(!covers("*.mcp.local", "mcp.local"));
        assert!(!covers("*.mcp.local", ".mcp.local"));
    }
}
