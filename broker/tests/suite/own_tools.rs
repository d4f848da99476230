//! The gateway's own tools, scopes and `x-mcp-authorized` (data-plane.md 5.6, 5.7, 11.4).

use crate::client::Client;
use crate::fixture::Server;
use crate::shared_store::Pair;
use crate::world::{World, config, entry, eventually};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

const ON: &str = "--discovery-tools-enabled=true";

/// The text of a tool's answer, and whether it is an error.
async fn text(client: &Client, tool: &str, arguments: Value) -> (String, bool) {
    let reply = client
        .rpc("tools/call", json!({"name": tool, "arguments": arguments}))
        .await;
    let result = &reply.json()["result"];
    let text = result["content"][0]["text"].as_str();
    (
        text.unwrap_or_else(|| panic!("{}", reply.text)).to_owned(),
        result["isError"] == true,
    )
}

async fn two() -> [Arc<Server>; 2] {
    [
        Server::start("one", &["forecast", "now"]).await,
        Server::start("two", &["add"]).await,
    ]
}

fn described(server: &Server, prefix: &str, more: &str) -> String {
    entry(server, prefix).replace("}\n", &format!(", {more}}}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_discovered_by_server_category_and_tag_through_envoy() {
    let [one, two] = two().await;
    let config = config(&[
        described(
            &one,
            "one_",
            "category: [Weather], hint: ask for the weather, tags: [live, free]",
        ),
        described(&two, "two_", "tags: [free]"),
    ]);
    let world = World::start_with(&config, &[&one, &two], &[ON]).await;
    let client = world.client().initialized().await;
    assert_eq!(
        client.tools().await,
        [
            "discover_tools",
            "filter_tools_by_tags",
            "list_tags",
            "one_forecast",
            "one_now",
            "select_tools",
            "two_add"
        ]
    );
    let all = text(&client, "discover_tools", json!({})).await.0;
    assert_eq!(
        all,
        r#"{"servers":[{"name":"ns/one","categories":["Weather"],"hint":"ask for the weather","tools":["one_forecast","one_now"]},{"name":"ns/two","categories":["uncategorised"],"tools":["two_add"]}]}"#
    );
    for (category, found) in [
        ("WEATHER", vec!["ns/one"]),
        ("uncategorised", vec!["ns/two"]),
        ("x", vec![]),
    ] {
        let text = text(&client, "discover_tools", json!({"category": category}))
            .await
            .0;
        let servers: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = servers["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, found, "{category}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_found_by_all_of_some_tags() {
    let [one, two] = two().await;
    let config = config(&[
        described(&one, "one_", "tags: [live, free]"),
        described(&two, "two_", "tags: [free]"),
    ]);
    let world = World::start_with(&config, &[&one, &two], &[ON]).await;
    let client = world.client().initialized().await;
    assert_eq!(
        text(&client, "list_tags", json!({})).await.0,
        r#"["free","live"]"#
    );
    for (tags, found) in [
        (json!(["free"]), 3),
        (json!(["free", "live"]), 2),
        (json!(["other"]), 0),
    ] {
        let tools: Value = serde_json::from_str(
            &text(&client, "filter_tools_by_tags", json!({"tags": tags}))
                .await
                .0,
        )
        .unwrap();
        assert_eq!(tools.as_array().unwrap().len(), found, "{tags}");
        assert!(
            tools
                .as_array()
                .unwrap()
                .iter()
                .all(|tool| tool["inputSchema"].is_object())
        );
    }
    for (arguments, error) in [
        (json!({}), "missing required parameter: tags"),
        (json!({"tags": "free"}), "tags must be an array"),
        (json!({"tags": []}), "tags must not be empty"),
        (json!({"tags": [7]}), "tags must be an array of strings"),
        (json!({"tags": [""]}), "tags must not contain empty strings"),
    ] {
        assert_eq!(
            text(&client, "filter_tools_by_tags", arguments).await,
            (error.to_owned(), true)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s21_no_server_takes_over_a_name_of_the_gateway() {
    let one = Server::start("one", &["discover_tools", "other"]).await;
    let world = World::start_with(&config(&[entry(&one, "")]), &[&one], &[ON]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["discover_tools", "other", "select_tools"]);
    assert!(
        text(&client, "discover_tools", json!({}))
            .await
            .0
            .contains(r#""tools":["other"]"#)
    );
    let status = world.status_of("one").await;
    assert_eq!(
        (&status["ready"], &status["conflicts"][0]["owner"]),
        (&json!(true), &json!("mcpBroker"))
    );
    assert!(one.calls("tools/call").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_discovery_the_tools_are_not_there() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start(&[(&one, "one_")], &["--discovery-tools-enabled=false"]).await;
    let client = world.client().initialized().await;
    assert_eq!(client.tools().await, ["one_forecast"]);
    assert_eq!(client.call("discover_tools").await.error().0, -32602);
}

/// Waits for the next notice on a session's stream.
async fn next_notice(
    stream: &mut (impl futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin),
) -> String {
    let mut text = String::new();
    while !text.contains("list_changed") {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await;
        text.push_str(&String::from_utf8_lossy(
            &chunk.expect("a notice").unwrap().unwrap(),
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d58_select_tools_on_one_replica_governs_the_list_and_stream_on_another() {
    let [one, two] = two().await;
    let pair = Pair::start(&[(&one, "one_"), (&two, "two_")], &[ON]).await;
    let first = pair.worlds[0].client().initialized().await;
    let (second, stranger) = (pair.on(1, &first), pair.worlds[1].client().initialized().await);
    let open = second
        .request(Method::GET, "/mcp")
        .header("accept", "text/event-stream");
    let mut stream = open.send().await.unwrap().bytes_stream();
    let all = [
        "discover_tools",
        "one_forecast",
        "one_now",
        "select_tools",
        "two_add",
    ];
    assert_eq!(second.tools().await, all);
    let done = text(&first, "select_tools", json!({"tools": ["two_add", "one_now"]})).await;
    assert_eq!(
        done,
        (
            r#"{"status":"scope set to 2 tools","tools":["one_now","two_add"]}"#.to_owned(),
            false
        )
    );
    for client in [&first, &second] {
        assert_eq!(
            client.tools().await,
            ["discover_tools", "one_now", "select_tools", "two_add"]
        );
    }
    assert_eq!(stranger.tools().await, all, "another session sees everything");
    let notice = next_notice(&mut stream).await;
    assert!(notice.contains("notifications/tools/list_changed"), "{notice}");
    assert_eq!(second.call("one_forecast").await.status, 200);
    assert_eq!(one.calls("tools/call").len(), 1, "the scope shapes the list only");
    for (arguments, error) in [
        (json!({"tools": ["two_add", "nope"]}), "tool not available"),
        (json!({"tools": "two_add"}), "invalid tools parameter"),
        (json!({}), "invalid tools parameter"),
        (
            json!({"tools": vec!["two_add"; 251]}),
            "too many tools requested (max 250)",
        ),
    ] {
        assert_eq!(
            text(&second, "select_tools", arguments).await,
            (error.to_owned(), true)
        );
    }
    assert_eq!(first.tools().await.len(), 4, "a refused choice changes nothing");
    let reset = text(&second, "select_tools", json!({"tools": []})).await.0;
    assert_eq!(reset, r#"{"status":"scope reset to all tools"}"#);
    assert_eq!(first.tools().await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_threshold_a_list_shows_the_gateways_tools_until_some_are_selected() {
    let [one, two] = two().await;
    for (threshold, shown) in [(3, 5), (2, 2)] {
        let flag = format!("--discovery-tool-threshold={threshold}");
        let world = World::start(&[(&one, "one_"), (&two, "two_")], &[ON, &flag]).await;
        let client = world.client().initialized().await;
        assert_eq!(client.tools().await.len(), shown, "{threshold}");
        text(&client, "select_tools", json!({"tools": ["two_add"]})).await;
        assert_eq!(
            client.tools().await,
            ["discover_tools", "select_tools", "two_add"]
        );
        eventually("the status", || async {
            (world.status().await["scopedSessions"] == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_server_hides_the_gateways_tools_that_it_does_not_list() {
    let [one, two] = two().await;
    let config = config(&[entry(&one, "one_"), entry(&two, "two_")]).replace(
        "virtualServers: []",
        "virtualServers: [{name: ns/v, tools: [discover_tools, one_now]}]",
    );
    let world = World::start_with(&config, &[&one, &two], &[ON]).await;
    let client = world
        .client()
        .initialized()
        .await
        .with("x-mcp-virtualserver", "ns/v");
    assert_eq!(client.tools().await, ["discover_tools", "one_now"]);
    let found = text(&client, "discover_tools", json!({})).await.0;
    assert!(
        found.contains(r#""tools":["one_now"]"#) && !found.contains("two"),
        "{found}"
    );
    assert_eq!(client.call("select_tools").await.error().0, -32602);
}

/// A key of whoever sets `x-mcp-authorized`.
struct Issuer(ring::signature::EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair};
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&P256, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&P256, pkcs8.as_ref(), &random).unwrap())
    }

    /// The variable of the environment with its public key.
    fn variable(&self) -> String {
        use base64::Engine as _;
        use ring::signature::KeyPair as _;
        let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        let spki = [prefix.as_slice(), self.0.public_key().as_ref()].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(spki);
        format!(
            "env:TRUSTED_HEADER_PUBLIC_KEY=-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
        )
    }

    fn allow(&self, allowed: &Value) -> String {
        use base64::Engine as _;
        let encode = |text: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let claims = json!({"allowed-capabilities": allowed.to_string()}).to_string();
        let signed = format!(
            "{}.{}",
            encode(br#"{"alg":"ES256","typ":"JWT"}"#),
            encode(claims.as_bytes())
        );
        let signature = self
            .0
            .sign(&ring::rand::SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d55_s9_the_trusted_header_filters_lists_and_calls_and_keeps_own_tools_and_order() {
    let [one, two] = two().await;
    *two.prompts.lock().unwrap() = vec![json!({"name": "ask"})];
    let issuer = Issuer::new();
    let variable = issuer.variable();
    for enforce in [false, true] {
        let flag = format!("--enforce-capability-filtering={enforce}");
        let world = World::start(&[(&one, "one_"), (&two, "two_")], &[ON, &variable, &flag]).await;
        let client = world.client().initialized().await;
        let everything = client.tools().await;
        assert_eq!(everything.is_empty(), enforce, "{everything:?}");
        let header = issuer.allow(&json!({"tools": {"ns/one": ["now", "nope"], "ns/gone": ["x"]}}));
        let filtered = client.clone().with("x-mcp-authorized", header.clone());
        assert_eq!(
            filtered.tools().await,
            ["discover_tools", "one_now", "select_tools"]
        );
        let prompts = filtered.names("prompts/list", "prompts", "name").await;
        assert_eq!(
            prompts.is_empty(),
            enforce,
            "a kind that is not named: {prompts:?}"
        );
        let calls = one.calls("tools/call").len() + two.calls("tools/call").len();
        assert_eq!(filtered.call("one_now").await.status, 200);
        for hidden in ["one_forecast", "two_add", "nope"] {
            let (code, message) = filtered.call(hidden).await.error();
            assert_eq!((code, message), (-32602, format!("Unknown tool: {hidden}")));
        }
        assert_eq!(
            one.calls("tools/call").len() + two.calls("tools/call").len(),
            calls + 1
        );
        let twice = filtered.clone().with("x-mcp-authorized", header);
        let forged = client
            .clone()
            .with("x-mcp-authorized", Issuer::new().allow(&json!({})));
        for nothing in [&twice, &forged] {
            assert!(nothing.tools().await.is_empty());
            assert_eq!(nothing.call("one_now").await.error().0, -32602);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_and_the_trusted_header_let_pass_only_what_both_allow() {
    let one = Server::start("one", &["a_x", "b_x", "c"]).await;
    let issuer = Issuer::new();
    let variable = issuer.variable();
    let policy = crate::access::with_policy(&[(&one, "one_")], "me", "ns/one:*_x");
    let world = World::start_with(&policy, &[&one], &[&variable]).await;
    let client = crate::access::bearer(&world).initialized().await;
    eventually("what the policy allows", || async {
        (client.tools().await == ["one_a_x", "one_b_x"]).then_some(())
    })
    .await;
    let header = issuer.allow(&json!({"tools": {"ns/one": ["b_x", "c"]}}));
    let both = client.with("x-mcp-authorized", header);
    assert_eq!(both.tools().await, ["one_b_x"]);
    assert!(both.call("one_b_x").await.json()["result"].is_object());
    for hidden in ["one_a_x", "one_c"] {
        assert_eq!(
            both.call(hidden).await.error(),
            (-32602, format!("Unknown tool: {hidden}"))
        );
    }
}
