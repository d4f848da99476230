//! Changes that break the rules of format, CSV and CRDs, in a repository without history.

use serde_json::json;

use crate::{
    fixture::{CSV, EXTENSIONS, csv, file},
    rules::{Break, annotation, at, drop},
};

/// The smallest change for each.
pub(crate) const OF_BUNDLE: &[(&str, Break)] = &[
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
];
