use k8s_openapi::jiff::Timestamp;
use mcp_gateway_api::conditions::upsert;

use super::*;

fn rolled(ready: i64, complete: bool) -> Rollout {
    Rollout {
        wanted: 1,
        updated: 1,
        ready,
        complete,
        failed: false,
        available: false,
    }
}

fn facts<'a>(rollout: &'a Rollout, current: usize) -> Facts<'a> {
    Facts {
        generation: 3,
        rollout,
        hash: "abc",
        current,
        asked: 1,
        failure: None,
        pod_problem: None,
        warnings: Vec::new(),
        former_document: false,
    }
}

fn was_ready(generation: i64) -> Vec<Condition> {
    let wanted = Wanted {
        kind: ConditionType::Ready,
        status: true,
        reason: "ValidMCPGatewayExtension",
        message: String::new(),
        observed_generation: generation,
    };
    upsert(&[], &wanted, Timestamp::UNIX_EPOCH)
}

#[test]
fn t46_ready_advances_its_generation_only_when_all_brokers_serve_the_document() {
    let rollout = rolled(1, true);
    let behind = ready(&facts(&rollout, 0), &was_ready(2));
    assert!(behind.status);
    assert_eq!(behind.observed_generation, 2);
    let done = ready(&facts(&rollout, 1), &was_ready(2));
    assert_eq!((done.status, done.observed_generation), (true, 3));
    let first = ready(&facts(&rollout, 0), &[]);
    assert!(!first.status, "{}", first.message);
}

#[test]
fn t47_a_rollout_keeps_ready_while_one_replica_serves() {
    let rollout = rolled(1, false);
    assert!(ready(&facts(&rollout, 0), &was_ready(2)).status);
    assert!(progressing(&facts(&rollout, 0)).status);
    let none = rolled(0, false);
    let down = ready(&facts(&none, 0), &was_ready(2));
    assert_eq!((down.status, down.reason), (false, "DeploymentNotReady"));
    assert!(down.message.starts_with("0/1 replicas ready"));
}

#[test]
fn a_failure_of_a_former_row_wins() {
    let rollout = rolled(1, true);
    let mut facts = facts(&rollout, 1);
    facts.failure = Some((ExtensionReason::EnvoyFilterUnavailable, "install it".to_owned()));
    let wanted = ready(&facts, &was_ready(3));
    assert_eq!((wanted.status, wanted.reason), (false, "EnvoyFilterUnavailable"));
}

#[test]
fn t46_a_former_document_keeps_the_generation_that_it_was_made_for() {
    let rollout = rolled(1, true);
    let facts = Facts {
        former_document: true,
        ..facts(&rollout, 1)
    };
    let wanted = ready(&facts, &was_ready(2));
    assert_eq!((wanted.status, wanted.observed_generation), (true, 2));
}

#[test]
fn flags_of_ours_in_args_are_told_once() {
    let rollout = rolled(1, true);
    let warned = |warnings: &[&str]| {
        let warnings = warnings.iter().map(|&warning| warning.to_owned()).collect();
        ready(
            &Facts {
                warnings,
                ..facts(&rollout, 1)
            },
            &was_ready(3),
        )
    };
    let words = "args of the Deployment repeat flags that the operator owns: --log-level";
    let verdict = warned(&["something else", words]);
    assert_eq!(warnings::new_repetition(&verdict, &was_ready(3)), Some(words));
    let told = upsert(&[], &verdict, Timestamp::UNIX_EPOCH);
    assert_eq!(warnings::new_repetition(&verdict, &told), None);
    assert_eq!(warnings::new_repetition(&warned(&[]), &told), None);
}

#[tokio::test(start_paused = true)]
async fn brokers_that_take_up_a_document_at_once_make_no_rollout_of_it() {
    let observed = Namespace {
        written: Some(crate::brokers::Written {
            extension: ObjectKey::new("team", "ext"),
            hash: "abc".to_owned(),
            contents: crate::brokers::Contents::default(),
            since: tokio::time::Instant::now(),
            under_way: true,
        }),
        ..Namespace::default()
    };
    let (still, rolling) = (rolled(1, true), rolled(1, false));
    let was_complete = upsert(&[], &progressing(&facts(&still, 1)), Timestamp::UNIX_EPOCH);
    assert_eq!(
        takes_up(&facts(&still, 0), &observed, &was_complete),
        Some(TAKE_UP)
    );
    assert_eq!(
        takes_up(&facts(&still, 1), &observed, &was_complete),
        None,
        "they have it"
    );
    assert_eq!(
        takes_up(&facts(&rolling, 0), &observed, &was_complete),
        None,
        "pods are replaced"
    );
    assert_eq!(takes_up(&facts(&still, 0), &observed, &[]), None, "the first one");
    tokio::time::advance(TAKE_UP).await;
    assert_eq!(takes_up(&facts(&still, 0), &observed, &was_complete), None);
    let late = progressing(&facts(&still, 0));
    assert_eq!(
        (late.status, late.message.as_str()),
        (true, "0/1 replicas serve config abc")
    );
}
