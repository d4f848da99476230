//! The wire shapes of data-plane.md 15.2 and 4.4 as files in `tests/goldens`, byte for byte but for what differs from run to
//! run. `UPDATE_GOLDENS=1` writes them anew; what changes then is a change for every client.

use crate::fixture::Server;
use crate::relays::Events;
use crate::world::{World, config, entry, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The text with the values of these string members masked.
fn masked(text: &str, members: &[&str]) -> String {
    // Who terminates TLS says which scheme it was.
    let mut text = text
        .replace(mcp_gateway_broker::VERSION, "<build>")
        .replace("http://mcp.test", "https://mcp.test");
    for member in members {
        let begin = format!("\"{member}\":\"");
        let mut rest = text.as_str();
        let mut out = String::new();
        while let Some(at) = rest.find(&begin) {
            let (before, after) = rest.split_at(at + begin.len());
            out.push_str(before);
            out.push_str("…\"");
            rest = after.split_once('"').unwrap().1;
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// Holds a text against its file.
fn golden(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens")
        .join(name);
    let text = format!("{}\n", text.trim_end());
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "{name}: UPDATE_GOLDENS=1 writes it anew");
}

/// Two servers of which the older one owns a name of the younger, and one that wants a token of the person.
async fn world() -> (Arc<Server>, Arc<Server>, World) {
    let [weather, older, locked] = [
        Server::start("weather", &[]).await,
        Server::start("older", &["now"]).await,
        Server::start("locked", &["open"]).await,
    ];
    weather.tools.lock().unwrap().extend([
        json!({"name": "forecast", "title": "Forecast", "inputSchema": {"type": "object", "properties": {"day": {"type": ["string", "null"]}}}, "annotations": {"readOnlyHint": true}, "x": 1}),
        json!({"name": "now", "inputSchema": {"type": "object"}}),
        json!({"name": "bad", "inputSchema": {"type": "string"}}),
    ]);
    weather
        .resources
        .lock()
        .unwrap()
        .push(json!({"uri": "file:///map", "name": "map"}));
    let text = config(&[
        entry(&weather, "weather_").replace("2026-01", "2026-02"),
        entry(&older, "weather_"),
        entry(&locked, "locked_").replace("}\n", ", tokenURLElicitation: {url: ''}}\n"),
    ]);
    let flags = [
        "--enable-url-elicitation=true",
        "--discovery-tools-enabled=true",
        "env:OAUTH_RESOURCE_NAME=Production MCP Server",
        "env:OAUTH_AUTHORIZATION_SERVERS=https://keycloak.example.com/realms/mcp",
        "env:OAUTH_SCOPES_SUPPORTED=basic,read,write",
    ];
    let world = World::start_with(&text, &[&weather, &older, &locked], &flags).await;
    (weather, older, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d41_the_shapes_on_the_wire_are_the_golden_files() {
    let (weather, _older, world) = world().await;
    let client = world.client().able(json!({"elicitation": {"url": {}}})).await;
    let listed = eventually("the lists of all servers", || async {
        let reply = client.rpc("tools/list", json!({})).await;
        ["weather_forecast", "weather_now", "locked_open"]
            .iter()
            .all(|name| reply.text.contains(name))
            .then_some(reply.text)
    });
    golden("tools-list.json", &listed.await);
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let opened = world.client().rpc("initialize", params).await;
    golden("initialize.json", &masked(&opened.text, &[]));
    let token = opened.header("mcp-session-id").unwrap();
    let decoded: Vec<String> = token
        .split('.')
        .take(2)
        .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let names: Vec<&str> = decoded[1]
        .split("\":")
        .filter_map(|part| part.rsplit('"').next())
        .filter(|name| !name.ends_with('}'))
        .collect();
    golden(
        "session-token.txt",
        &format!("{}\n{}", decoded[0], names.join(" ")),
    );
    let oauth = client.request(Method::GET, "/.well-known/oauth-protected-resource/mcp");
    golden(
        "oauth-metadata.json",
        &masked(&client.send(oauth).await.text, &[]),
    );
    let status = reqwest::get(format!("http://{}/status", world.broker))
        .await
        .unwrap();
    let times = ["lastValidated", "timestamp", "loadedAt", "hash", "replica"];
    golden("status.json", &masked(&status.text().await.unwrap(), &times));
    let mut events = Events::of(
        client
            .request(Method::GET, "/mcp")
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap(),
    );
    let first = events.block().await;
    weather.tools.lock().unwrap().remove(0);
    weather.notify("notifications/tools/list_changed");
    let notice = events.block().await;
    let notice = notice.replace(
        notice.lines().find(|line| line.starts_with("id: ")).unwrap(),
        "id: …",
    );
    golden("stream.txt", &format!("{first}\n\n{notice}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d30_the_shapes_of_errors_are_the_golden_files() {
    let (_weather, _older, world) = world().await;
    let client = world.client().able(json!({"elicitation": {"url": {}}})).await;
    eventually("the tool of the locked server", || async {
        client
            .tools()
            .await
            .contains(&"locked_open".to_owned())
            .then_some(())
    })
    .await;
    let unknown = r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"nope"}}"#;
    let reply = client.post(unknown).await;
    golden("unknown-tool.json", &format!("{}\n{}", reply.status, reply.text));
    let mut dead = world.client();
    dead.session = Some("bad".to_owned());
    let reply = dead.call("weather_now").await;
    golden("dead-session.json", &format!("{}\n{}", reply.status, reply.text));
    let reply = client.call("locked_open").await;
    let id = reply.json()["error"]["data"]["elicitations"][0]["elicitationId"].clone();
    let text = reply.text.replace(id.as_str().unwrap(), "<uuid>");
    golden(
        "url-elicitation.json",
        &format!("{}\n{}", reply.status, masked(&text, &[])),
    );
    let stateless = |name: &str, id: &str| {
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let (method, more) = match name {
            "" => ("tools/list", ""),
            _ => ("tools/call", r#","name":"weather_now","arguments":{}"#),
        };
        let request = client
            .request(Method::POST, "/mcp/stateless")
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .header("x-mcp-virtualserver", "ns/nothing")
            .header("mcp-name", name);
        request.body(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{meta}{more}}}}}"#
        ))
    };
    let reply = client.send(stateless("weather_other", "7")).await;
    golden(
        "header-mismatch.json",
        &format!("{}\n{}", reply.status, reply.text),
    );
    let reply = client.send(stateless("", "\"a\"")).await;
    golden("stateless-list.json", &masked(&reply.text, &[]));
}
