//! Flame graphs of the gateway under load: as router, as front behind Envoy and alone, and as the broker that lists.

use std::{path::PathBuf, time::Duration};

use serde_json::json;

use super::{
    calls,
    load::Pace,
    session,
    stage::{Setting, Stage},
};
use crate::{profile::Recording, report::Row};

const CONNECTIONS: usize = 16;

/// Options of `bench profile`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds of load for each.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Where the graphs go.
    #[arg(long, default_value = "target/profile")]
    folder: PathBuf,
}

/// Records each and says where the graphs are.
///
/// # Errors
/// When a process does not start, or perf does not record.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting::default()).await?;
    let (call, nothing) = (calls::call("s0_tool_1"), json!({}));
    let mut rows = Vec::new();
    for (name, program, to, what) in [
        ("router", "router", stage.at.gateway, ("tools/call", &call)),
        (
            "front-behind-envoy",
            "front",
            stage.at.direct,
            ("tools/call", &call),
        ),
        ("front-standalone", "front", stage.at.front, ("tools/call", &call)),
        ("broker", "router", stage.at.gateway, ("tools/list", &nothing)),
    ] {
        let shots = session::requests(to, CONNECTIONS, None, what).await?;
        let recording = Recording::start(stage.program(program)?.id()?, &arguments.folder, name)?;
        stage
            .load(shots, Duration::from_secs(arguments.seconds), Pace::Closed)
            .await?;
        rows.extend(recording.finish().await?);
    }
    Ok(rows)
}
