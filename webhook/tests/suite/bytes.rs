//! Any bytes as a review: the fuzz corpus, mutated without guidance, on every test run. `webhook/fuzz` does the same with
//! coverage.

use mcp_gateway_webhook::{decision::Decider, metrics::Metrics, service};
use serde_json::Value;

use crate::{
    memory::{self, Memory},
    table::post,
};

const ROUNDS: usize = 4_000;
/// Pieces that reach further than random bytes.
const PIECES: [&str; 12] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "1e999",
    "true",
    "\\u0000",
    "\"spec\":",
    "\"UPDATE\"",
    "ä",
    "[[[[[[[[",
];

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let until = (at + random.below(12)).min(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
            3 => drop(bytes.splice(at..until, PIECES[random.below(PIECES.len())].bytes())),
            // A whole JSON value, so that the document stays well-formed more often.
            _ => replace_value(&mut bytes, random),
        }
    }
    bytes
}

fn replace_value(bytes: &mut Vec<u8>, random: &mut Random) {
    let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    // A path is chosen first, because a borrow cannot go on from a branch that it may not take.
    let mut path = String::new();
    for _ in 0..random.below(8) {
        let step = match document.pointer(&path).unwrap() {
            Value::Object(members) => members.keys().nth(random.below(members.len())).cloned(),
            Value::Array(items) if !items.is_empty() => Some(random.below(items.len()).to_string()),
            _ => None,
        };
        let Some(step) = step else { break };
        path = format!("{path}/{}", step.replace('~', "~0").replace('/', "~1"));
    }
    let at = document.pointer_mut(&path).unwrap();
    *at = serde_json::from_str(PIECES[random.below(7)]).unwrap_or(Value::Null);
    *bytes = document.to_string().into_bytes();
}

#[tokio::test]
async fn any_bytes_get_an_answer_with_their_uid_and_nothing_panics() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/review");
    let mut seeds: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let memory = Memory::default();
    let (_writer, world) = memory.world();
    let router = service::router(Decider::new(memory, world, memory::now), Metrics::default());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..ROUNDS {
        let body = mutate(&seeds[round % seeds.len()], &mut random);
        let path = if round % 5 == 0 {
            "/mutate"
        } else {
            "/validate?timeout=2s"
        };
        let (status, answer) = post(&router, path, body.clone()).await;
        let shown = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{shown}");
        assert!(answer["response"]["allowed"].is_boolean(), "{shown}");
        assert_ne!(
            answer["response"]["status"]["code"], 500,
            "the judgement panicked: {shown}"
        );
        if let Some(uid) = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|review| review["request"]["uid"].as_str().map(str::to_owned))
        {
            let expected: String = uid.chars().take(128).collect();
            assert_eq!(answer["response"]["uid"], expected, "{shown}");
        }
    }
}
