//! Every interleaving of a few requests over one or two keys, with the real decision functions: webhook requests in
//! single steps (read claim, read holder, write under precondition, give back), the API server's store, crashes,
//! deletions, the operator's upkeep and the passing of the grace.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::*;

/// Seconds; a fresh claim was renewed at `NOW`, an aged one long before.
const NOW: i64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Object {
    uid: usize,
    keys: Vec<usize>,
    terminating: bool,
    version: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stored {
    holder: usize,
    uid: usize,
    confirmed: bool,
    fresh: bool,
    version: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Read,
    Holder(Option<Stored>),
    Write(ClaimStep),
    Admitted,
    GiveBack,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    name: usize,
    uid: usize,
    keys: Vec<usize>,
    /// Version of the object that an update changes; `None` for a create.
    base: Option<usize>,
    phase: Phase,
    next: usize,
    /// Claims to give back on denial: key and version.
    taken: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Idle,
    Holder(usize, Option<Stored>),
    Write(usize, Option<Stored>, Option<(usize, usize)>, Upkeep),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    objects: Vec<Option<Object>>,
    claims: Vec<Option<Stored>>,
    versions: Vec<usize>,
    requests: Vec<Request>,
    operator: Operator,
    deletes: usize,
    crashes: usize,
    upkeeps: usize,
}

fn name(index: usize) -> ObjectKey {
    ObjectKey::new("ns", format!("e{index}"))
}

fn view(stored: &Stored) -> Claim {
    let renewed = if stored.fresh { NOW } else { NOW - GRACE_SECONDS };
    Claim {
        resource_version: stored.version.to_string(),
        key: None,
        holder: Some(name(stored.holder)),
        holder_uid: stored.uid.to_string(),
        confirmed: stored.confirmed,
        renewed: Some(Timestamp::from_second(renewed).expect("in range")),
        acquired: None,
        transitions: 0,
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("in range")
}

impl State {
    fn new(names: usize, keys: usize, requests: Vec<Request>) -> Self {
        Self {
            objects: vec![None; names],
            claims: vec![None; keys],
            versions: vec![0; keys],
            requests,
            operator: Operator::Idle,
            deletes: 0,
            crashes: 0,
            upkeeps: 0,
        }
    }

    fn holder_state(&self, key: usize, holder: usize) -> HolderState {
        match &self.objects[holder] {
            None => HolderState::Gone,
            Some(object) if object.terminating => HolderState::Terminating {
                uid: object.uid.to_string(),
            },
            Some(object) => HolderState::Live {
                uid: object.uid.to_string(),
                wants: object.keys.contains(&key),
            },
        }
    }

    /// Writes under a precondition; `None` when the claim changed since.
    fn put(&mut self, key: usize, expected: Option<usize>, holder: (usize, usize, bool)) -> Option<usize> {
        if self.claims[key].as_ref().map(|claim| claim.version) != expected {
            return None;
        }
        self.versions[key] += 1;
        let version = self.versions[key];
        let (holder, uid, confirmed) = holder;
        self.claims[key] = Some(Stored {
            holder,
            uid,
            confirmed,
            fresh: true,
            version,
        });
        Some(version)
    }

    fn delete_claim(&mut self, key: usize, expected: usize) {
        if self.claims[key]
            .as_ref()
            .is_some_and(|claim| claim.version == expected)
        {
            self.claims[key] = None;
        }
    }

    /// One step of one request.
    fn advance(&self, index: usize) -> Vec<State> {
        let mut next = self.clone();
        let request = &mut next.requests[index];
        if request.phase == Phase::Read && request.next == 0 {
            // Admission of an update sees the object as it is stored; one that never gets to see it never starts.
            let stored = self.objects[request.name].as_ref().map(|object| object.version);
            match request.base {
                Some(base) if stored.is_some_and(|stored| stored < base) => return vec![],
                Some(base) if stored != Some(base) => {
                    request.phase = Phase::Done;
                    return vec![next];
                }
                _ => {}
            }
        }
        let key = request.keys.get(request.next).copied();
        match (request.phase.clone(), key) {
            (Phase::Done, _) => return vec![],
            (Phase::Read, None) => request.phase = Phase::Admitted,
            (Phase::Read, Some(key)) => request.phase = Phase::Holder(self.claims[key].clone()),
            (Phase::Holder(seen), Some(key)) => {
                let state = seen
                    .as_ref()
                    .map_or(HolderState::Gone, |seen| self.holder_state(key, seen.holder));
                let me = Requester {
                    key: name(request.name),
                    uid: request.uid.to_string(),
                    granted: true,
                };
                let facts = HolderFacts { state, granted: true };
                request.phase = Phase::Write(decide(seen.as_ref().map(view).as_ref(), &facts, &me, now()));
            }
            (Phase::Write(step), Some(key)) => next.write(index, key, &step),
            (Phase::Admitted, _) => next.store(index),
            (Phase::GiveBack, _) => match request.taken.pop() {
                Some((key, version)) => next.delete_claim(key, version),
                None => request.phase = Phase::Done,
            },
            (phase, None) => unreachable!("{phase:?} without a key"),
        }
        let mut all = vec![next];
        if self.crashes > 0 {
            let mut crashed = self.clone();
            crashed.crashes -= 1;
            crashed.requests[index].phase = Phase::Done;
            all.push(crashed);
        }
        all
    }

    fn write(&mut self, index: usize, key: usize, step: &ClaimStep) {
        let (holder, uid) = (self.requests[index].name, self.requests[index].uid);
        let version = |text: &String| text.parse::<usize>().ok();
        let (written, returnable) = match step {
            ClaimStep::Create => (self.put(key, None, (holder, uid, false)), true),
            ClaimStep::TakeOver { resource_version } => (
                self.put(key, version(resource_version), (holder, uid, false)),
                true,
            ),
            ClaimStep::Renew { resource_version } => (
                self.put(key, version(resource_version), (holder, uid, false)),
                false,
            ),
            ClaimStep::Busy | ClaimStep::Refused { .. } => {
                self.requests[index].phase = Phase::GiveBack;
                return;
            }
        };
        let request = &mut self.requests[index];
        request.phase = Phase::Read;
        if let Some(version) = written {
            request.next += 1;
            if returnable {
                request.taken.push((key, version));
            }
        }
    }

    /// The API server stores an admitted object, or finds that it cannot.
    fn store(&mut self, index: usize) {
        let request = &mut self.requests[index];
        request.phase = Phase::Done;
        let slot = &mut self.objects[request.name];
        match (&slot, request.base) {
            (None, None) => {
                *slot = Some(Object {
                    uid: request.uid,
                    keys: request.keys.clone(),
                    terminating: false,
                    version: 0,
                });
            }
            (Some(object), Some(base)) if object.version == base && object.uid == request.uid => {
                let version = object.version + 1;
                let terminating = object.terminating;
                *slot = Some(Object {
                    uid: request.uid,
                    keys: request.keys.clone(),
                    terminating,
                    version,
                });
            }
            _ => {}
        }
    }

    fn operate(&self) -> Vec<State> {
        let mut all = Vec::new();
        match &self.operator {
            Operator::Idle if self.upkeeps > 0 => {
                for key in 0..self.claims.len() {
                    let mut next = self.clone();
                    next.upkeeps -= 1;
                    next.operator = Operator::Holder(key, self.claims[key].clone());
                    all.push(next);
                }
            }
            Operator::Idle => {}
            Operator::Holder(key, seen) => all.push(self.judge(*key, seen.clone())),
            Operator::Write(key, seen, winner, upkeep) => {
                let mut next = self.clone();
                next.operator = Operator::Idle;
                match (upkeep, winner) {
                    (Upkeep::Release { .. }, _) => {
                        if let Some(seen) = seen {
                            next.delete_claim(*key, seen.version);
                        }
                    }
                    (Upkeep::Create | Upkeep::Assert { .. }, Some((winner, uid))) => {
                        let expected = seen.as_ref().map(|seen| seen.version);
                        next.put(*key, expected, (*winner, *uid, true));
                    }
                    _ => {}
                }
                all.push(next);
            }
        }
        all
    }

    /// The operator reads the store live, after the claim, and decides.
    fn judge(&self, key: usize, seen: Option<Stored>) -> State {
        let mut next = self.clone();
        let winner = self.objects.iter().enumerate().find_map(|(index, object)| {
            let object = object
                .as_ref()
                .filter(|object| !object.terminating && object.keys.contains(&key))?;
            Some((index, object.uid))
        });
        let state = seen
            .as_ref()
            .map_or(HolderState::Gone, |seen| self.holder_state(key, seen.holder));
        let claim = seen.as_ref().map(view);
        let upkeep = match (winner, &claim) {
            (Some((winner, uid)), _) => {
                let winner = Requester {
                    key: name(winner),
                    uid: uid.to_string(),
                    granted: true,
                };
                uphold(claim.as_ref(), &state, &winner, true, now())
            }
            (None, Some(claim)) => sweep(claim, &state, now()),
            (None, None) => Upkeep::Keep,
        };
        next.operator = Operator::Write(key, seen, winner, upkeep);
        next
    }

    fn environment(&self) -> Vec<State> {
        let mut all = Vec::new();
        if self.deletes > 0 {
            for (index, object) in self.objects.iter().enumerate() {
                let Some(object) = object else { continue };
                let mut next = self.clone();
                next.objects[index] = None;
                next.deletes -= 1;
                all.push(next.clone());
                if !object.terminating {
                    next.objects[index] = Some(Object {
                        terminating: true,
                        version: object.version + 1,
                        ..object.clone()
                    });
                    all.push(next);
                }
            }
        }
        // The grace passes for a claim only when the write for which it was taken has ended.
        for (key, claim) in self.claims.iter().enumerate() {
            let Some(claim) = claim else { continue };
            let active = |request: &Request| {
                request.uid == claim.uid && request.name == claim.holder && request.phase != Phase::Done
            };
            if claim.fresh && !self.requests.iter().any(active) {
                let mut next = self.clone();
                next.claims[key] = Some(Stored {
                    fresh: false,
                    ..claim.clone()
                });
                all.push(next);
            }
        }
        all
    }

    fn successors(&self) -> Vec<State> {
        let mut all: Vec<State> = (0..self.requests.len())
            .flat_map(|index| self.advance(index))
            .collect();
        all.extend(self.operate());
        all.extend(self.environment());
        all
    }

    fn holders_of(&self, key: usize) -> usize {
        self.objects
            .iter()
            .flatten()
            .filter(|object| !object.terminating && object.keys.contains(&key))
            .count()
    }

    fn quiet(&self) -> bool {
        self.requests.iter().all(|request| request.phase == Phase::Done)
    }

    /// After the grace, a newcomer gets each key that no stored object wants, and no other.
    fn assert_newcomers_are_served(&self) {
        for key in 0..self.claims.len() {
            let mut state = self.clone();
            for claim in state.claims.iter_mut().flatten() {
                claim.fresh = false;
            }
            state.crashes = 0;
            state.objects.push(None);
            state.requests = vec![create(state.objects.len() - 1, 99, &[key])];
            while !state.quiet() {
                state = state.advance(0).remove(0);
            }
            let free = self.holders_of(key) == 0;
            assert_eq!(
                state.objects.last().is_some_and(Option::is_some),
                free,
                "key {key} of {self:?}"
            );
        }
    }
}

fn create(name: usize, uid: usize, keys: &[usize]) -> Request {
    Request {
        name,
        uid,
        keys: keys.to_vec(),
        base: None,
        phase: Phase::Read,
        next: 0,
        taken: vec![],
    }
}

/// Visits every reachable state; `outcome` sees those in which all requests have ended.
fn explore(start: State, mut outcome: impl FnMut(&State)) -> usize {
    let mut seen = HashSet::new();
    let mut stack = vec![start];
    while let Some(state) = stack.pop() {
        // A digest is enough: a collision would only leave a state out, with odds of one in many millions.
        let mut digest = DefaultHasher::new();
        state.hash(&mut digest);
        if !seen.insert(digest.finish()) {
            continue;
        }
        for key in 0..state.claims.len() {
            assert!(state.holders_of(key) <= 1, "two holders of key {key}: {state:?}");
        }
        if state.quiet() {
            state.assert_newcomers_are_served();
            outcome(&state);
        }
        stack.extend(state.successors());
    }
    seen.len()
}

#[test]
fn t56_of_three_creates_exactly_one_is_admitted_in_every_interleaving() {
    let requests = vec![create(0, 10, &[0]), create(1, 11, &[0]), create(2, 12, &[0])];
    let states = explore(State::new(3, 1, requests), |end| assert_eq!(end.holders_of(0), 1));
    assert!(states > 500, "{states}");
    let requests = vec![
        create(0, 10, &[0, 1]),
        create(1, 11, &[0, 1]),
        create(2, 12, &[0, 1]),
    ];
    explore(State::new(3, 2, requests), |end| {
        assert_eq!((end.holders_of(0), end.holders_of(1)), (1, 1));
    });
}

#[test]
fn t56_crashes_deletions_and_upkeep_never_admit_two() {
    let requests = vec![create(0, 10, &[0]), create(1, 11, &[0]), create(2, 12, &[0])];
    let mut start = State::new(3, 1, requests);
    (start.deletes, start.crashes, start.upkeeps) = (1, 1, 1);
    let states = explore(start, |_| {});
    assert!(states > 10_000, "{states}");
}

#[test]
fn t56_overlapping_keys_and_a_shared_name_never_admit_two() {
    // Two creates under one name that want different Gateways, and a third object that wants both keys.
    let requests = vec![create(0, 10, &[0]), create(0, 11, &[1]), create(1, 12, &[0, 1])];
    let mut start = State::new(2, 2, requests);
    (start.deletes, start.upkeeps) = (1, 1);
    explore(start, |_| {});
    let requests = vec![create(0, 10, &[0]), create(0, 11, &[0]), create(1, 12, &[0])];
    let mut start = State::new(2, 1, requests);
    (start.deletes, start.crashes, start.upkeeps) = (2, 1, 2);
    explore(start, |_| {});
}

#[test]
fn t56_conflicting_updates_never_admit_two() {
    // Object 0 moves to key 1 and back, twice at once, while another one is created on key 1.
    let update = |keys: &[usize], base| Request {
        base: Some(base),
        ..create(0, 10, keys)
    };
    let requests = vec![
        update(&[1], 0),
        update(&[1], 0),
        update(&[0], 1),
        create(1, 11, &[1]),
    ];
    let mut start = State::new(2, 2, requests);
    start.objects[0] = Some(Object {
        uid: 10,
        keys: vec![0],
        terminating: false,
        version: 0,
    });
    start.claims[0] = Some(Stored {
        holder: 0,
        uid: 10,
        confirmed: true,
        fresh: false,
        version: 0,
    });
    start.upkeeps = 2;
    explore(start, |_| {});
}
