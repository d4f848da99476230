//! What is in the image of a program: the static binary, certificate authorities, a user, licences. No shell, no
//! package manager, no libraries.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    REGISTRY, USER,
    image::{Image, Settings},
    layer::{Entry, Layer, Tree},
};

/// One program that is shipped as an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the image.
    pub image: &'static str,
    /// Cargo package, and name of the binary that was built.
    pub package: &'static str,
    /// Where it lies in the image; also the entrypoint.
    pub path: &'static str,
    /// Other paths under which it is started.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub summary: &'static str,
}

/// All of them.
pub const PROGRAMS: [Program; 4] = [
    Program {
        image: "operator",
        package: "mcp-gateway-operator",
        path: "mcp-gateway-operator",
        aliases: &[],
        summary: "Operator of MCP gateways",
    },
    Program {
        image: "webhook",
        package: "mcp-gateway-webhook",
        path: "mcp-gateway-webhook",
        aliases: &[],
        summary: "Admission webhooks of MCP gateways",
    },
    Program {
        image: "broker",
        package: "mcp-gateway-broker",
        // The paths that Deployments of the guides start.
        path: "mcp_gateway",
        aliases: &["mcp-broker-router", "mcp-gateway-broker"],
        summary: "Broker and router of an MCP gateway",
    },
    Program {
        image: "cli",
        package: "mcpgw",
        path: "mcpgw",
        aliases: &[],
        summary: "Command line of MCP gateways",
    },
];

/// What a release gives to all its images.
#[derive(Clone, Debug)]
pub struct Release<'a> {
    /// Version, without `v`.
    pub version: &'a str,
    /// Time of every file, seconds since 1970.
    pub epoch: u64,
    /// Text of the project's licence.
    pub license: &'a str,
    /// Licences of the dependencies, one line each.
    pub notices: &'a str,
}

impl Program {
    /// The image for `architecture` (Go's name) around the binary.
    ///
    /// # Errors
    /// When a path is too long for the archive.
    pub fn image(
        &self,
        architecture: &str,
        binary: Vec<u8>,
        release: &Release<'_>,
    ) -> std::io::Result<Image> {
        let mut program = Tree::from([(
            self.path.to_owned(),
            Entry::File {
                bytes: binary,
                executable: true,
            },
        )]);
        for alias in self.aliases {
            program.insert(
                (*alias).to_owned(),
                Entry::Link {
                    target: self.path.to_owned(),
                },
            );
        }
        let layers = [
            Layer::new(&base(release), release.epoch)?,
            Layer::new(&program, release.epoch)?,
        ];
        Ok(Image::new(architecture, &self.settings(release), &layers))
    }

    fn settings(&self, release: &Release<'_>) -> Settings {
        let title = format!("mcp-gateway-{}", self.image);
        let source = "https://github.com/mcp-gateway-operator/mcp-gateway-operator";
        let labels = [
            ("name", title.as_str()),
            ("vendor", "MCP Gateway Operator"),
            ("maintainer", "MCP Gateway Operator maintainers"),
            ("version", release.version),
            ("release", "1"),
            ("summary", self.summary),
            ("description", self.summary),
            ("org.opencontainers.image.title", title.as_str()),
            ("org.opencontainers.image.version", release.version),
            ("org.opencontainers.image.licenses", "Apache-2.0"),
            ("org.opencontainers.image.source", source),
        ];
        Settings {
            entrypoint: vec![format!("/{}", self.path)],
            user: USER.to_owned(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
            created: crate::contents::rfc3339(release.epoch),
        }
    }

    /// `registry/name`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{REGISTRY}/{}", self.image)
    }
}

/// The layer that all programs share.
fn base(release: &Release<'_>) -> Tree {
    Tree::from([
        (
            "etc/group".to_owned(),
            Entry::text("root:x:0:\nnonroot:x:65532:\n"),
        ),
        ("etc/nsswitch.conf".to_owned(), Entry::text("hosts: files dns\n")),
        (
            "etc/passwd".to_owned(),
            Entry::text("root:x:0:0::/:/none\nnonroot:x:65532:65532::/:/none\n"),
        ),
        (
            "etc/ssl/certs/ca-certificates.crt".to_owned(),
            Entry::text(&authorities()),
        ),
        ("licenses/LICENSE".to_owned(), Entry::text(release.license)),
        ("licenses/THIRD-PARTY".to_owned(), Entry::text(release.notices)),
        ("tmp".to_owned(), Entry::Directory),
    ])
}

/// Mozilla's certificate authorities as PEM, those of the locked crate rather than of the machine that builds.
fn authorities() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        for (index, character) in text.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const RELEASE: Release<'static> = Release {
        version: "1.2.3",
        epoch: 7,
        license: "L",
        notices: "N",
    };

    #[test]
    fn two_builds_of_the_same_binary_give_one_digest_and_another_binary_another() {
        let [operator, ..] = &PROGRAMS;
        let digest = |binary: &[u8]| {
            operator
                .image("amd64", binary.to_vec(), &RELEASE)
                .expect("packs")
                .manifest
                .digest()
        };
        assert_eq!(digest(b"elf"), digest(b"elf"));
        assert_ne!(digest(b"elf"), digest(b"elg"));
    }

    #[test]
    fn every_program_runs_as_a_numbered_user_that_is_not_root_and_has_the_labels_of_certification() {
        for program in PROGRAMS {
            let image = program.image("amd64", b"elf".to_vec(), &RELEASE).expect("packs");
            let config: Value =
                serde_json::from_slice(&image.blobs.first().expect("a configuration").bytes).expect("JSON");
            assert_eq!(config["config"]["User"], "65532:65532");
            assert_eq!(config["config"]["Entrypoint"][0], format!("/{}", program.path));
            for label in [
                "name",
                "vendor",
                "version",
                "release",
                "summary",
                "description",
                "maintainer",
            ] {
                assert!(
                    config["config"]["Labels"][label]
                        .as_str()
                        .is_some_and(|text| !text.is_empty()),
                    "{label}"
                );
            }
            assert!(image.blobs.len() - 1 <= 40, "layers");
        }
    }

    #[test]
    fn the_broker_can_be_started_by_both_paths_of_the_guides() {
        let broker = PROGRAMS
            .iter()
            .find(|program| program.image == "broker")
            .expect("a broker");
        assert_eq!(broker.path, "mcp_gateway");
        assert!(broker.aliases.contains(&"mcp-broker-router"));
    }

    #[test]
    fn authorities_are_pem_of_short_lines() {
        let pem = authorities();
        assert!(pem.lines().count() > 1000 && pem.lines().all(|line| line.len() <= 64));
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
    }
}
