//! Traps of olm.md 8 that a bundle's files decide.

use serde_json::json;

use crate::fixture::{csv, good};

#[test]
fn o5_no_rule_that_olm_may_widen_to_the_cluster_changes_secrets_without_their_names() {
    let mut repository = good();
    csv(&mut repository, |c| {
        let rules = c.pointer_mut("/spec/install/spec/permissions/0/rules").unwrap();
        let secrets = rules
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|rule| rule["resources"] == json!(["secrets"]))
            .unwrap();
        secrets.as_object_mut().unwrap().remove("resourceNames").unwrap();
    });
    assert!(
        repository
            .lint()
            .iter()
            .any(|finding| finding.rule == "named-secrets")
    );
}

#[test]
fn o6_annotations_of_the_csv_depend_on_the_release_only() {
    // Everything else in them is text of this repository; the time is the release's, held by the rule created-at.
    let mut repository = good();
    csv(&mut repository, |c| {
        c["metadata"]["annotations"]["createdAt"] = json!("2031-01-01T00:00:00Z")
    });
    assert!(
        repository
            .lint()
            .iter()
            .any(|finding| finding.rule == "created-at")
    );
}
