//! Changes that break the rules of webhooks, scorecard and OperatorHub, in a repository without history.

use serde_json::{Value, json};

use crate::{
    fixture::{EXTENSIONS, csv, file},
    rules::{Break, CONTAINER, annotation, at, drop},
};

/// The smallest change for each.
pub(crate) const OF_LISTING: &[(&str, Break)] = &[
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
];
