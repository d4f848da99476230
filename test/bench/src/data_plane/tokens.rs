//! Calls with a verified token and 1,000 policy rules, against calls without (P12), and with a shared store (P11).

use std::{net::SocketAddr, process::Stdio};

use anyhow::Context;
use mcp_gateway_kit::Program;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{
    Plan,
    calls::{Case, measure, median},
    session,
    stage::{Setting, Stage, free, listening},
};
use crate::report::{Quantity, Row, Target};

/// The key and the token (valid until 2030) of the guide `docs/guides/authorize-tools.md`.
const JWK: &str = r#"{"use":"sig","kty":"EC","kid":"XhO06x8JjWH1wwkWkyeEUxsooGEWoEdidEpwyd_hmuI","crv":"P-256","alg":"ES256","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;
pub(super) const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w";

const CONNECTIONS: usize = 16;
const RULES: usize = 1_000;

/// A config whose policy has `rules` rules: all but the last are about other servers, the last lets the token's subject use
/// `resource`.
pub(super) fn config(rules: usize, resource: &str) -> Value {
    let rule = |number: usize| {
        let resource = if number + 1 == rules {
            resource.to_owned()
        } else {
            format!("team-{}/server:tool_{number}", number % 50)
        };
        json!({"name": format!("rule-{number}"), "effect": "Allow", "matches": [{"claim": "sub", "values": ["me"]}], "kind": "tool", "resource": resource})
    };
    json!({
        "virtualServers": [],
        "authRequired": true,
        "authPolicies": [{
            "name": "bench/policy", "generation": 1, "valid": true, "targets": [{"kind": "Gateway", "name": "bench/gw"}],
            "defaultAction": "Deny",
            "providers": [{"name": "p", "issuer": "me", "audiences": ["me.com"], "jwks": JWK}],
            "rules": (0..rules).map(rule).collect::<Vec<_>>(),
        }],
    })
}

/// P11 and P12.
pub(super) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let open = Stage::set(Setting::default()).await?;
    let mut rows = with_store(plan, &open).await?;
    rows.extend(with_policy(plan, &open).await?);
    Ok(rows)
}

/// P11: two stages take turns, one with a session store in Redis.
async fn with_store(plan: Plan, open: &Stage) -> anyhow::Result<Vec<Row>> {
    let redis = Redis::start().await?;
    let shared = Stage::set(Setting {
        flags: vec![format!("--cache-connection-string=redis://{}", redis.at)],
        ..Setting::default()
    })
    .await?;
    let pairs = [
        ("ExtProc", open.at.gateway, shared.at.gateway),
        ("standalone", open.at.front, shared.at.front),
    ];
    let mut rows = Vec::new();
    for (name, without, with) in pairs {
        let measured = turns(plan, (open, without, None), (&shared, with, None)).await?;
        rows.push(row(format!("P11 with Redis / without, {name}"), measured, 0.8));
    }
    Ok(rows)
}

/// P12: two stages take turns, one with a policy.
async fn with_policy(plan: Plan, open: &Stage) -> anyhow::Result<Vec<Row>> {
    let closed = Stage::set(Setting {
        config: config(RULES, "bench/s0:tool_1"),
        ..Setting::default()
    })
    .await?;
    let pairs = [
        ("ExtProc", open.at.gateway, closed.at.gateway),
        ("standalone", open.at.front, closed.at.front),
    ];
    let mut rows = Vec::new();
    for (name, without, with) in pairs {
        let measured = turns(plan, (open, without, None), (&closed, with, Some(TOKEN))).await?;
        rows.push(row(
            format!("P12 with a JWT and {RULES} rules / without, {name}"),
            measured,
            0.9,
        ));
    }
    Ok(rows)
}

fn row(what: String, measured: f64, least: f64) -> Row {
    let target = Target::at_least(Quantity::Ratio(measured), Quantity::Ratio(least));
    Row {
        what,
        values: String::new(),
        target: Some(target),
    }
}

/// A stage, where its clients come in, and their token.
type Side<'a> = (&'a Stage, SocketAddr, Option<&'a str>);

/// Median of the ratio of the rates of `with` and `without`, which take turns.
async fn turns(plan: Plan, without: Side<'_>, with: Side<'_>) -> anyhow::Result<f64> {
    let call = json!({"name": "s0_tool_1", "arguments": {"query": "weather"}});
    let mut cases = Vec::new();
    for (stage, to, token) in [without, with] {
        let shots = session::requests(to, CONNECTIONS, token, ("tools/call", &call)).await?;
        cases.push((
            stage,
            [Case {
                name: "one side",
                shots,
            }],
        ));
    }
    let once = Plan { rounds: 1, ..plan };
    let mut ratios = Vec::new();
    for _ in 0..plan.rounds {
        let mut rates = Vec::new();
        for (stage, case) in &cases {
            let measured = measure(stage, case, once).await?;
            rates.push(measured.first().map_or(0.0, |one| median(&one.rates)));
        }
        if let [without, with] = rates[..] {
            ratios.push(with / f64::max(without, f64::MIN_POSITIVE));
        }
    }
    Ok(median(&ratios))
}

/// A Redis server without persistence.
struct Redis {
    at: SocketAddr,
    _child: Child,
}

impl Redis {
    async fn start() -> anyhow::Result<Self> {
        let at = free()?;
        let program = Program::Redis.path().context("no Redis: run `kit build redis`")?;
        let child = Command::new(program)
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
                &at.port().to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start Redis")?;
        listening(at).await?;
        Ok(Self { at, _child: child })
    }
}
