//! Is a CRD still good for everything that was stored, written and rolled back to under an older one (olm.md 2.2, 2.3)?
//! OLM itself looks at stored objects and OpenAPI only: CEL rules, defaults and list keys are compared here.

mod schema;

use serde_json::Value;

use crate::{Finding, bundle::Bundle, bundle::items, finding::Report};

/// Compares the CRDs of `new` with those of the released bundle `old`.
#[must_use]
pub fn lint(old: &Bundle, new: &Bundle) -> Vec<Finding> {
    let mut report = Report::default();
    let name = |crd: &Value| crd.pointer("/metadata/name").cloned();
    for (_, before) in &old.crds {
        let found = new.crds.iter().find(|(_, crd)| name(crd) == name(before));
        match found {
            Some((file, after)) => one(file, before, after, &mut report),
            None => report.add(
                "compatibility",
                ("manifests/", ""),
                format!("CRD {:?} is gone; its objects would be lost", name(before)),
            ),
        }
    }
    report.finish()
}

fn one(file: &str, before: &Value, after: &Value, report: &mut Report) {
    for pointer in [
        "/spec/group",
        "/spec/scope",
        "/spec/names/kind",
        "/spec/names/plural",
    ] {
        let same = before.pointer(pointer) == after.pointer(pointer);
        report.require(same, "compatibility", (file, pointer), "can never change");
    }
    for old in items(&before["spec"], "versions") {
        let name = old["name"].as_str().unwrap_or_default();
        let Some(new) = items(&after["spec"], "versions").find(|version| version["name"] == name) else {
            report.add(
                "compatibility",
                (file, name),
                "the version is gone; keep it (served: false) until storage was migrated",
            );
            continue;
        };
        let [old, new] =
            [old, new].map(|version| version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null));
        schema::compare(file, name, (old, new), report);
    }
}
