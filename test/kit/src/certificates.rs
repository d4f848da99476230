//! Keys and certificates of the control plane: one CA, the API server's serving pair, the administrator's client pair and
//! the key that signs service-account tokens.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Why the certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A key or certificate could not be generated.
    #[error("generate {what}: {source}")]
    Generate {
        /// Which one.
        what: &'static str,
        /// The reason.
        source: rcgen::Error,
    },
    /// A file could not be written.
    #[error("write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
}

/// Writes `ca`, `apiserver`, `kubelet`, `admin` (each `.crt` and `.key`) and `sa.key`, `sa.pub` into `dir`.
pub(crate) fn write_all(dir: &Path, node_address: &str) -> Result<(), CertificateError> {
    let generate = |what| move |source| CertificateError::Generate { what, source };
    let ca_key = KeyPair::generate().map_err(generate("CA key"))?;
    let mut ca = named("mcpgw-kit", &[]);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_cert = ca.self_signed(&ca_key).map_err(generate("CA certificate"))?;
    write(dir, "ca.crt", &ca_cert.pem())?;
    write(dir, "ca.key", &ca_key.serialize_pem())?;
    let issuer = Issuer::from_params(&ca, &ca_key);
    for (name, params) in [
        ("apiserver", serving("kube-apiserver", node_address)?),
        ("kubelet", serving("kit-node", node_address)?),
        ("admin", client("kubernetes-admin", "system:masters")),
    ] {
        let key = KeyPair::generate().map_err(generate(name))?;
        let cert = params.signed_by(&key, &issuer).map_err(generate(name))?;
        write(dir, &format!("{name}.crt"), &cert.pem())?;
        write(dir, &format!("{name}.key"), &key.serialize_pem())?;
    }
    let signing = KeyPair::generate().map_err(generate("service-account key"))?;
    write(dir, "sa.key", &signing.serialize_pem())?;
    write(dir, "sa.pub", &signing.public_key_pem())
}

fn named(common_name: &str, organizations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for organization in organizations {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *organization);
    }
    params
}

fn serving(common_name: &'static str, node_address: &str) -> Result<CertificateParams, CertificateError> {
    let names = [
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        node_address,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned).to_vec()).map_err(|source| {
        CertificateError::Generate {
            what: "serving names",
            source,
        }
    })?;
    params.distinguished_name = named(common_name, &[]).distinguished_name;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn client(common_name: &str, organization: &str) -> CertificateParams {
    let mut params = named(common_name, &[organization]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), CertificateError> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|source| CertificateError::Write { path, source })
}
