//! Sessions of clients: opened as a client opens them, then used by the load.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use super::load::{Connection, Shot};

/// The revision of session-based clients.
const REVISION: &str = "2025-11-25";

/// Opens a session at `to` and returns its id. `bearer` is the caller's token, when there is one.
pub(crate) async fn open(
    connection: &mut Connection,
    to: SocketAddr,
    bearer: Option<&str>,
) -> anyhow::Result<String> {
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}});
    let shot = with_bearer(
        Shot::new(
            to,
            "/mcp",
            &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}),
        ),
        bearer,
    );
    let answer = connection.shoot(&shot).await.context("initialize")?;
    let session = answer
        .headers
        .get("mcp-session-id")
        .context("initialize gave no session")?
        .to_str()?
        .to_owned();
    let mut accepted = with_bearer(
        Shot::new(
            to,
            "/mcp",
            &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        ),
        bearer,
    )
    .with("mcp-session-id", &session);
    accepted.expected = b"";
    connection
        .shoot(&accepted)
        .await
        .context("notifications/initialized")?;
    Ok(session)
}

/// A request in a session.
pub(crate) fn request(
    to: SocketAddr,
    session: &str,
    bearer: Option<&str>,
    (method, params): (&str, &Value),
) -> Shot {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    with_bearer(
        Shot::new(to, "/mcp", &body).with("mcp-session-id", session),
        bearer,
    )
}

/// One session for each of `count` connections, and the same request for each.
pub(crate) async fn requests(
    to: SocketAddr,
    count: usize,
    bearer: Option<&str>,
    what: (&str, &Value),
) -> anyhow::Result<Vec<Shot>> {
    let mut connection = Connection::open(to).await?;
    let mut shots = Vec::with_capacity(count);
    for _ in 0..count {
        let session = open(&mut connection, to, bearer).await?;
        let shot = request(to, &session, bearer, what);
        // The first one opens the session with the server, which is measured elsewhere.
        connection.shoot(&shot).await?;
        shots.push(shot);
    }
    Ok(shots)
}

fn with_bearer(shot: Shot, bearer: Option<&str>) -> Shot {
    match bearer {
        Some(token) => shot.with("authorization", &format!("Bearer {token}")),
        None => shot,
    }
}
