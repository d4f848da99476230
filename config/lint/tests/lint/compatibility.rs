//! The upgrade-safety gate: each narrowing of a CRD is found, each widening passes (olm.md 2.3, trap 7).

use mcp_gateway_lint::{bundle::Bundle, compatibility};
use serde_json::{Value, json};

use crate::fixture::{EXTENSIONS, edit, good};

const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

type Change = fn(&mut Value);

fn field<'a>(spec: &'a mut Value, name: &str) -> &'a mut Value {
    &mut spec["properties"][name]
}

fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let old = good().candidate;
    let mut new = old.clone();
    edit(&mut new, EXTENSIONS, change);
    compatibility::lint(&Bundle::read(&old), &Bundle::read(&new))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn o7_every_narrowing_of_a_schema_is_found() {
    let narrowings: &[(&str, Change)] = &[
        ("field removed", |s| {
            s["properties"].as_object_mut().unwrap().remove("publicHost");
        }),
        ("type", |s| field(s, "publicHost")["type"] = json!("integer")),
        ("enum", |s| {
            field(s, "dataPath")["enum"].as_array_mut().unwrap().pop();
        }),
        ("enum where there was none", |s| {
            field(s, "publicHost")["enum"] = json!(["a"]);
        }),
        ("pattern", |s| field(s, "publicHost")["pattern"] = json!("^a$")),
        ("maximum", |s| field(s, "maxBodyBytes")["maximum"] = json!(2048)),
        ("minimum", |s| field(s, "maxBodyBytes")["minimum"] = json!(2048)),
        ("maxLength", |s| field(s, "publicHost")["maxLength"] = json!(10)),
        ("minLength", |s| field(s, "publicHost")["minLength"] = json!(10)),
        ("maxItems", |s| field(s, "allowedOrigins")["maxItems"] = json!(1)),
        ("items", |s| {
            field(s, "allowedOrigins")["items"]["maxLength"] = json!(1);
        }),
        ("required", |s| s["required"] = json!(["targetRef", "publicHost"])),
        ("default", |s| {
            field(s, "backendPingIntervalSeconds")["default"] = json!(30);
        }),
        ("default removed", |s| {
            field(s, "backendPingIntervalSeconds")
                .as_object_mut()
                .unwrap()
                .remove("default");
        }),
        ("list keys", |s| {
            field(s, "allowedOrigins")["x-kubernetes-list-type"] = json!("atomic");
        }),
        ("rule", |s| {
            s["x-kubernetes-validations"] = json!([{"rule": "self.targetRef.name != 'x'", "message": "m"}]);
        }),
        ("nested", |s| {
            field(s, "targetRef")["required"] = json!(["name", "sectionName", "namespace"]);
        }),
    ];
    for (what, change) in narrowings {
        let found = findings(|crd| change(crd.pointer_mut(SPEC).unwrap()));
        assert!(!found.is_empty(), "{what}");
    }
}

#[test]
fn o7_versions_names_and_whole_crds_may_not_go() {
    assert!(!findings(|crd| crd["spec"]["versions"][0]["name"] = json!("v1")).is_empty());
    assert!(!findings(|crd| crd["spec"]["scope"] = json!("Cluster")).is_empty());
    let old = good().candidate;
    let mut new = old.clone();
    new.remove(EXTENSIONS);
    assert!(!compatibility::lint(&Bundle::read(&old), &Bundle::read(&new)).is_empty());
}

#[test]
fn widenings_pass() {
    let widenings: &[(&str, Change)] = &[
        ("optional field", |s| {
            s["properties"]["more"] = json!({"type": "string"});
        }),
        ("enum value", |s| {
            field(s, "dataPath")["enum"]
                .as_array_mut()
                .unwrap()
                .push(json!("Other"))
        }),
        ("pattern gone", |s| {
            field(s, "publicHost").as_object_mut().unwrap().remove("pattern");
        }),
        ("maximum", |s| {
            field(s, "maxBodyBytes")["maximum"] = json!(100_000_000);
        }),
        ("description", |s| {
            field(s, "publicHost")["description"] = json!("other words");
        }),
        ("transition rule", |s| {
            s["x-kubernetes-validations"] = json!([{"rule": "oldSelf.hasValue() || self.targetRef.name != 'x'", "message": "m", "optionalOldSelf": true}]);
        }),
    ];
    for (what, change) in widenings {
        let found = findings(|crd| change(crd.pointer_mut(SPEC).unwrap()));
        assert_eq!(found, Vec::<String>::new(), "{what}");
    }
    assert!(
        findings(|crd| {
            let mut second = crd["spec"]["versions"][0].clone();
            second["name"] = json!("v1");
            second["storage"] = json!(false);
            crd["spec"]["versions"].as_array_mut().unwrap().push(second);
        })
        .is_empty()
    );
}
