//! What a decision costs: 1,000 rules and 10,000 tools, beside the same question without a policy. Checking signatures
//! is not part of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mcp_gateway_api::{
    authorization::{Claims, Item, ItemKind, Policies, Purpose, Request},
    config::{AuthPolicyEntry, PolicyAction, PolicyMatch, PolicyRule, PolicyTarget},
};
use serde_json::json;

const RULES: usize = 1_000;
const TOOLS: usize = 10_000;
const SERVERS: usize = 100;

/// `RULES` rules in policies of 50: most name one tool, some a pattern, some all servers; a few deny.
fn policies(condition: &str) -> Policies {
    let rule = |at: usize| PolicyRule {
        name: format!("rule-{at}"),
        effect: if at.is_multiple_of(20) {
            PolicyAction::Deny
        } else {
            PolicyAction::Allow
        },
        matches: vec![PolicyMatch {
            claim: "groups".into(),
            values: vec![format!("group-{}", at % 50), "everybody".into()],
        }],
        kind: "tool".into(),
        resource: match at % 10 {
            0 => format!("team-{}/*:delete_{at}*", at % 10),
            1 => format!("team/server-{}:tool_*", at % SERVERS),
            _ => format!("team/server-{}:tool_{}", at % SERVERS, at * 10),
        },
        condition: condition.into(),
    };
    let rules: Vec<PolicyRule> = (0..RULES).map(rule).collect();
    let entries: Vec<AuthPolicyEntry> = rules
        .chunks(50)
        .enumerate()
        .map(|(at, rules)| AuthPolicyEntry {
            name: format!("team/policy-{at}"),
            valid: true,
            targets: vec![PolicyTarget {
                kind: "Gateway".into(),
                name: "infra/gw".into(),
                port: None,
            }],
            rules: rules.to_vec(),
            ..AuthPolicyEntry::default()
        })
        .collect();
    Policies::new(&entries, false)
}

fn names() -> Vec<(String, String)> {
    let name = |at: usize| (format!("team/server-{}", at % SERVERS), format!("tool_{at}"));
    (0..TOOLS).map(name).collect()
}

fn decide_all(criterion: &mut Criterion) {
    let names = names();
    let claims: Claims =
        json!({"iss": "me", "sub": "me", "groups": ["everybody", "group-7", "x"], "scope": "a b"})
            .as_object()
            .unwrap()
            .clone();
    let request = Request {
        claims: Some(&claims),
        purpose: Purpose::Call(r#"{"path":"/srv/me/notes.txt","limit":10}"#),
        ..Request::default()
    };
    let mut one = |name: &str, policies: &Policies| {
        let mut at = 0;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                at = (at + 7919) % TOOLS;
                let (server, tool) = &names[at];
                let item = Item {
                    kind: ItemKind::Tool,
                    server,
                    name: tool,
                    annotations: None,
                };
                black_box(policies.decide(black_box(&request), &item)).permits()
            });
        });
    };
    one("call, no policy (baseline)", &Policies::default());
    one("call, 1000 rules, 10000 tools", &policies(""));
    one(
        "call, 1000 rules with a condition on claims, 10000 tools",
        &policies("claims.sub == 'me'"),
    );
    one(
        "call, 1000 rules with a condition on arguments, 10000 tools",
        &policies("arguments.path.startsWith('/srv/' + claims.sub + '/')"),
    );
}

criterion_group!(benches, decide_all);
criterion_main!(benches);
