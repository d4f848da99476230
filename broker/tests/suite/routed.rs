//! What reaches servers beside calls of tools (data-plane.md 4.5, 10.2; D33, D34).

use crate::fixture::Server;
use crate::world::{World, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_and_resources_are_routed_as_tools_are() {
    let one = Server::start("one", &["forecast"]).await;
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    one.resources
        .lock()
        .unwrap()
        .push(json!({"uri": "ui://x", "name": "x"}));
    let world = World::start(&[(&one, "one_")], &[]).await;
    let client = world.client().initialized().await;
    assert_eq!(
        client.names("prompts/list", "prompts", "name").await,
        ["one_greet"]
    );
    assert_eq!(
        client.names("resources/list", "resources", "uri").await,
        ["ui://x"]
    );
    assert_eq!(
        client
            .rpc("prompts/get", json!({"name": "one_greet"}))
            .await
            .status,
        200
    );
    let seen = one.calls("prompts/get").pop().unwrap();
    assert!(String::from_utf8_lossy(&seen.body).contains(r#""name":"greet""#));
    for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
        let reply = client.rpc(method, json!({"uri": "ui://x"})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(one.calls(method).len(), 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d34_completions_reach_the_server_of_their_reference() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    one.prompts.lock().unwrap().push(json!({"name": "greet"}));
    one.templates
        .lock()
        .unwrap()
        .push(json!({"uriTemplate": "file:///{name}", "name": "f"}));
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    assert_eq!(other.call("one_forecast").await.status, 200);
    let argument = json!({"name": "x", "value": "y"});
    let reply = client
        .rpc(
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "one_greet"}, "argument": argument}),
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body: serde_json::Value =
        serde_json::from_slice(&one.calls("completion/complete").pop().unwrap().body).unwrap();
    assert_eq!(
        body["params"],
        json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": argument})
    );
    let template = json!({"ref": {"type": "ref/resource", "uri": "file:///{name}"}, "argument": argument});
    assert_eq!(client.rpc("completion/complete", template).await.status, 200);
    assert_eq!(one.calls("completion/complete").len(), 2);
    for bad in [
        json!({"type": "ref/prompt", "name": "nope"}),
        json!({"type": "ref/none"}),
        json!(7),
    ] {
        let reply = client
            .rpc("completion/complete", json!({"ref": bad, "argument": argument}))
            .await;
        assert_eq!((reply.status, reply.error().0), (200, -32602), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d33_d34_level_and_cancellation_reach_the_servers_of_the_session() {
    let (one, two) = (
        Server::start("one", &["forecast"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let world = World::start(&[(&one, "one_"), (&two, "two_")], &[]).await;
    let (client, other) = (
        world.client().initialized().await,
        world.client().initialized().await,
    );
    assert_eq!(other.call("one_forecast").await.status, 200);
    assert_eq!(client.call("one_forecast").await.status, 200);
    assert_eq!(
        client
            .rpc("logging/setLevel", json!({"level": "loud"}))
            .await
            .error()
            .0,
        -32602
    );
    assert_eq!(
        client
            .rpc("logging/setLevel", json!({"level": "warning"}))
            .await
            .text
            .trim_end(),
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#
    );
    eventually("the level at the open session", || async {
        (one.calls("logging/setLevel").len() == 1).then_some(())
    })
    .await;
    assert_eq!(client.call("two_forecast").await.status, 200);
    eventually("the level at the later session", || async {
        (two.calls("logging/setLevel").len() == 1).then_some(())
    })
    .await;
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9007199254740993}}"#;
    assert_eq!(client.post(cancel).await.status, 202);
    for server in [&one, &two] {
        let seen = eventually("the cancellation", || async {
            server.calls("notifications/cancelled").pop()
        })
        .await;
        assert_eq!(seen.body, cancel);
        let own = server
            .calls("completion/complete")
            .first()
            .or(server.calls("tools/call").last())
            .unwrap()
            .header("mcp-session-id")
            .map(str::to_owned);
        assert_eq!(
            seen.header("mcp-session-id"),
            own.as_deref(),
            "only the caller's own session"
        );
        assert_eq!(server.calls("notifications/cancelled").len(), 1);
    }
}
