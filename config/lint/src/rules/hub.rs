//! What OperatorHub and the community pipeline demand; their warnings are errors here (olm.md 3.1, 3.3).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use url::Url;

use crate::{bundle::Bundle, finding::Report};

const CAPABILITIES: [&str; 5] = [
    "Basic Install",
    "Seamless Upgrades",
    "Full Lifecycle",
    "Deep Insights",
    "Auto Pilot",
];
const CATEGORIES: [&str; 15] = [
    "AI/Machine Learning",
    "Application Runtime",
    "Big Data",
    "Cloud Provider",
    "Developer Tools",
    "Database",
    "Integration & Delivery",
    "Logging & Tracing",
    "Modernization & Migration",
    "Monitoring",
    "Networking",
    "OpenShift Optional",
    "Security",
    "Storage",
    "Streaming & Messaging",
];
const IMAGES: [&str; 4] = ["image/gif", "image/jpeg", "image/png", "image/svg+xml"];
const FEATURES: [&str; 7] = [
    "disconnected",
    "fips-compliant",
    "proxy-aware",
    "tls-profiles",
    "token-auth-aws",
    "token-auth-azure",
    "token-auth-gcp",
];

pub(crate) fn check(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let length = |pointer: &str| bundle.text(pointer).chars().count();
    report.require(
        (3..=50).contains(&length("/spec/displayName")),
        "hub-display-name",
        (file, "/spec/displayName"),
        "3 to 50 characters",
    );
    report.require(
        length("/spec/provider/name") >= 3,
        "hub-provider",
        (file, "/spec/provider/name"),
        "at least 3 characters",
    );
    report.require(
        bundle.list("/spec/keywords").count() > 0,
        "hub-keywords",
        (file, "/spec/keywords"),
        "at least one",
    );
    descriptions(bundle, report);
    icon(bundle, report);
    people(bundle, report);
    annotations(bundle, report);
    features(bundle, report);
}

fn descriptions(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let text = bundle.text("/spec/description");
    report.require(
        text.chars().count() >= 20,
        "hub-description",
        (file, "/spec/description"),
        "at least 20 characters",
    );
    for entry in bundle.owned() {
        let filled = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        };
        let kind = entry["kind"].as_str().unwrap_or_default();
        report.require(
            filled("description") && filled("displayName"),
            "hub-description",
            (file, kind),
            "displayName and description",
        );
    }
    let channels = bundle
        .annotations
        .get("operators.operatorframework.io.bundle.channels.v1")
        .map_or("", String::as_str);
    if channels.contains("preview") {
        let said = text.contains("Technology Preview");
        report.require(
            said,
            "technology-preview",
            (file, "/spec/description"),
            "say Technology Preview",
        );
    }
}

fn icon(bundle: &Bundle, report: &mut Report) {
    let icons: Vec<&Value> = bundle.list("/spec/icon").collect();
    let good = |icon: &&Value| {
        let text = |name: &str| icon.get(name).and_then(Value::as_str).unwrap_or_default();
        IMAGES.contains(&text("mediatype"))
            && STANDARD
                .decode(text("base64data"))
                .is_ok_and(|bytes| !bytes.is_empty())
    };
    let one = icons.len() == 1 && icons.iter().all(good);
    report.require(
        one,
        "hub-icon",
        (&bundle.csv_file, "/spec/icon"),
        "one icon, in base64, gif, jpeg, png or svg+xml",
    );
}

fn people(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let filled = |entry: &Value, name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let maintainers: Vec<&Value> = bundle.list("/spec/maintainers").collect();
    let reachable = |entry: &&Value| !filled(entry, "name").is_empty() && email(&filled(entry, "email"));
    let good = !maintainers.is_empty() && maintainers.iter().all(reachable);
    report.require(
        good,
        "hub-maintainers",
        (file, "/spec/maintainers"),
        "each with a name and a valid address",
    );
    let links: Vec<&Value> = bundle.list("/spec/links").collect();
    let linked = |entry: &&Value| !filled(entry, "name").is_empty() && web(&filled(entry, "url"));
    let good = !links.is_empty() && links.iter().all(linked);
    report.require(
        good,
        "hub-links",
        (file, "/spec/links"),
        "each with a name and a valid URL",
    );
}

fn annotations(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    let capability = bundle.annotation("capabilities");
    report.require(
        CAPABILITIES.contains(&capability),
        "hub-annotations",
        (file, "capabilities"),
        format!("one of {CAPABILITIES:?}"),
    );
    let categories = bundle.annotation("categories");
    let known = categories
        .split(',')
        .all(|category| CATEGORIES.contains(&category.trim()));
    report.require(
        known,
        "hub-annotations",
        (file, "categories"),
        format!("some of {CATEGORIES:?}"),
    );
    report.require(
        web(bundle.annotation("repository")),
        "hub-annotations",
        (file, "repository"),
        "a URL",
    );
    report.require(
        bundle.annotation("description").chars().count() >= 10,
        "hub-annotations",
        (file, "description"),
        "at least 10 characters",
    );
    for name in ["containerImage", "support"] {
        report.require(
            !bundle.annotation(name).is_empty(),
            "hub-annotations",
            (file, name),
            "must be set",
        );
    }
    let created = bundle.annotation("createdAt");
    let time = mcp_gateway_images::contents::epoch(created).is_some();
    report.require(
        time,
        "hub-annotations",
        (file, "createdAt"),
        "a time like 2026-01-31T00:00:00Z",
    );
}

fn features(bundle: &Bundle, report: &mut Report) {
    let file = bundle.csv_file.as_str();
    for feature in FEATURES {
        let name = format!("features.operators.openshift.io/{feature}");
        let good = ["true", "false"].contains(&bundle.annotation(&name));
        report.require(good, "features", (file, &name), "\"true\" or \"false\"");
    }
    let labels = bundle.csv.pointer("/metadata/labels").and_then(Value::as_object);
    let supported = |prefix: &str| {
        labels
            .into_iter()
            .flatten()
            .any(|(name, value)| name.starts_with(prefix) && value == "supported")
    };
    let good = supported("operatorframework.io/os.linux") && supported("operatorframework.io/arch.");
    report.require(
        good,
        "platforms",
        (file, "/metadata/labels"),
        "operatorframework.io/os.linux and at least one arch.",
    );
}

/// One @, something before it, a domain with a dot behind it.
fn email(address: &str) -> bool {
    address.split_once('@').is_some_and(|(user, domain)| {
        !user.is_empty()
            && !user.contains(char::is_whitespace)
            && domain.contains('.')
            && !domain.contains(['@', ' '])
    })
}

fn web(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.host().is_some())
}
