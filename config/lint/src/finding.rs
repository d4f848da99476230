//! What the linter says, and the list of its rules.

use std::fmt;

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Name of the rule, one of [`RULES`].
    pub rule: &'static str,
    /// File, relative to the bundle or the repository.
    pub file: String,
    /// Where in the file, as a JSON pointer or in words; may be empty.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            file,
            path,
            message,
        } = self;
        write!(
            formatter,
            "{file}{}{path}: {message} [{rule}]",
            if path.is_empty() { "" } else { " " }
        )
    }
}

/// Collects findings about one file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Notes a violation.
    pub(crate) fn add(&mut self, rule: &'static str, place: (&str, &str), message: impl Into<String>) {
        debug_assert!(
            RULES.iter().any(|(name, _)| *name == rule),
            "rule {rule} is not listed"
        );
        let (file, path) = (place.0.to_owned(), place.1.to_owned());
        self.findings.push(Finding {
            rule,
            file,
            path,
            message: message.into(),
        });
    }

    /// Notes a violation unless `good`.
    pub(crate) fn require(
        &mut self,
        good: bool,
        rule: &'static str,
        place: (&str, &str),
        message: impl Into<String>,
    ) {
        if !good {
            self.add(rule, place, message);
        }
    }

    /// All of them, sorted, each once.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.findings.sort();
        self.findings.dedup();
        self.findings
    }
}

/// Every rule, with what it demands.
pub const RULES: &[(&str, &str)] = &[
    (
        "layout",
        "manifests/ with exactly one CSV, metadata/annotations.yaml, nothing beside manifests, metadata and tests",
    ),
    ("one-document", "each file is one YAML document"),
    ("file-name", "names of manifests are keys of a ConfigMap"),
    (
        "bundle-annotations",
        "the six bundle annotations, package a DNS label, channels not empty",
    ),
    (
        "image-labels",
        "the labels of the bundle image are its annotations",
    ),
    ("size", "manifests take at most 85 % of 1 MiB when gzipped"),
    ("kinds", "only kinds that OLM takes, and no NetworkPolicy"),
    (
        "csv-name",
        "the CSV is called <package>.v<version>, a semantic version other than 0.0.0, at most 63 characters",
    ),
    (
        "csv-edges",
        "replaces, skips and skipRange name other versions of the package",
    ),
    (
        "install-modes",
        "OwnNamespace, SingleNamespace and AllNamespaces, not MultiNamespace",
    ),
    ("min-kube-version", "minKubeVersion is a version"),
    ("alm-examples", "one example of each owned kind and of no other"),
    (
        "annotation-case",
        "annotations that OLM reads are spelt as it reads them",
    ),
    (
        "service-account",
        "no ServiceAccount manifest with the name of one of a Deployment",
    ),
    ("deployments", "at least one Deployment, names of DNS labels"),
    (
        "related-images",
        "relatedImages are exactly the images in use, each once and by digest",
    ),
    ("images-built", "digests of images that exist"),
    ("crd-unique", "each CRD once"),
    ("crd-owned", "owned kinds are the shipped CRDs, in their versions"),
    ("crd-structural", "schemas are structural"),
    ("crd-stored", "exactly one stored version"),
    (
        "crd-conversion",
        "conversion strategy None, preserveUnknownFields false",
    ),
    (
        "webhook-name",
        "generateName is unique, a domain name of at least three segments",
    ),
    (
        "webhook-deployment",
        "deploymentName is a Deployment of the CSV, without dots",
    ),
    ("webhook-ports", "one pair of ports"),
    (
        "webhook-rules",
        "own kinds only: no wildcard, no subresource, no DELETE",
    ),
    (
        "webhook-policy",
        "failurePolicy, sideEffects, matchPolicy, timeout and review version as designed",
    ),
    ("webhook-conversion", "no conversion webhook"),
    ("examples-spec", "examples have a spec"),
    (
        "crd-validation",
        "every version of a CRD has a schema with properties",
    ),
    ("crd-resources", "every owned kind lists resources"),
    (
        "spec-descriptors",
        "a descriptor for each spec field of the example",
    ),
    ("status-descriptors", "at least one status descriptor"),
    ("hub-display-name", "3 to 50 characters"),
    (
        "hub-description",
        "at least 20 characters, and one for each owned kind",
    ),
    ("hub-icon", "one icon with data of a supported type"),
    ("hub-maintainers", "name and address of each maintainer"),
    ("hub-provider", "at least 3 characters"),
    ("hub-links", "name and address of each link"),
    (
        "hub-annotations",
        "capabilities, categories, containerImage, createdAt, repository, support, description",
    ),
    ("hub-keywords", "at least one keyword"),
    (
        "features",
        "the seven feature annotations, true or false in lower case",
    ),
    (
        "platforms",
        "labels of operating system and of at least one architecture",
    ),
    ("no-latest", "nothing says latest"),
    (
        "technology-preview",
        "the description says Technology Preview while the channel is preview",
    ),
    (
        "security",
        "pods run as non-root with a read-only root, no capabilities and the runtime's seccomp profile",
    ),
    ("requests", "requests for CPU and memory in every container"),
    ("probes", "liveness and readiness probes in every container"),
    (
        "disruption-budget",
        "a budget that neither blocks nor permits every eviction, for pods of a Deployment",
    ),
    (
        "permissions",
        "no wildcard, no escalation, no writing of CRDs, no default security context constraints",
    ),
    (
        "named-secrets",
        "Secrets are changed by name only, also when OLM widens a Role to the cluster",
    ),
    (
        "selectors",
        "selectors differ from each other and are those of every release",
    ),
    (
        "same-permissions",
        "permissions of the CSV are those of config/rbac",
    ),
    ("created-at", "createdAt is the release's constant"),
    ("catalog-package", "one package with its default channel"),
    (
        "catalog-entries",
        "every entry has a bundle and every bundle an entry",
    ),
    ("catalog-versions", "versions are unique"),
    ("catalog-head", "each channel has exactly one head"),
    (
        "catalog-chain",
        "from the head every entry is reached or skipped, without a circle",
    ),
    (
        "catalog-skip-range",
        "skipRange is a range that does not hold its own version",
    ),
    (
        "catalog-image",
        "each bundle has an image by digest, and the image is that of its files",
    ),
    (
        "catalog-properties",
        "one olm.package, an olm.gvk for each kind, csv metadata, no inlined objects",
    ),
    (
        "catalog-deprecations",
        "deprecations have a message and name what exists",
    ),
    ("catalog-edges", "edges are those of the CSVs"),
    ("catalog-released", "every released version is in the catalog"),
    ("released-bytes", "released bundles never change"),
    (
        "compatibility",
        "CRDs accept everything that a released CRD accepted",
    ),
];
