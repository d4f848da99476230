use super::*;

fn body(request: &Value) -> Vec<u8> {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
        .to_string()
        .into_bytes()
}

fn extension(operation: &str) -> Value {
    json!({"uid": "u-1", "operation": operation, "namespace": "team-a", "dryRun": true,
        "resource": {"group": "mcp.kuadrant.io", "version": "v1alpha1", "resource": "mcpgatewayextensions"},
        "object": {"spec": {}}, "oldObject": null})
}

#[test]
fn a_request_is_read() {
    let request = Request::read(&body(&extension("CREATE"))).expect("a request");
    assert_eq!(
        (request.uid.as_str(), request.kind, request.dry_run),
        ("u-1", Kind::Extension, true)
    );
    assert_eq!((request.operation, request.old), (Operation::Create, None));
}

#[test]
fn o2_a_long_uid_is_echoed_up_to_a_bound_by_every_endpoint() {
    let long = body(&json!({"uid": "u".repeat(2 * MAX_UID), "operation": "DELETE"}));
    let advised = advice(&long, |_| Vec::new());
    let Err(Unusable::NotOurs { uid }) = Request::read(&long) else {
        panic!("a deletion is not ours to judge")
    };
    assert_eq!(uid, "u".repeat(MAX_UID));
    assert_eq!(advised["response"]["uid"], uid);
}

#[test]
fn o2_the_uid_is_found_in_whatever_comes() {
    let malformed = |body: &[u8]| match Request::read(body) {
        Err(Unusable::Malformed { uid, .. }) => uid,
        other => panic!("{other:?}"),
    };
    assert_eq!(malformed(br#"{"request": {"uid": "u-7", "object": "#), "u-7");
    assert_eq!(malformed(br#"{"request": {"uid": "u-7"}}"#), "u-7");
    let without_object = json!({"uid": "u-7", "operation": "CREATE",
        "resource": {"group": "mcp.kuadrant.io", "resource": "mcpgatewayextensions"}});
    assert_eq!(malformed(&body(&without_object)), "u-7");
    assert_eq!(
        malformed(&body(&extension("UPDATE"))),
        "u-1",
        "an update without the old object"
    );
    assert_eq!(malformed(b"\xff\xfe\"uid\": \"u\xff\""), "");
    assert_eq!(malformed(b""), "");
}

#[test]
fn t61_deletions_subresources_and_other_kinds_are_let_through() {
    let mut status = extension("UPDATE");
    status["subResource"] = json!("status");
    let mut other = extension("CREATE");
    other["resource"]["group"] = json!("apps");
    for request in [extension("DELETE"), extension("CONNECT"), status, other] {
        assert_eq!(
            Request::read(&body(&request)),
            Err(Unusable::NotOurs {
                uid: "u-1".to_owned()
            })
        );
    }
}

#[test]
fn a_denial_lists_every_violation_twice() {
    let violation = |field: &str| Violation::new("spec", field, "InvalidMCPGatewayExtension", "is wrong");
    let verdict = Verdict::deny(vec![violation("spec.a"), violation("spec.b")]);
    let response = answer("u-1", &verdict)["response"].clone();
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 403);
    assert_eq!(response["status"]["reason"], "InvalidMCPGatewayExtension");
    assert_eq!(
        response["status"]["message"],
        "spec.a: is wrong [InvalidMCPGatewayExtension]\nspec.b: is wrong [InvalidMCPGatewayExtension]"
    );
    assert_eq!(response["status"]["details"]["causes"][1]["field"], "spec.b");
}

#[test]
fn the_reason_invalid_is_spelt_out_because_kubectl_hides_the_text_otherwise() {
    let violation = Violation::new("resource-name", "spec.rules[0]", "Invalid", "is wrong");
    let response = answer("u-1", &Verdict::deny(vec![violation]))["response"].clone();
    assert_eq!(response["status"]["reason"], "InvalidMCPAuthPolicy");
    assert_eq!(response["status"]["message"], "spec.rules[0]: is wrong [Invalid]");
}
