//! 200 servers with 50 tools each: what one server's change costs, and how soon a config change is served (P10).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Plan,
    load::{Connection, Shot},
    session,
    stage::{Setting, Stage},
};
use crate::report::{Quantity, Row, Sample, Target};

const SERVERS: usize = 200;
const SOON: Duration = Duration::from_secs(30);
/// Changes that are measured.
const CHANGES: usize = 10;

/// P10.
pub(super) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::set(Setting {
        servers: SERVERS,
        ..Setting::default()
    })
    .await?;
    let to = stage.at.front;
    let mut connection = Connection::open(to).await?;
    let session = session::open(&mut connection, to, None).await?;
    let list = session::request(to, &session, None, ("tools/list", &json!({})));
    let program = stage.program("front")?;
    let changes = CHANGES.min(plan.rounds * 2);
    let before = program.cpu()?;
    for change in 1..=changes {
        let shot = Shot {
            expected: b"",
            ..Shot::new(stage.at.mock, "/change/7", &Value::Null)
        };
        Connection::open(stage.at.mock).await?.shoot(&shot).await?;
        listed(
            &mut connection,
            &call_of(&list, &format!("s7_tool_{}", 49 + change)),
        )
        .await?;
    }
    let each = program.cpu()?.saturating_sub(before) / u32::try_from(changes).unwrap_or(1).max(1);
    let mut times = Vec::new();
    for change in 0..changes {
        let begun = Instant::now();
        stage.write_servers(SERVERS + 1 + change)?;
        listed(
            &mut connection,
            &call_of(&list, &format!("s{}_tool_1", SERVERS + change)),
        )
        .await?;
        times.push(begun.elapsed());
    }
    let times = Sample::new(times);
    Ok(vec![
        Row {
            what: format!("P10 CPU of one server's change among {SERVERS}, with finding out"),
            values: "the server is listed again, and calls ask whether the tool is there".to_owned(),
            target: Some(Target::below(
                Quantity::Time(each),
                Quantity::Time(Duration::from_millis(20)),
            )),
        },
        Row {
            what: "P10 config change to served".to_owned(),
            values: times.summary(),
            target: Some(Target::below(
                Quantity::Time(times.percentile(99)),
                Quantity::Time(Duration::from_secs(1)),
            )),
        },
    ])
}

/// A call of the tool in the session of `list`.
fn call_of(list: &Shot, tool: &str) -> Shot {
    let body = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": tool, "arguments": {"query": "x"}}});
    Shot {
        body: body.to_string().into(),
        ..list.clone()
    }
}

async fn listed(connection: &mut Connection, call: &Shot) -> anyhow::Result<()> {
    let begun = Instant::now();
    while let Err(error) = connection.shoot(call).await {
        if begun.elapsed() > SOON {
            return Err(error.context("not served in time"));
        }
        // Asking costs the gateway CPU too, so not all the time.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
