//! One entry for each rule: the smallest change that breaks it. Those of bundle and listing are in files of their own.

use std::collections::BTreeSet;

use mcp_gateway_lint::{RULES, repository::Repository};
use serde_json::{Value, json};

use crate::{
    changes_bundle::OF_BUNDLE,
    changes_listing::OF_LISTING,
    fixture::{CSV, EXTENSIONS, blob, blobs, csv, file, good, next},
};

/// A change to a repository.
pub(crate) type Break = fn(&mut Repository);

pub(crate) const CONTAINER: &str = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";

pub(crate) fn at<'a>(csv: &'a mut Value, pointer: &str) -> &'a mut Value {
    csv.pointer_mut(pointer).unwrap()
}

pub(crate) fn drop(value: &mut Value, member: &str) {
    value.as_object_mut().unwrap().remove(member).unwrap();
}

pub(crate) fn annotation(repository: &mut Repository, name: &str, value: &str) {
    csv(repository, |csv| {
        csv["metadata"]["annotations"][name] = json!(value)
    });
}

/// Broken in a repository without history: what is ours, and the catalog.
const BREAKS: &[(&str, Break)] = &[
    ("security", |r| {
        csv(r, |c| {
            at(c, CONTAINER)["securityContext"]["readOnlyRootFilesystem"] = json!(false)
        })
    }),
    ("security", |r| {
        csv(r, |c| {
            drop(
                at(c, "/spec/install/spec/deployments/1/spec/template/spec"),
                "securityContext",
            )
        })
    }),
    ("requests", |r| csv(r, |c| drop(at(c, CONTAINER), "resources"))),
    ("probes", |r| csv(r, |c| drop(at(c, CONTAINER), "livenessProbe"))),
    ("disruption-budget", |r| {
        file(r, "manifests/mcp-gateway-webhook.poddisruptionbudget.yaml", |f| {
            f["spec"]["minAvailable"] = json!("100%")
        })
    }),
    ("disruption-budget", |r| {
        file(r, "manifests/mcp-gateway-webhook.poddisruptionbudget.yaml", |f| {
            f["spec"]["selector"]["matchLabels"] = json!({"a": "b"})
        })
    }),
    ("permissions", |r| {
        csv(r, |c| {
            at(c, "/spec/install/spec/clusterPermissions/0/rules/0")["verbs"] = json!(["*"])
        })
    }),
    ("permissions", |r| {
        csv(
            r,
            |c| *at(c, "/spec/install/spec/clusterPermissions/0/rules/0") = json!({"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["patch"]}),
        )
    }),
    ("permissions", |r| {
        csv(
            r,
            |c| *at(c, "/spec/install/spec/clusterPermissions/0/rules/0") = json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}),
        )
    }),
    ("selectors", |r| {
        csv(r, |c| {
            let one = at(c, "/spec/install/spec/deployments/0/spec/selector").clone();
            *at(c, "/spec/install/spec/deployments/1/spec/selector") = one;
        })
    }),
    ("same-permissions", |r| {
        csv(r, |c| {
            at(c, "/spec/install/spec/clusterPermissions/1/rules")
                .as_array_mut()
                .unwrap()
                .truncate(1)
        })
    }),
    ("created-at", |r| r.epoch += 1),
    ("catalog-package", |r| {
        blob(r, "olm.package", |b| b["defaultChannel"] = json!("stable"))
    }),
    ("catalog-package", |r| {
        blob(r, "olm.bundle", |b| b["package"] = json!("other"))
    }),
    ("catalog-entries", |r| {
        blob(r, "olm.channel", |b| b["entries"].as_array_mut().unwrap().clear())
    }),
    ("catalog-versions", |r| {
        blobs(r, |all| {
            let mut last = all.last().unwrap().clone();
            last["name"] = json!("mcp-gateway.v9.9.9");
            all.push(last);
        })
    }),
    ("catalog-image", |r| {
        blob(r, "olm.bundle", |b| b["image"] = json!(""))
    }),
    ("catalog-image", |r| {
        file(r, EXTENSIONS, |f| f["metadata"]["labels"] = json!({"a": "b"}));
    }),
    ("catalog-properties", |r| {
        blob(r, "olm.bundle", |b| {
            b["properties"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "olm.bundle.object", "value": {"data": ""}}))
        })
    }),
    ("catalog-properties", |r| {
        blob(r, "olm.bundle", |b| {
            b["properties"]
                .as_array_mut()
                .unwrap()
                .retain(|p| p["type"] != "olm.csv.metadata")
        })
    }),
    ("catalog-properties", |r| {
        blob(r, "olm.bundle", |b| {
            b["properties"].as_array_mut().unwrap().remove(0);
        })
    }),
    ("catalog-deprecations", |r| {
        blobs(r, |all| {
            all.push(json!({"schema": "olm.deprecations", "package": "mcp-gateway", "entries": [{"reference": {"schema": "olm.channel", "name": "stable"}, "message": "m"}]}))
        })
    }),
    ("catalog-deprecations", |r| {
        blobs(r, |all| {
            all.push(json!({"schema": "olm.deprecations", "package": "mcp-gateway", "entries": [{"reference": {"schema": "olm.package"}, "message": ""}]}))
        })
    }),
];

/// Broken one release later.
const LATER: &[(&str, Break)] = &[
    ("selectors", |r| {
        csv(r, |c| {
            at(c, "/spec/install/spec/deployments/0/spec/selector")["matchLabels"]["app.kubernetes.io/name"] =
                json!("renamed");
        });
    }),
    ("catalog-head", |r| {
        blob(r, "olm.channel", |b| drop(&mut b["entries"][1], "replaces"))
    }),
    ("catalog-chain", |r| {
        blob(r, "olm.channel", |b| {
            b["entries"][0]["replaces"] = json!("mcp-gateway.v0.1.0")
        })
    }),
    ("catalog-chain", |r| {
        blob(r, "olm.channel", |b| {
            let circle = [
                ("mcp-gateway.v0.0.1", "mcp-gateway.v0.0.2"),
                ("mcp-gateway.v0.0.2", "mcp-gateway.v0.0.1"),
            ];
            let entries = circle.map(|(name, replaces)| json!({"name": name, "replaces": replaces}));
            b["entries"].as_array_mut().unwrap().extend(entries);
        });
    }),
    ("catalog-skip-range", |r| {
        blob(r, "olm.channel", |b| {
            b["entries"][1]["skipRange"] = json!(">=0.1.0 <0.3.0")
        })
    }),
    ("catalog-edges", |r| {
        blob(r, "olm.channel", |b| {
            b["entries"][1]["skipRange"] = json!(">=0.0.5 <0.2.0")
        })
    }),
    ("catalog-released", |r| {
        blobs(r, |all| all.retain(|b| b["name"] != "mcp-gateway.v0.1.0"))
    }),
    ("released-bytes", |r| {
        r.released
            .values_mut()
            .next()
            .unwrap()
            .get_mut(CSV)
            .unwrap()
            .push_str("# later\n");
    }),
    ("released-bytes", |r| {
        r.released.values_mut().next().unwrap().remove(EXTENSIONS);
    }),
    ("released-bytes", |r| {
        csv(r, |c| {
            c["spec"]["version"] = json!("0.1.0");
        });
    }),
    ("compatibility", |r| {
        file(r, EXTENSIONS, |f| {
            drop(
                at(
                    f,
                    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties",
                ),
                "publicHost",
            )
        })
    }),
];

fn rules_of(repository: &Repository) -> BTreeSet<&'static str> {
    repository
        .lint()
        .into_iter()
        .map(|finding| finding.rule)
        .collect()
}

fn texts(repository: &Repository) -> Vec<String> {
    repository.lint().iter().map(ToString::to_string).collect()
}

#[test]
fn this_repository_breaks_no_rule_and_would_not_after_the_next_release() {
    assert_eq!(texts(&good()), Vec::<String>::new());
    assert_eq!(texts(&next()), Vec::<String>::new());
}

#[test]
fn each_change_breaks_the_rule_that_it_is_for() {
    let without_history = good as fn() -> Repository;
    for (base, changes) in [
        (without_history, OF_BUNDLE),
        (without_history, OF_LISTING),
        (without_history, BREAKS),
        (next, LATER),
    ] {
        let base = base();
        for (index, (rule, change)) in changes.iter().enumerate() {
            let mut repository = base.clone();
            change(&mut repository);
            let broken = rules_of(&repository);
            assert!(
                broken.contains(rule),
                "change {index} for {rule} broke only {broken:?}"
            );
        }
    }
}

#[test]
fn every_rule_has_a_change_that_breaks_it() {
    let broken: BTreeSet<&str> = [OF_BUNDLE, OF_LISTING, BREAKS, LATER]
        .into_iter()
        .flatten()
        .map(|(rule, _)| *rule)
        .chain(["named-secrets"])
        .collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(broken, rules);
}

#[test]
fn findings_name_file_place_and_rule() {
    let mut repository = good();
    csv(&mut repository, |c| c["spec"]["displayName"] = json!("M"));
    let texts = texts(&repository);
    let wanted = format!("{CSV} /spec/displayName: 3 to 50 characters [hub-display-name]");
    assert!(texts.contains(&wanted), "{texts:?}");
}
