//! The admission case table through the webhook's Router, against a cluster in memory.

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use mcp_gateway_api::{
    acceptance,
    admission::{Kind, Subject},
};
use mcp_gateway_webhook::{decision::Decider, metrics::Metrics, service};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    cases::{self, Case, Expected},
    memory::{self, Memory},
};

/// The body of a review; the API server's stamps are added to the new object.
pub(crate) fn review(old: Option<&Value>, new: &Value, dry_run: bool) -> Value {
    let kind = Kind::from_name(new["kind"].as_str().unwrap()).unwrap();
    let mut object = new.clone();
    let uid = json!(format!(
        "uid-{}-{}",
        new["metadata"]["namespace"], new["metadata"]["name"]
    ));
    object["metadata"]["uid"] = old.map_or(uid, |old| old["metadata"]["uid"].clone());
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
        "namespace": new["metadata"]["namespace"], "name": new["metadata"]["name"],
        "resource": {"group": "mcp.kuadrant.io", "version": "v1alpha1", "resource": kind.plural()},
        "object": object, "oldObject": old, "dryRun": dry_run}})
}

pub(crate) async fn post(router: &Router, path: &str, body: impl Into<Body>) -> (u16, Value) {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn stamped(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = &mut object["metadata"];
    if metadata["uid"].is_null() {
        metadata["uid"] = json!(format!("uid-{}-{}", metadata["namespace"], metadata["name"]));
    }
    metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    object
}

async fn judge(case: &Case) -> Value {
    let mut objects: Vec<Value> = case.objects.iter().map(stamped).collect();
    let old = case.old.as_ref().map(stamped);
    objects.extend(old.clone());
    let memory = Memory::with(&objects);
    let (_writer, world) = memory.world();
    let router = service::router(Decider::new(memory, world, memory::now), Metrics::default());
    let body = review(old.as_ref(), &case.write, false).to_string();
    let (status, answer) = post(&router, "/validate?timeout=5s", body).await;
    assert_eq!(status, 200, "{}", case.name);
    assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    answer["response"].clone()
}

/// Every expected text is contained in one of the given ones, and the numbers agree.
fn compare(what: &str, expected: &[String], given: &[&str], problems: &mut Vec<String>) {
    for text in expected {
        if !given.iter().any(|line| line.contains(text.as_str())) {
            problems.push(format!("no {what} has {text:?}"));
        }
    }
    if expected.len() != given.len() {
        problems.push(format!(
            "{} {what}s instead of {}: {given:#?}",
            given.len(),
            expected.len()
        ));
    }
}

fn problems(case: &Case, response: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let allowed = response["allowed"].as_bool().unwrap();
    let warnings: Vec<&str> = response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let verdict = match (allowed, warnings.is_empty()) {
        (false, _) => Expected::Deny,
        (true, false) => Expected::Warn,
        (true, true) => Expected::Allow,
    };
    if verdict != case.expect {
        problems.push(format!("{verdict:?} instead of {:?}", case.expect));
    }
    let message = response["status"]["message"].as_str().unwrap_or_default();
    compare(
        "line",
        &case.lines,
        &message.lines().collect::<Vec<_>>(),
        &mut problems,
    );
    compare("warning", &case.warnings, &warnings, &mut problems);
    if !allowed {
        let causes = response["status"]["details"]["causes"]
            .as_array()
            .map_or(0, Vec::len);
        if causes != message.lines().count() || response["status"]["code"] != 403 {
            problems.push(format!("causes or code: {}", response["status"]));
        }
    }
    if warnings.iter().any(|warning| warning.chars().count() > 120) || warnings.len() > 10 {
        problems.push("a warning is too long".to_owned());
    }
    problems
}

#[tokio::test]
async fn every_case_of_the_table_gets_its_verdict() {
    let cases = cases::all();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let problems = problems(case, &judge(case).await);
        if !problems.is_empty() {
            failures.push(format!("{}:\n    {}", case.name, problems.join("\n    ")));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

#[test]
fn the_table_covers_every_kind_operation_and_severity() {
    let cases = cases::all();
    for kind in Kind::ALL {
        for expect in [Expected::Allow, Expected::Warn, Expected::Deny] {
            for update in [false, true] {
                let covered = cases.iter().any(|case| {
                    case.write["kind"] == kind.as_str()
                        && case.expect == expect
                        && case.old.is_some() == update
                });
                let possible = !(kind == Kind::VirtualServer && expect == Expected::Warn);
                assert_eq!(covered, possible, "{kind:?} {expect:?} update={update}");
            }
        }
    }
}

/// Rules whose reconcile twin looks at a Secret's content or at what brokers report, so that it lives in the operator.
const JUDGED_BY_THE_OPERATOR: [&str; 1] = ["is owned by the operator"];

#[test]
fn t59_every_extension_that_admission_refuses_is_refused_by_reconcile_too() {
    let denied = cases::all().into_iter().filter(|case| {
        case.write["kind"] == Kind::Extension.as_str() && case.expect == Expected::Deny && case.old.is_none()
    });
    let mut judged = 0;
    for case in denied {
        if case
            .lines
            .iter()
            .all(|line| JUDGED_BY_THE_OPERATOR.iter().any(|text| line.contains(text)))
        {
            continue;
        }
        // What does not even parse cannot be stored: the schema holds without any webhook.
        let mut newest = stamped(&case.write);
        newest["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        let Ok(Subject::Extension(extension)) = Subject::read(Kind::Extension, &newest) else {
            continue;
        };
        let mut objects: Vec<Value> = case.objects.iter().map(stamped).collect();
        objects.push(newest);
        let memory = Memory::with(&objects);
        let (_writer, world) = memory.world();
        let judgement = world.read(|world| acceptance::judge(world, &extension));
        assert!(judgement.accepted.is_none(), "{}", case.name);
        judged += 1;
    }
    assert!(judged >= 15, "{judged}");
}
