//! One entry for each rule: the smallest change that breaks it.

use std::collections::BTreeSet;

use mcp_gateway_lint::{RULES, repository::Repository};
use serde_json::{Value, json};

use crate::fixture::{CSV, EXTENSIONS, blob, blobs, csv, file, good, next};

type Break = fn(&mut Repository);

const CONTAINER: &str = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";

fn at<'a>(csv: &'a mut Value, pointer: &str) -> &'a mut Value {
    csv.pointer_mut(pointer).unwrap()
}

fn drop(value: &mut Value, member: &str) {
    value.as_object_mut().unwrap().remove(member).unwrap();
}

fn annotation(repository: &mut Repository, name: &str, value: &str) {
    csv(repository, |csv| {
        csv["metadata"]["annotations"][name] = json!(value)
    });
}

/// Broken in a repository without history.
const BREAKS: &[(&str, Break)] = &[
    ("layout", |r| {
        r.candidate.insert("notes.txt".to_owned(), String::new());
    }),
    ("layout", |r| {
        r.candidate.remove("metadata/annotations.yaml");
    }),
    ("layout", |r| {
        r.candidate.remove(CSV);
    }),
    ("one-document", |r| {
        r.candidate.get_mut(EXTENSIONS).unwrap().push_str("---\na: b\n")
    }),
    ("one-document", |r| {
        r.candidate.get_mut(EXTENSIONS).unwrap().insert_str(0, "a: [")
    }),
    ("file-name", |r| {
        let text = r.candidate.remove(EXTENSIONS).unwrap();
        r.candidate.insert("manifests/mcp gateway.yaml".to_owned(), text);
    }),
    ("bundle-annotations", |r| {
        file(r, "metadata/annotations.yaml", |f| {
            f["annotations"]["operators.operatorframework.io.bundle.channels.v1"] = json!("")
        })
    }),
    ("bundle-annotations", |r| {
        file(r, "metadata/annotations.yaml", |f| {
            f["annotations"]["operators.operatorframework.io.bundle.mediatype.v1"] = json!("helm")
        })
    }),
    ("bundle-annotations", |r| {
        file(r, "metadata/annotations.yaml", |f| {
            f["annotations"]["operators.operatorframework.io.bundle.package.v1"] = json!("MCP")
        })
    }),
    ("image-labels", |r| {
        r.candidate
            .get_mut("bundle.Dockerfile")
            .unwrap()
            .push_str("LABEL more=1\n")
    }),
    ("size", |r| {
        let mut state = 1_u64;
        let noise: String = (0..1_200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'!' + u8::try_from(state >> 33 & 63).unwrap())
            })
            .collect();
        r.candidate.insert(
            "manifests/noise.yaml".to_owned(),
            format!(
                "kind: ConfigMap\ndata: {{\"a\": '{}'}}\n",
                noise.replace('\'', "")
            ),
        );
    }),
    ("kinds", |r| {
        r.candidate.insert(
            "manifests/policy.yaml".to_owned(),
            "kind: NetworkPolicy\n".to_owned(),
        );
    }),
    ("csv-name", |r| {
        csv(r, |c| c["metadata"]["name"] = json!("mcp-gateway.0.1.0"))
    }),
    ("csv-name", |r| csv(r, |c| c["spec"]["version"] = json!("0.0.0"))),
    ("csv-edges", |r| {
        csv(r, |c| c["spec"]["replaces"] = c["metadata"]["name"].clone())
    }),
    ("csv-edges", |r| annotation(r, "olm.skipRange", ">=0.0.1 <9.0.0")),
    ("install-modes", |r| {
        csv(r, |c| c["spec"]["installModes"][2]["supported"] = json!(true))
    }),
    ("min-kube-version", |r| {
        csv(r, |c| c["spec"]["minKubeVersion"] = json!("1.30"))
    }),
    ("alm-examples", |r| annotation(r, "alm-examples", "[]")),
    ("alm-examples", |r| annotation(r, "alm-examples", "[{")),
    ("annotation-case", |r| annotation(r, "olm.skiprange", "<0.1.0")),
    ("service-account", |r| {
        r.candidate.insert(
            "manifests/sa.yaml".to_owned(),
            "kind: ServiceAccount\nmetadata: {name: mcp-gateway-webhook}\n".to_owned(),
        );
    }),
    ("deployments", |r| {
        csv(r, |c| *at(c, "/spec/install/spec/deployments") = json!([]))
    }),
    ("related-images", |r| {
        csv(r, |c| {
            c["spec"]["relatedImages"][0]["image"] = json!("ghcr.io/mcp-gateway-operator/broker:0.1.0")
        })
    }),
    ("related-images", |r| {
        csv(r, |c| {
            c["spec"]["relatedImages"].as_array_mut().unwrap().truncate(2)
        })
    }),
    ("related-images", |r| {
        csv(r, |c| {
            let first = c["spec"]["relatedImages"][0].clone();
            c["spec"]["relatedImages"].as_array_mut().unwrap().push(first);
        })
    }),
    ("images-built", |r| {
        csv(r, |c| {
            c["spec"]["relatedImages"][0]["image"] = json!(format!("x/broker@sha256:{}", "0".repeat(64)))
        })
    }),
    ("crd-unique", |r| {
        let text = r.candidate[EXTENSIONS].clone();
        r.candidate.insert("manifests/again.yaml".to_owned(), text);
    }),
    ("crd-owned", |r| {
        r.candidate.remove(EXTENSIONS);
    }),
    ("crd-owned", |r| {
        csv(r, |c| {
            c["spec"]["customresourcedefinitions"]["owned"]
                .as_array_mut()
                .unwrap()
                .remove(0);
        })
    }),
    ("crd-structural", |r| {
        file(r, EXTENSIONS, |f| {
            drop(
                at(
                    f,
                    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/targetRef",
                ),
                "type",
            )
        })
    }),
    ("crd-structural", |r| {
        file(r, EXTENSIONS, |f| {
            at(f, "/spec/versions/0/schema/openAPIV3Schema")["$ref"] = json!("#/x")
        })
    }),
    ("crd-stored", |r| {
        file(r, EXTENSIONS, |f| {
            f["spec"]["versions"][0]["storage"] = json!(false)
        })
    }),
    ("crd-conversion", |r| {
        file(r, EXTENSIONS, |f| {
            f["spec"]["conversion"] = json!({"strategy": "Webhook"})
        })
    }),
    ("crd-conversion", |r| {
        file(r, EXTENSIONS, |f| {
            f["spec"]["preserveUnknownFields"] = json!(true)
        })
    }),
    ("webhook-name", |r| {
        csv(r, |c| {
            let name = c["spec"]["webhookdefinitions"][0]["generateName"].clone();
            c["spec"]["webhookdefinitions"][1]["generateName"] = name;
        })
    }),
    ("webhook-name", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["generateName"] = json!("exclusivity")
        })
    }),
    ("webhook-deployment", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["deploymentName"] = json!("other")
        })
    }),
    ("webhook-ports", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["targetPort"] = json!(9444)
        })
    }),
    ("webhook-rules", |r| {
        csv(r, |c| {
            at(c, "/spec/webhookdefinitions/0/rules/0")["apiGroups"] = json!(["*"])
        })
    }),
    ("webhook-rules", |r| {
        csv(r, |c| {
            at(c, "/spec/webhookdefinitions/0/rules/0")["resources"] =
                json!(["mcpgatewayextensions", "mcpgatewayextensions/status"])
        })
    }),
    ("webhook-rules", |r| {
        csv(r, |c| {
            at(c, "/spec/webhookdefinitions/0/rules/0")["operations"] = json!(["DELETE"])
        })
    }),
    ("webhook-policy", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["failurePolicy"] = json!("Ignore")
        })
    }),
    ("webhook-policy", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["sideEffects"] = json!("None")
        })
    }),
    ("webhook-policy", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][1]["failurePolicy"] = json!("Fail")
        })
    }),
    ("webhook-policy", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][2]["timeoutSeconds"] = json!(30)
        })
    }),
    ("webhook-conversion", |r| {
        csv(r, |c| {
            c["spec"]["webhookdefinitions"][0]["type"] = json!("ConversionWebhook")
        })
    }),
    ("examples-spec", |r| {
        csv(r, |c| {
            let text = c["metadata"]["annotations"]["alm-examples"].as_str().unwrap();
            let mut examples: Value = serde_json::from_str(text).unwrap();
            drop(&mut examples[0], "spec");
            c["metadata"]["annotations"]["alm-examples"] = json!(examples.to_string());
        })
    }),
    ("crd-validation", |r| {
        file(r, EXTENSIONS, |f| {
            drop(
                at(f, "/spec/versions/0/schema/openAPIV3Schema/properties/spec"),
                "properties",
            )
        })
    }),
    ("crd-resources", |r| {
        csv(r, |c| {
            at(c, "/spec/customresourcedefinitions/owned/0")["resources"] = json!([])
        })
    }),
    ("spec-descriptors", |r| {
        csv(r, |c| {
            at(c, "/spec/customresourcedefinitions/owned/1")["specDescriptors"] = json!([])
        })
    }),
    ("status-descriptors", |r| {
        csv(r, |c| {
            at(c, "/spec/customresourcedefinitions/owned/1")["statusDescriptors"] = json!([])
        })
    }),
    ("hub-display-name", |r| {
        csv(r, |c| c["spec"]["displayName"] = json!("M"))
    }),
    ("hub-description", |r| {
        csv(r, |c| c["spec"]["description"] = json!("short"))
    }),
    ("hub-description", |r| {
        csv(r, |c| {
            at(c, "/spec/customresourcedefinitions/owned/0")["description"] = json!("")
        })
    }),
    ("hub-icon", |r| {
        csv(r, |c| c["spec"]["icon"][0]["base64data"] = json!("not base64!"))
    }),
    ("hub-icon", |r| {
        csv(r, |c| c["spec"]["icon"][0]["mediatype"] = json!("image/webp"))
    }),
    ("hub-maintainers", |r| {
        csv(r, |c| c["spec"]["maintainers"][0]["email"] = json!("nobody"))
    }),
    ("hub-provider", |r| {
        csv(r, |c| c["spec"]["provider"]["name"] = json!("x"))
    }),
    ("hub-links", |r| {
        csv(r, |c| c["spec"]["links"][0]["url"] = json!("github"))
    }),
    ("hub-annotations", |r| annotation(r, "capabilities", "Everything")),
    ("hub-annotations", |r| annotation(r, "categories", "Gateways")),
    ("hub-annotations", |r| annotation(r, "repository", "here")),
    ("hub-annotations", |r| annotation(r, "createdAt", "yesterday")),
    ("hub-annotations", |r| annotation(r, "support", "")),
    ("hub-keywords", |r| csv(r, |c| c["spec"]["keywords"] = json!([]))),
    ("features", |r| {
        annotation(r, "features.operators.openshift.io/fips-compliant", "True")
    }),
    ("platforms", |r| {
        csv(r, |c| {
            drop(at(c, "/metadata/labels"), "operatorframework.io/os.linux")
        })
    }),
    ("no-latest", |r| {
        csv(r, |c| {
            at(c, CONTAINER)["image"] = json!("ghcr.io/mcp-gateway-operator/operator:latest")
        })
    }),
    ("technology-preview", |r| {
        csv(r, |c| {
            c["spec"]["description"] = json!("A gateway for everything that speaks MCP.")
        })
    }),
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
    for (base, changes) in [(good as fn() -> Repository, BREAKS), (next, LATER)] {
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
    let broken: BTreeSet<&str> = BREAKS
        .iter()
        .chain(LATER)
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
