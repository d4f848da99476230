//! The hairpin over an HTTPS listener: names, CA file, CA bundle of the config (data-plane.md 9).

use crate::client::Client;
use crate::envoy::{Envoy, Plan};
use crate::fixture::Server;
use crate::world::{PUBLIC, World, config, entry, eventually, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for these names.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// A world whose listener speaks TLS with a certificate for `names`.
async fn world(server: &Server, authority: &Authority, names: &[&str], text: &str, flags: &[&str]) -> World {
    let port = free_port();
    let private = format!("--mcp-gateway-private-host=HTTPS://127.0.0.1:{port}");
    let flags: Vec<&str> = std::iter::once(private.as_str())
        .chain(flags.iter().copied())
        .collect();
    let mut world = World::broker_at(port, text, &flags).await;
    let (certificate, key) = authority.issue(names);
    let plan = Plan {
        listen: port,
        router: world.running.as_ref().unwrap().router.unwrap(),
        broker: world.broker,
        public_host: PUBLIC,
        hosts: &[("one.mcp.test", server.address)],
        body_limit: 5_242_880,
        tls: Some((&certificate, &key)),
    };
    world.envoy = Some(Envoy::start(&plan).await);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hairpin_verifies_the_servers_name_or_else_the_public_host_with_the_ca_file() {
    for names in [
        ["mcp.test", "one.mcp.test"].as_slice(),
        &["mcp.test", "*.mcp.test"],
        &["mcp.test"],
    ] {
        let (server, authority) = (Server::start("one", &["forecast"]).await, Authority::new());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        let flag = format!("--gateway-ca-cert={}", file.path().display());
        let world = world(
            &server,
            &authority,
            names,
            &config(&[entry(&server, "one_")]),
            &[&flag],
        )
        .await;
        let client = Client::tls(world.port, &authority.pem()).initialized().await;
        for _ in 0..2 {
            let reply = client.call("one_forecast").await;
            assert_eq!(
                (
                    reply.status,
                    reply.json()["result"]["content"][0]["text"].as_str()
                ),
                (200, Some("one")),
                "{names:?} {}",
                reply.text
            );
        }
        assert_eq!(server.calls("initialize").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_ca_the_hairpin_fails_closed_and_the_configs_bundle_repairs_it() {
    let (server, authority) = (Server::start("one", &["forecast"]).await, Authority::new());
    let text = config(&[entry(&server, "one_")]);
    let world = world(&server, &authority, &["mcp.test", "one.mcp.test"], &text, &[]).await;
    let client = Client::tls(world.port, &authority.pem()).initialized().await;
    let reply = client.call("one_forecast").await;
    assert_eq!(
        (reply.status, reply.error()),
        (502, (-32603, "MCP server unavailable".to_owned()))
    );
    assert!(server.calls("initialize").is_empty());
    let pem = authority.pem().replace('\n', "\n  ");
    world.write_config(&format!("{text}gatewayCACertPEM: |\n  {pem}\n"));
    eventually("a call", || async {
        (client.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_file_that_comes_later_is_read_again() {
    let (server, authority) = (Server::start("one", &["forecast"]).await, Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let flag = format!("--gateway-ca-cert={}", file.display());
    let world = world(
        &server,
        &authority,
        &["mcp.test", "one.mcp.test"],
        &config(&[entry(&server, "one_")]),
        &[&flag],
    )
    .await;
    let client = Client::tls(world.port, &authority.pem()).initialized().await;
    assert_eq!(client.call("one_forecast").await.status, 502);
    std::fs::write(&file, authority.pem()).unwrap();
    eventually("a call", || async {
        (client.call("one_forecast").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_than_that_of_our_hosts_is_refused() {
    let (server, authority) = (Server::start("one", &["forecast"]).await, Authority::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    let flag = format!("--gateway-ca-cert={}", file.path().display());
    let world = world(
        &server,
        &authority,
        &["evil.test"],
        &config(&[entry(&server, "one_")]),
        &[&flag],
    )
    .await;
    let keys = mcp_gateway_broker::auth::keys::Keys::new(
        mcp_gateway_broker::secret::Secret::new(crate::world::KEY),
        None,
    );
    let target = mcp_gateway_broker::options::PrivateHost {
        tls: true,
        host: "127.0.0.1".to_owned(),
        port: world.port,
    };
    let hairpin = mcp_gateway_broker::sessions::hairpin::Hairpin::new(
        target,
        PUBLIC.to_owned(),
        keys.into(),
        &[&authority.pem()],
    )
    .unwrap();
    let snapshot =
        mcp_gateway_broker::config::document::read(config(&[entry(&server, "one_")]).as_bytes()).unwrap();
    let request = mcp_gateway_broker::sessions::way::OwnRequest {
        server: &snapshot.servers[0],
        purpose: mcp_gateway_broker::auth::hairpin::Purpose::BackendInit,
        method: "initialize",
        payload: mcp_gateway_broker::sessions::way::Payload::Post("{}".to_owned()),
        headers: Default::default(),
    };
    assert!(hairpin.send(&request).await.is_err());
    assert!(server.calls("initialize").is_empty());
}
