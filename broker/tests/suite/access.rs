//! Who may call what, through Envoy: tokens, policies, lists and calls by one decision (operator.md 10,
//! data-plane.md 11). Key and token are those of the user's guide to policies.

use crate::client::Client;
use crate::fixture::Server;
use crate::remote_keys::Signer;
use crate::world::{World, config, entry, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

pub const JWK: &str = r#"{"use":"sig","kty":"EC","kid":"XhO06x8JjWH1wwkWkyeEUxsooGEWoEdidEpwyd_hmuI","crv":"P-256","alg":"ES256","x":"XZHF8Em5LbpqfgewAalpSEH4Ka2I2xjcxxUt2j6-lCo","y":"g3DFz45A7EOUMgmsNXatrXw1t-PG5xsbkxUs851RxSE"}"#;
pub const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6IlhoTzA2eDhKaldIMXd3a1dreWVFVXhzb29HRVdvRWRpZEVwd3lkX2htdUkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJtZS5jb20iLCJleHAiOjE5MDA2NTAyOTQsImlhdCI6MTc0MzYyNDc4NywiaXNzIjoibWUiLCJqdGkiOiJlM2MzNjhkYzBmNGUyODdiYzhkYmM2OTIyOTU5ZTA3M2YzMThkNTliYTlhZjdhY2Q0N2ViMWUzZGIyOTZlYTQwIiwibmJmIjoxNzQzNjI0Nzg3LCJzdWIiOiJtZSJ9.IshAKo62yWHwfnt62vR1nfa4SQmpSB-4ceAMXWs1P_rREl2gYj6nJ7HwLM5avv_eyOFbI-3rRZzCMCuNVLAF5w";

/// A config whose policy on the Gateway lets `sub: <sub>` use `resource`.
pub fn with_policy(servers: &[(&Arc<Server>, &str)], sub: &str, resource: &str) -> String {
    let entries: Vec<String> = servers
        .iter()
        .map(|(server, prefix)| entry(server, prefix))
        .collect();
    format!(
        "{}authRequired: true
authPolicies:
- name: ns/policy
  generation: 1
  valid: true
  targets: [{{kind: Gateway, name: ns/gw}}]
  defaultAction: Deny
  providers: [{{name: p, issuer: me, audiences: [me.com], jwks: '{JWK}'}}]
  rules: [{{name: r, effect: Allow, matches: [{{claim: sub, values: [{sub}]}}], kind: tool, resource: '{resource}'}}]
",
        config(&entries)
    )
}

pub fn bearer(world: &World) -> Client {
    world.client().with("authorization", format!("Bearer {TOKEN}"))
}

async fn tools(client: &Client) -> Vec<String> {
    client.names("tools/list", "tools", "name").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_calls_follow_the_policy_and_its_change_needs_no_new_session() {
    let (one, two) = (
        Server::start("one", &["forecast", "history"]).await,
        Server::start("two", &["forecast"]).await,
    );
    let both = [(&one, "one_"), (&two, "two_")];
    let world = World::start_with(&with_policy(&both, "me", "ns/one:forecast"), &[&one, &two], &[]).await;
    let client = bearer(&world).initialized().await;
    eventually("the one tool", || async {
        (tools(&client).await == ["one_forecast"]).then_some(())
    })
    .await;
    assert_eq!(client.call("one_forecast").await.status, 200);
    let hidden = client.call("two_forecast").await;
    let unknown = client.call("no_such_tool").await;
    assert_eq!(hidden.error(), (-32602, "Unknown tool: two_forecast".to_owned()));
    assert_eq!((hidden.status, unknown.status), (200, 200));
    assert!(
        two.calls("tools/call").is_empty(),
        "nothing reached the other server"
    );

    world.write_config(&with_policy(&both, "me", "ns/*:forecast"));
    eventually("both servers' tool", || async {
        (tools(&client).await == ["one_forecast", "two_forecast"]).then_some(())
    })
    .await;
    assert_eq!(client.call("two_forecast").await.status, 200);

    world.write_config(&with_policy(&both, "somebody-else", "*"));
    eventually("nothing", || async {
        tools(&client).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(client.call("one_forecast").await.error().0, -32602);
}

/// All names of the list, page by page.
async fn paged(client: &Client) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let params = cursor.map_or(json!({}), |cursor: Value| json!({"cursor": cursor}));
        let page = client.rpc("tools/list", params).await.json()["result"].take();
        let tools = page["tools"].as_array().unwrap();
        assert!(tools.len() <= 2, "{page}");
        names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
        match page.get("nextCursor") {
            Some(next) => cursor = Some(next.clone()),
            None => return names,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_kept_for_one_person_are_shown_to_no_other() {
    let names = ["a", "b", "c", "d", "e"];
    let one = Server::start("one", &names).await;
    let signer = Signer::new("k");
    let rules = |mine: &str| {
        with_policy(&[(&one, "")], "me", mine)
            .replace(JWK, &signer.jwk.to_string())
            .replace(
                "rules: [",
                "rules: [{name: o, effect: Allow, matches: [{claim: sub, values: [other]}], kind: tool, resource: 'ns/one:e'}, ",
            )
    };
    let world = World::start_with(&rules("*"), &[&one], &["--page-size=2"]).await;
    let of = async |sub: &str| {
        let token = format!("Bearer {}", signer.token_of(sub));
        world.client().with("authorization", token).initialized().await
    };
    let (mine, other, nobody) = (of("me").await, of("other").await, of("nobody").await);
    eventually("the tools", || async {
        (paged(&mine).await == names).then_some(())
    })
    .await;
    for _ in 0..2 {
        assert_eq!(paged(&mine).await, names);
        assert_eq!(paged(&other).await, ["e"]);
        assert!(tools(&nobody).await.is_empty());
    }
    let first = mine.rpc("tools/list", json!({})).await.json();
    let stolen = json!({"cursor": first["result"]["nextCursor"]});
    assert_eq!(other.rpc("tools/list", stolen).await.error().0, -32602);
    world.write_config(&rules("ns/one:c"));
    eventually("the edit", || async {
        (paged(&mine).await == ["c"]).then_some(())
    })
    .await;
    assert_eq!(paged(&other).await, ["e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_token_the_answer_is_401_with_a_challenge() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start_with(&with_policy(&[(&one, "one_")], "me", "*"), &[&one], &[]).await;
    let initialize = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let refused = world.client().rpc("initialize", initialize.clone()).await;
    let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
    assert_eq!(
        (refused.status, refused.error()),
        (401, (-32001, "unauthorized".to_owned()))
    );
    assert!(
        challenge.contains("://mcp.test/.well-known/oauth-protected-resource/mcp\""),
        "{challenge}"
    );
    let tampered = world.client().with("authorization", format!("Bearer {TOKEN}x"));
    let refused = tampered.rpc("initialize", initialize.clone()).await;
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .header("www-authenticate")
            .unwrap()
            .contains("error=\"invalid_token\", error_description=\"the issuer's keys do not verify")
    );
    let foreign = tampered.with("origin", "https://evil.example");
    let refused = foreign.rpc("initialize", initialize).await;
    assert_eq!(refused.status, 403, "the Origin is judged before the token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_does_not_replace_the_token_and_a_token_in_the_query_is_none() {
    let one = Server::start("one", &["forecast"]).await;
    let world = World::start_with(&with_policy(&[(&one, "one_")], "me", "*"), &[&one], &[]).await;
    let session = bearer(&world).initialized().await.session;
    for method in [Method::GET, Method::DELETE, Method::POST] {
        let mut anonymous = world.client();
        anonymous.session.clone_from(&session);
        let reply = anonymous
            .request(method.clone(), "/mcp")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 401, "{method}");
    }
    let in_query = world
        .client()
        .request(Method::POST, &format!("/mcp?access_token={TOKEN}"))
        .header("content-type", "application/json")
        .body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(in_query.status(), 401);
    // Preflights and the metadata are open; here there is nothing to point to, because the issuer is no URL.
    let preflight = world
        .client()
        .request(Method::OPTIONS, "/mcp")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 200);
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    ] {
        let metadata = world.client().request(Method::GET, path).send().await.unwrap();
        assert_eq!(
            metadata.status(),
            404,
            "{path}: the issuer is no URL, so there is nothing to point to"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_policy_that_is_missing_or_not_accepted_refuses_every_item() {
    let one = Server::start("one", &["forecast"]).await;
    let servers = [(&one, "one_")];
    let entries = [entry(&one, "one_")];
    let required = format!("{}authRequired: true\n", config(&entries));
    let world = World::start_with(&required, &[&one], &[]).await;
    let client = bearer(&world).initialized().await;
    assert!(tools(&client).await.is_empty());
    assert_eq!(client.call("one_forecast").await.error().0, -32602);
    world.write_config(&with_policy(&servers, "me", "*"));
    eventually("the tool", || async {
        (tools(&client).await == ["one_forecast"]).then_some(())
    })
    .await;
    world.write_config(&with_policy(&servers, "me", "*").replace("valid: true", "valid: false"));
    eventually("nothing", || async {
        tools(&client).await.is_empty().then_some(())
    })
    .await;
    world.write_config(&required);
    eventually("the policy to be gone", || async {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
        (world.client().rpc("initialize", params).await.status == 200).then_some(())
    })
    .await;
    assert!(tools(&client).await.is_empty(), "and still nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_name_the_gateways_own_tools_as_those_of_minus_gateway() {
    let one = Server::start("one", &["forecast"]).await;
    let servers = [(&one, "one_")];
    let flags = ["--discovery-tools-enabled=true"];
    let closed = with_policy(&servers, "me", "ns/*:*");
    let world = World::start_with(&closed, &[&one], &flags).await;
    let client = bearer(&world).initialized().await;
    eventually("the server's tool alone", || async {
        (tools(&client).await == ["one_forecast"]).then_some(())
    })
    .await;
    assert_eq!(client.call("discover_tools").await.error().0, -32602);
    world.write_config(&with_policy(&servers, "me", "-/gateway:discover_tools"));
    eventually("one of the gateway's own", || async {
        (tools(&client).await == ["discover_tools"]).then_some(())
    })
    .await;
    let found = client.call("discover_tools").await;
    assert_eq!(found.status, 200);
    assert!(!found.text.contains("one_forecast"), "{}", found.text);
}

/// The policy of [`with_policy`] for everything, with this condition.
fn with_condition(server: &Arc<Server>, condition: &str) -> String {
    with_policy(&[(server, "one_")], "me", "*").replace(
        "resource: '*'}]",
        &format!("resource: '*', condition: \"{condition}\"}}]"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_on_arguments_lists_a_tool_and_refuses_what_it_does_not_allow() {
    let one = Server::start("one", &["forecast"]).await;
    let condition = "arguments.city in ['Bern', 'Basel'] && claims.sub == 'me'";
    let world = World::start_with(&with_condition(&one, condition), &[&one], &[]).await;
    let client = bearer(&world).initialized().await;
    eventually("the tool", || async {
        (tools(&client).await == ["one_forecast"]).then_some(())
    })
    .await;
    let call = async |arguments: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"one_forecast","arguments":{arguments}}}}}"#
        );
        client.post(body).await
    };
    let allowed = call(r#"{"city":"Bern"}"#).await;
    assert!(allowed.json()["result"].is_object(), "{}", allowed.text);
    let before = one.calls("tools/call").len();
    for arguments in [
        r#"{"city":"Genf"}"#,
        "{}",
        "null",
        r#"{"city":"Bern","City":"Genf"}"#,
    ] {
        let refused = call(arguments).await;
        assert_eq!(
            (refused.status, refused.error()),
            (200, (-32602, "Denied by policy".to_owned())),
            "{arguments}"
        );
    }
    assert_eq!(
        one.calls("tools/call").len(),
        before,
        "nothing reached the server"
    );
    let unknown = client.call("no_such_tool").await;
    assert_eq!(unknown.error().1, "Unknown tool: no_such_tool");

    // A condition that is always an error hides the tool, and nothing tells it from one that is not there.
    world.write_config(&with_condition(&one, "claims.absent == 1"));
    eventually("nothing", || async {
        tools(&client).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(
        call(r#"{"city":"Bern"}"#).await.error(),
        (-32602, "Unknown tool: one_forecast".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uri_that_a_template_covers_and_a_policy_denies_is_unknown_to_the_caller_and_counted_as_denied() {
    let one = Server::start("one", &["forecast"]).await;
    *one.templates.lock().unwrap() = vec![json!({"uriTemplate": "file:///{+path}", "name": "t"})];
    let world = World::start_with(&with_policy(&[(&one, "one_")], "me", "*"), &[&one], &[]).await;
    let client = bearer(&world).initialized().await;
    let url = format!(
        "http://{}/metrics",
        world.running.as_ref().unwrap().admin.unwrap()
    );
    for (uri, denied) in [("other:x", false), ("file:///x", true)] {
        let reply = client.rpc("resources/read", json!({"uri": uri})).await;
        assert!(reply.json()["error"].is_object(), "{}", reply.text);
        let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        let counted = text.contains(r#"{source="policy",outcome="denied""#);
        assert_eq!(counted, denied, "{uri}: {text}");
    }
    assert!(one.calls("resources/read").is_empty());
}
