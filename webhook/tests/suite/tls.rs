//! The serving pair: formats, changes, half-written files, the kubelet's link swap.

use std::{net::SocketAddr, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use mcp_gateway_webhook::tls::{Pair, RawPair, Reloader};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring, version};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, sync::watch, time::Instant};
use tokio_rustls::TlsConnector;

const HOST: &str = "webhook.mcp-system.svc";

pub(crate) struct TestPair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl TestPair {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOST.to_owned()]).unwrap();
        Self {
            certificate: cert.pem(),
            key: signing_key.serialize_pem(),
            der: cert.der().clone(),
        }
    }

    /// A pair that is valid from the beginning of `year`.
    fn since(year: i32) -> Self {
        let mut parameters = CertificateParams::new([HOST.to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(year, 1, 1);
        let signing_key = KeyPair::generate().unwrap();
        let cert = parameters.self_signed(&signing_key).unwrap();
        Self {
            certificate: cert.pem(),
            key: signing_key.serialize_pem(),
            der: cert.der().clone(),
        }
    }

    fn raw(&self) -> RawPair {
        RawPair {
            chain: self.certificate.clone().into_bytes(),
            key: self.sec1().into_bytes(),
        }
    }

    /// The key as SEC1, which is what OLM writes: the octet string inside PKCS#8.
    fn sec1(&self) -> String {
        let body: String = self
            .key
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let pkcs8 = BASE64_STANDARD.decode(body).unwrap();
        let start = pkcs8
            .windows(4)
            .position(|bytes| bytes == [0x04, 0x6d, 0x30, 0x6b])
            .unwrap()
            + 2;
        let lines = BASE64_STANDARD.encode(&pkcs8[start..start + 0x6d]);
        format!("-----BEGIN EC PRIVATE KEY-----\n{lines}\n-----END EC PRIVATE KEY-----\n")
    }

    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("tls.crt"), &self.certificate).unwrap();
        std::fs::write(dir.join("tls.key"), &self.key).unwrap();
    }
}

/// A server over `dir` as `run` makes it.
struct Server {
    address: SocketAddr,
    pair: Pair,
}

fn serve(dir: &Path) -> Server {
    serve_from(Reloader::new(Some(dir.to_owned())))
}

fn serve_from(reloader: Reloader) -> Server {
    let reloader = reloader.polling(Duration::from_millis(50));
    let (pair, mut config) = (reloader.pair(), reloader.config());
    tokio::spawn(reloader.run());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let config = config.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let router = Router::new().route("/", get(|| async { "ok" }));
        axum_server::from_tcp_rustls(listener, config)
            .unwrap()
            .serve(router.into_make_service())
            .await
            .unwrap();
    });
    Server { address, pair }
}

/// The certificate that the server shows to a client that trusts `pairs`.
async fn shown(
    server: &Server,
    pairs: &[&TestPair],
    version: &'static SupportedProtocolVersion,
) -> Option<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.der.clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream);
    let stream = tokio::time::timeout(Duration::from_secs(2), handshake)
        .await
        .ok()?
        .ok()?;
    let (_, connection) = stream.get_ref();
    connection
        .peer_certificates()
        .map(|chain| chain[0].clone().into_owned())
}

/// Waits until the server shows `pair` to clients that trust it alone.
async fn eventually_shows(server: &Server, pair: &TestPair) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while shown(server, &[pair], &version::TLS13).await.as_ref() != Some(&pair.der) {
        assert!(Instant::now() < deadline, "the pair was not served in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn o1_sec1_and_pkcs8_keys_are_served_over_tls_1_2_and_1_3() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (TestPair::new(), TestPair::new());
    first.write(dir.path());
    std::fs::write(dir.path().join("tls.key"), first.sec1()).unwrap();
    let server = serve(dir.path());
    eventually_shows(&server, &first).await;
    assert!(shown(&server, &[&first], &version::TLS12).await.is_some());
    second.write(dir.path());
    eventually_shows(&server, &second).await;
}

#[tokio::test]
async fn o1_files_that_are_absent_at_the_start_are_served_when_they_appear() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("serving-certs");
    let server = serve(&mount);
    assert!(!server.pair.is_served());
    let pair = TestPair::new();
    std::fs::create_dir(&mount).unwrap();
    pair.write(&mount);
    eventually_shows(&server, &pair).await;
    assert!(server.pair.is_served());
}

#[tokio::test]
async fn o1_olms_other_file_names_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let pair = TestPair::new();
    std::fs::write(dir.path().join("apiserver.crt"), &pair.certificate).unwrap();
    std::fs::write(dir.path().join("apiserver.key"), pair.sec1()).unwrap();
    let server = serve(dir.path());
    eventually_shows(&server, &pair).await;
}

#[tokio::test]
async fn o1_a_mismatched_or_half_written_pair_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) = (TestPair::new(), TestPair::new(), TestPair::new());
    first.write(dir.path());
    let server = serve(dir.path());
    eventually_shows(&server, &first).await;
    let trust = [&first, &second, &third];
    let key = |text: &str| std::fs::write(dir.path().join("tls.key"), text).unwrap();
    let certificate = |text: &str| std::fs::write(dir.path().join("tls.crt"), text).unwrap();
    // Each would be picked up within a few polls (50 ms) if it were taken.
    let steps: [(&str, &str); 4] = [
        (&second.certificate, &first.key),
        (second.certificate.get(..100).unwrap(), &second.key),
        ("", ""),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &second.key,
        ),
    ];
    for (one, other) in steps {
        certificate(one);
        key(other);
        let look_again = Instant::now() + Duration::from_millis(300);
        while Instant::now() < look_again {
            assert_eq!(
                shown(&server, &trust, &version::TLS13).await.as_ref(),
                Some(&first.der)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(server.pair.is_served(), "the old pair still counts");
    }
    third.write(dir.path());
    eventually_shows(&server, &third).await;
}

#[tokio::test]
async fn o1_o3_the_kubelets_link_swap_is_seen_without_a_dropped_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (TestPair::new(), TestPair::new());
    let publish = |pair: &TestPair, name: &str| {
        let version = dir.path().join(name);
        std::fs::create_dir(&version).unwrap();
        pair.write(&version);
        symlink(name, dir.path().join("..data_tmp")).unwrap();
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    publish(&first, "..2026_01_01");
    symlink("..data/tls.crt", dir.path().join("tls.crt")).unwrap();
    symlink("..data/tls.key", dir.path().join("tls.key")).unwrap();
    let server = serve(dir.path());
    eventually_shows(&server, &first).await;
    publish(&second, "..2026_01_02");
    // Whoever trusts both is served at every moment of the change.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let certificate = shown(&server, &[&first, &second], &version::TLS13).await;
        assert!(certificate.is_some(), "a connection was refused");
        if certificate.as_ref() == Some(&second.der) {
            break;
        }
        assert!(Instant::now() < deadline, "the swap was not seen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn o3_of_files_and_secret_the_newer_valid_pair_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (old, rotated, newest) = (
        TestPair::since(2024),
        TestPair::since(2025),
        TestPair::since(2026),
    );
    old.write(dir.path());
    let (secret, pairs) = watch::channel(None);
    let server = serve_from(Reloader::new(Some(dir.path().to_owned())).reading(pairs));
    eventually_shows(&server, &old).await;
    // Rotated: the Secret has it before the kubelet.
    secret.send_replace(Some(rotated.raw()));
    eventually_shows(&server, &rotated).await;
    // What the Secret holds is unusable, or older than the files.
    secret.send_replace(Some(RawPair {
        key: newest.raw().key,
        ..rotated.raw()
    }));
    newest.write(dir.path());
    eventually_shows(&server, &newest).await;
    secret.send_replace(Some(rotated.raw()));
    std::fs::write(dir.path().join("tls.key"), "").unwrap();
    eventually_shows(&server, &rotated).await;
}
