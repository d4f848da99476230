use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn claim(holder: &str, uid: &str, confirmed: bool, renewed: i64) -> Claim {
    Claim {
        resource_version: "7".to_owned(),
        key: Some(ClaimKey::Namespace("a".to_owned())),
        holder: ObjectKey::parse(holder),
        holder_uid: uid.to_owned(),
        confirmed,
        renewed: Some(at(renewed)),
        acquired: Some(at(renewed)),
        transitions: 0,
    }
}

fn requester(key: &str, uid: &str, granted: bool) -> Requester {
    Requester {
        key: ObjectKey::parse(key).expect("a key"),
        uid: uid.to_owned(),
        granted,
    }
}

fn facts(state: HolderState, granted: bool) -> HolderFacts {
    HolderFacts { state, granted }
}

fn live(uid: &str, wants: bool) -> HolderState {
    HolderState::Live {
        uid: uid.to_owned(),
        wants,
    }
}

fn step(claim: &Claim, state: HolderState, now: i64) -> ClaimStep {
    decide(
        Some(claim),
        &facts(state, true),
        &requester("b/e", "u2", true),
        at(now),
    )
}

fn take_over() -> ClaimStep {
    ClaimStep::TakeOver {
        resource_version: "7".to_owned(),
    }
}

#[test]
fn keys_survive_their_annotation_and_sort_gateway_first() {
    let gateway = ObjectKey::new("infra", "gw");
    let keys = [
        ClaimKey::Namespace("team-a".to_owned()),
        ClaimKey::Gateway(gateway.clone()),
        ClaimKey::Port(gateway.clone(), 8080),
        ClaimKey::Section(gateway, "mcp".to_owned()),
    ];
    for key in &keys {
        assert_eq!(ClaimKey::parse(&key.to_string()).as_ref(), Some(key));
        assert_eq!(key.lease_name().len(), "mcp-claim-".len() + 40);
    }
    assert_eq!(ClaimKey::parse("gateway/infra/gw/port/x"), None);
    assert_eq!(
        keys[1].lease_name(),
        ClaimKey::parse("gateway/infra/gw").expect("a key").lease_name()
    );
}

#[test]
fn t57_a_claim_of_nobody_blocks_for_the_grace_and_no_longer() {
    let fresh = claim("a/e", "u1", false, 100);
    assert_eq!(step(&fresh, HolderState::Gone, 139), ClaimStep::Busy);
    assert_eq!(step(&fresh, HolderState::Gone, 140), take_over());
    assert_eq!(step(&fresh, live("u1", false), 139), ClaimStep::Busy);
    assert_eq!(step(&fresh, live("u1", false), 140), take_over());
    // Seen stored and gone: no grace at all.
    assert_eq!(
        step(&claim("a/e", "u1", true, 100), HolderState::Gone, 101),
        take_over()
    );
    assert_eq!(
        step(&fresh, HolderState::Terminating { uid: "u1".to_owned() }, 101),
        take_over(),
        "the create has landed, so nothing of it is on its way"
    );
}

#[test]
fn a_live_holder_that_wants_the_key_keeps_it_for_ever() {
    let old = claim("a/e", "u1", true, 0);
    assert_eq!(
        step(&old, live("u1", true), 1_000_000),
        ClaimStep::Refused {
            holder: ObjectKey::new("a", "e")
        }
    );
}

#[test]
fn t9_a_grantless_holder_loses_to_a_newcomer_with_a_grant() {
    let held = claim("a/e", "u1", true, 0);
    let decide = |holder: bool, newcomer: bool| {
        decide(
            Some(&held),
            &facts(live("u1", true), holder),
            &requester("b/e", "u2", newcomer),
            at(1),
        )
    };
    assert_eq!(decide(false, true), take_over());
    assert!(matches!(decide(false, false), ClaimStep::Refused { .. }));
    assert!(matches!(decide(true, false), ClaimStep::Refused { .. }));
    assert!(matches!(decide(true, true), ClaimStep::Refused { .. }));
}

#[test]
fn a_create_under_the_same_name_waits_for_the_first_one() {
    let me = requester("a/e", "u2", true);
    let first = claim("a/e", "u1", false, 100);
    let decide = |claim: &Claim, state, now| decide(Some(claim), &facts(state, true), &me, at(now));
    assert_eq!(decide(&first, HolderState::Gone, 101), ClaimStep::Busy);
    let renew = ClaimStep::Renew {
        resource_version: "7".to_owned(),
    };
    assert_eq!(decide(&first, HolderState::Gone, 140), renew);
    assert_eq!(
        decide(&first, live("u1", true), 101),
        renew,
        "the first has landed"
    );
    assert_eq!(
        decide(&claim("a/e", "u1", true, 100), HolderState::Gone, 101),
        renew
    );
    assert_eq!(
        decide(&claim("a/e", "u2", false, 100), HolderState::Gone, 101),
        renew
    );
}

#[test]
fn the_operator_confirms_only_the_uid_that_it_saw() {
    let winner = requester("a/e", "u1", true);
    let uphold = |claim: &Claim, now| uphold(Some(claim), &HolderState::Gone, &winner, true, at(now));
    let assert = Upkeep::Assert {
        resource_version: "7".to_owned(),
    };
    assert_eq!(uphold(&claim("a/e", "u1", false, 100), 101), assert);
    assert_eq!(uphold(&claim("a/e", "u1", true, 100), 101), Upkeep::Keep);
    assert_eq!(
        uphold(&claim("a/e", "u9", false, 100), 101),
        Upkeep::Keep,
        "another create may be on its way"
    );
    assert_eq!(uphold(&claim("a/e", "u9", false, 100), 140), assert);
    assert_eq!(uphold(&claim("b/e", "u9", false, 100), 101), Upkeep::Keep);
    assert_eq!(
        uphold(&claim("b/e", "u9", true, 100), 101),
        assert,
        "seen stored, gone since"
    );
}

#[test]
fn the_sweep_leaves_what_may_still_land() {
    let fresh = claim("a/e", "u1", false, 100);
    assert_eq!(sweep(&fresh, &HolderState::Gone, at(101)), Upkeep::Keep);
    assert_eq!(sweep(&fresh, &live("u1", true), at(900)), Upkeep::Keep);
    assert_eq!(
        sweep(&fresh, &HolderState::Gone, at(140)),
        Upkeep::Release {
            resource_version: "7".to_owned()
        }
    );
}

#[test]
fn a_claim_survives_its_lease() {
    let key = ClaimKey::Namespace("a".to_owned());
    let me = requester("a/e", "u1", true);
    let written = lease_of(&key, "mcp-system", &me, None, (at(100), false));
    let read = Claim::of(&written);
    assert_eq!(read.holder, Some(me.key.clone()));
    assert_eq!(
        (read.holder_uid.as_str(), read.confirmed, read.renewed),
        ("u1", false, Some(at(100)))
    );
    assert_eq!(read.key, Some(key.clone()));
    let again = Claim::of(&lease_of(&key, "mcp-system", &me, Some(&read), (at(200), true)));
    assert_eq!(
        (again.acquired, again.renewed, again.confirmed),
        (Some(at(100)), Some(at(200)), true)
    );
    assert_eq!(again.transitions, 0);
    let other = lease_of(
        &key,
        "mcp-system",
        &requester("a/f", "u2", true),
        Some(&read),
        (at(300), false),
    );
    assert_eq!(Claim::of(&other).transitions, 1);
    assert_eq!(Claim::of(&other).acquired, Some(at(300)));
}

#[test]
fn t2_an_extension_that_still_waits_takes_no_claim_from_a_live_holder() {
    let held = claim("b/e", "u9", true, 100);
    let winner = requester("a/e", "u1", true);
    let uphold = |state: &HolderState, accepted| uphold(Some(&held), state, &winner, accepted, at(900));
    let assert = Upkeep::Assert {
        resource_version: "7".to_owned(),
    };
    assert_eq!(uphold(&live("u9", true), false), Upkeep::Keep);
    assert_eq!(uphold(&live("u9", true), true), assert);
    assert_eq!(
        uphold(&HolderState::Gone, false),
        assert,
        "nobody is served on it"
    );
}

#[test]
fn a_gateway_that_is_being_deleted_counts_as_absent() {
    let target = ObjectKey::new("infra", "gw");
    let mut object = serde_json::json!({"metadata": {"namespace": "infra", "name": "gw",
            "annotations": {"mcp.kuadrant.io/extension-scope": "Listener"}},
        "spec": {"listeners": [{"name": "mcp", "port": 8080, "protocol": "HTTP"}]}});
    let key = |object: &serde_json::Value| {
        let gateway = Gateway::from_value(object).expect("a Gateway");
        gateway_key(&target, "mcp", Some(&gateway))
    };
    assert_eq!(key(&object), ClaimKey::Port(target.clone(), 8080));
    object["metadata"]["deletionTimestamp"] = serde_json::json!("2026-01-01T00:00:00Z");
    assert_eq!(key(&object), ClaimKey::Gateway(target.clone()));
    assert_eq!(gateway_key(&target, "mcp", None), key(&object));
}
