//! Which addresses a server's URL may lead to (data-plane.md 6.4): checked after every resolution, so that a name
//! cannot be pointed at the gateway's own machine or at cloud metadata.

use crate::config::model::ServerConfig;
use crate::protocol::host;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{BoxError, Service};

const RESOLUTION: Duration = Duration::from_secs(5);

/// The rule of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Envoy mode: nothing local.
    Strict,
    /// Standalone: local addresses only when the URL itself names the IP or `localhost`.
    Named,
    /// Everything: tests with servers on loopback. No flag leads here.
    Unchecked,
}

/// True for addresses that no server may have.
fn is_local(ip: IpAddr) -> bool {
    const METADATA: [Ipv4Addr; 2] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(100, 100, 100, 200),
    ];
    let ip = ip.to_canonical();
    match ip {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || METADATA.contains(&v4)
        }
        IpAddr::V6(v6) => {
            let metadata = v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || metadata
        }
    }
}

impl AddressPolicy {
    /// Whether this address may be used for a URL whose host is `name`.
    pub fn allows(self, name: &str, ip: IpAddr) -> bool {
        match self {
            Self::Unchecked => true,
            Self::Strict => !is_local(ip),
            Self::Named => !is_local(ip) || name == "localhost" || host::is_ip_literal(name),
        }
    }

    /// Refuses URLs whose host is an IP literal that is not allowed: those are never resolved.
    /// The gateway's own end of a bridge is no foreign address.
    pub fn allows_literal(self, server: &ServerConfig) -> bool {
        if server.bridged {
            return true;
        }
        match server.url.host() {
            Some(url::Host::Ipv4(ip)) => self.allows(&ip.to_string(), ip.into()),
            Some(url::Host::Ipv6(ip)) => self.allows(&ip.to_string(), ip.into()),
            _ => true,
        }
    }
}

/// Resolves names of servers under the policy.
#[derive(Clone, Copy)]
pub struct CheckedResolver(pub AddressPolicy);

impl CheckedResolver {
    async fn addresses(self, name: String) -> Result<std::vec::IntoIter<SocketAddr>, BoxError> {
        let found = tokio::time::timeout(RESOLUTION, tokio::net::lookup_host((name.as_str(), 0))).await??;
        let allowed: Vec<SocketAddr> = found
            .filter(|address| self.0.allows(&name, address.ip()))
            .collect();
        if allowed.is_empty() {
            return Err("address not allowed".into());
        }
        Ok(allowed.into_iter())
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.addresses(name.as_str().to_owned());
        Box::pin(async { Ok(Box::new(addresses.await?) as Addrs) })
    }
}

impl Service<dns::Name> for CheckedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        Box::pin(self.addresses(name.as_str().to_owned()))
    }
}

/// Resolves every name to the addresses of one host: the hairpin asks the gateway in the name of a server.
pub struct FixedResolver {
    /// The private host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Resolve for FixedResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let (host, port) = (self.host.clone(), self.port);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::time::timeout(RESOLUTION, tokio::net::lookup_host((host.as_str(), port)))
                    .await??
                    .collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_and_metadata_addresses_are_refused_in_every_spelling() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "169.254.1.1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "100.100.100.200",
            "fd00:ec2::254",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert!(!AddressPolicy::Strict.allows("x", ip), "{text}");
            assert!(!AddressPolicy::Named.allows("evil.example", ip), "{text}");
        }
        assert!(AddressPolicy::Strict.allows("x", "10.0.0.1".parse().unwrap()));
        assert!(AddressPolicy::Named.allows("localhost", "127.0.0.1".parse().unwrap()));
        assert!(AddressPolicy::Named.allows("127.0.0.1", "127.0.0.1".parse().unwrap()));
    }
}
