//! tools/list of 10, 200 and 2,000 tools, whole, filtered by a virtual server and by a policy (P6), against the same bytes
//! served by axum.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    Plan,
    calls::median,
    load::{Connection, Pace, Shot, copies},
    session,
    stage::{Program, Setting, Stage, free, listening},
    tokens,
};
use crate::report::{Quantity, Row, Target};

const CONNECTIONS: usize = 16;

/// Who filters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    Nobody,
    VirtualServer,
    Policy,
}

impl Filter {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "whole",
            Self::VirtualServer => "by virtual server",
            Self::Policy => "by policy",
        }
    }

    /// What the config says: the virtual server names every tool, the policy allows them by name.
    fn config(self, tools: usize) -> Value {
        let names: Vec<String> = (0..tools).map(|number| format!("s0_tool_{number}")).collect();
        match self {
            Self::Nobody => json!({"virtualServers": []}),
            Self::VirtualServer => json!({"virtualServers": [{"name": "bench/all", "tools": names}]}),
            Self::Policy => tokens::config(1, "bench/s0:*"),
        }
    }
}

/// P6.
pub(super) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tools in [10, 200, 2_000] {
        for filter in [Filter::Nobody, Filter::VirtualServer, Filter::Policy] {
            rows.extend(one(plan, tools, filter).await?);
        }
    }
    Ok(rows)
}

async fn one(plan: Plan, tools: usize, filter: Filter) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting {
        tools,
        config: filter.config(tools),
        ..Setting::default()
    })
    .await?;
    let shot = list(stage.at.front, filter).await?;
    let body = Connection::open(shot.to).await?.shoot(&shot).await?.body;
    let listed = serde_json::from_slice::<Value>(&body)?
        .pointer("/result/tools")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let folder = tempfile::tempdir()?;
    let (address, _still) = serving(folder.path(), &body).await?;
    let same = Shot {
        to: address,
        ..shot.clone()
    };
    let (mut ratios, mut spent, mut count) = (Vec::new(), Duration::ZERO, 0u64);
    for _ in 0..plan.rounds {
        let load = |shot: &Shot| stage.load(copies(shot, CONNECTIONS), plan.load, Pace::Closed);
        let (baseline, _) = load(&same).await?;
        let (load, cpu) = load(&shot).await?;
        ratios.push(load.rate() / baseline.rate().max(f64::MIN_POSITIVE));
        spent += cpu.get("front").copied().unwrap_or_default();
        count += load.latencies.len();
    }
    let each = spent / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let size = format!("{listed} listed, {} bytes", body.len());
    Ok(rows(tools, filter, (size, median(&ratios), each)))
}

fn rows(tools: usize, filter: Filter, (size, ratio, cpu): (String, f64, Duration)) -> Vec<Row> {
    let what = format!("P6 tools/list, {tools} tools, {}", filter.name());
    let mut rows = vec![Row {
        what: format!("{what} / static"),
        values: format!("{size}, CPU {}", Quantity::Time(cpu)),
        target: Some(Target::at_least(Quantity::Ratio(ratio), Quantity::Ratio(0.8))),
    }];
    if tools == 2_000 {
        let limit = Quantity::Time(Duration::from_millis(1));
        rows.push(Row {
            what: format!("{what}, CPU"),
            values: String::new(),
            target: Some(Target::below(Quantity::Time(cpu), limit)),
        });
    }
    rows
}

/// The request for the list, in a session of its own.
async fn list(to: SocketAddr, filter: Filter) -> anyhow::Result<Shot> {
    let bearer = (filter == Filter::Policy).then_some(tokens::TOKEN);
    let mut connection = Connection::open(to).await?;
    let session = session::open(&mut connection, to, bearer).await?;
    let shot = session::request(to, &session, bearer, ("tools/list", &json!({})));
    Ok(if filter == Filter::VirtualServer {
        shot.with("x-mcp-virtualserver", "bench/all")
    } else {
        shot
    })
}

/// A server of these bytes.
async fn serving(folder: &Path, bytes: &[u8]) -> anyhow::Result<(SocketAddr, Program)> {
    let file = folder.join("answer");
    std::fs::write(&file, bytes)?;
    let address = free()?;
    let (at, file) = (address.to_string(), file.display().to_string());
    let arguments = ["static", "--listen", &at, "--file", &file].map(str::to_owned);
    let program = Program::own(folder, "static", &arguments)?;
    listening(address).await?;
    Ok((address, program))
}
