//! Tokens of persons for single servers (data-plane.md 11.5; S14, S15), through a real Envoy.

use crate::access::{self, with_policy};
use crate::client::{Client, Reply};
use crate::fixture::Server;
use crate::shared_store::{Pair, Redis};
use crate::world::{KEY, World, config, entry};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub const ON: &str = "--enable-url-elicitation=true";

fn bearer(subject: &str) -> String {
    let claims = json!({"iss": "https://issuer", "sub": subject}).to_string();
    format!("Bearer e30.{}.x", URL_SAFE_NO_PAD.encode(claims))
}

/// A config whose server wants a token by the built-in page.
fn wanting(server: &Server) -> String {
    config(&[entry(server, "one_").replace("}\n", ", tokenURLElicitation: {url: ''}}\n")])
}

async fn world(server: &Arc<Server>) -> World {
    World::start_with(&wanting(server), &[server], &[ON]).await
}

pub async fn able(client: Client) -> Client {
    client.able(json!({"elicitation": {"url": {}}})).await
}

/// Id of the entry that the error names, after its shape was checked.
pub fn elicited(reply: &Reply) -> String {
    assert_eq!(
        (reply.status, reply.error()),
        (200, (-32042, "URL elicitation required".to_owned())),
        "{}",
        reply.text
    );
    let body = reply.json();
    let elicitation = &body["error"]["data"]["elicitations"][0];
    let id = elicitation["elicitationId"].as_str().unwrap().to_owned();
    let url = elicitation["url"].as_str().unwrap();
    assert!(
        url.ends_with(&format!("/tokens?elicitation_id={id}")) && url.contains("mcp.test"),
        "{url}"
    );
    id
}

/// The form, and the CSRF value of its cookie.
pub async fn form(client: &Client, id: &str) -> (Reply, String) {
    let path = format!("/tokens?elicitation_id={id}");
    let reply = client.send(client.request(Method::GET, &path)).await;
    let cookie = reply.header("set-cookie").unwrap_or_default();
    let csrf = cookie.split(['=', ';']).nth(1).unwrap_or_default().to_owned();
    (reply, csrf)
}

pub async fn submit(client: &Client, (id, csrf, cookie): (&str, &str, &str), token: &str) -> Reply {
    let text: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("elicitation_id", id), ("csrf", csrf), ("token", token)])
        .finish();
    let request = client
        .request(Method::POST, "/tokens")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", format!("other=1; csrf={cookie}"))
        .body(text);
    client.send(request).await
}

fn seen_authorization(server: &Server, method: &str) -> Vec<Option<String>> {
    let calls = server.calls(method);
    calls
        .iter()
        .map(|seen| seen.header("authorization").map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_a_person_leaves_a_token_and_the_server_gets_that_and_not_the_clients() {
    let one = Server::start("one", &["forecast"]).await;
    let world = world(&one).await;
    let client = able(world.client().with("authorization", bearer("alice"))).await;
    let id = elicited(&client.call("one_forecast").await);
    assert!(one.calls("initialize").is_empty(), "no session without a token");
    let (page, csrf) = form(&client, &id).await;
    assert_eq!((page.status, csrf.len()), (200, 64), "{}", page.text);
    let cookie = page.header("set-cookie").unwrap();
    for part in ["Path=/tokens", "HttpOnly", "SameSite=Strict", "Max-Age=120"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("frame-ancestors 'none'")
    );
    assert!(page.text.contains("ns/one") && page.text.contains(&csrf));
    let saved = submit(&client, (&id, &csrf, &csrf), "Bearer person's own").await;
    assert_eq!(saved.status, 200, "{}", saved.text);
    assert_eq!(client.call("one_forecast").await.status, 200);
    for method in ["initialize", "tools/call"] {
        assert_eq!(
            seen_authorization(&one, method),
            [Some("Bearer person's own".to_owned())],
            "{method}"
        );
    }
    let stranger = able(world.client().with("authorization", bearer("bob"))).await;
    elicited(&stranger.call("one_forecast").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_an_entry_is_used_once_by_its_person_and_a_wrong_person_leaves_it() {
    let one = Server::start("one", &["forecast"]).await;
    let world = world(&one).await;
    let alice = able(world.client().with("authorization", bearer("alice"))).await;
    let id = elicited(&alice.call("one_forecast").await);
    let (_, csrf) = form(&alice, &id).await;
    let other = "0".repeat(64);
    let anonymous = world.client();
    let bob = world.client().with("authorization", bearer("bob"));
    let long = "x".repeat(2049);
    for (who, csrf, cookie, token, status, text) in [
        (
            &alice,
            csrf.as_str(),
            other.as_str(),
            "t",
            403,
            "csrf check failed",
        ),
        (&alice, "", "", "t", 403, "csrf check failed"),
        (&anonymous, &csrf, &csrf, "t", 403, "no identity found in request"),
        (&bob, &csrf, &csrf, "t", 403, "identity mismatch"),
        (&alice, &csrf, &csrf, "", 400, "token missing"),
        (&alice, &csrf, &csrf, &long, 400, "token missing"),
        (&alice, &csrf, &csrf, "a\nb", 400, "token missing"),
    ] {
        let reply = submit(who, (&id, csrf, cookie), token).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        assert!(reply.text.contains(text), "{}", reply.text);
    }
    let too_large = submit(&alice, (&id, &csrf, &csrf), &"x".repeat(4096)).await;
    assert_eq!(too_large.status, 400, "{}", too_large.text);
    let cookie = world.client();
    let jwt = bearer("alice").replace("Bearer ", "");
    let saved = submit(
        &cookie,
        (&id, &csrf, &format!("{csrf}; jwt={jwt}")),
        &"x".repeat(2048),
    )
    .await;
    assert_eq!(
        saved.status, 200,
        "at the bound, with the identity of a cookie: {}",
        saved.text
    );
    let again = submit(&alice, (&id, &csrf, &csrf), "second").await;
    assert_eq!(
        (again.status, again.text.as_str()),
        (400, "unknown or expired elicitation_id")
    );
    assert_eq!(form(&alice, &id).await.0.status, 400);
    assert_eq!(form(&alice, "x").await.0.status, 400);
    assert_eq!(alice.call("one_forecast").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_is_dropped_and_asked_for_again() {
    let one = Server::start("one", &["forecast"]).await;
    let world = world(&one).await;
    let client = able(world.client()).await;
    let id = elicited(&client.call("one_forecast").await);
    let (_, csrf) = form(&client, &id).await;
    assert_eq!(submit(&client, (&id, &csrf, &csrf), "stale").await.status, 200);
    one.call_status.store(401, Ordering::Relaxed);
    let second = elicited(&client.call("one_forecast").await);
    assert_ne!(second, id);
    one.call_status.store(0, Ordering::Relaxed);
    elicited(&client.call("one_forecast").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_visit_is_told_and_without_the_flag_nobody_is_asked() {
    let one = Server::start("one", &["forecast"]).await;
    let world = world(&one).await;
    let reply = world.client().initialized().await.call("one_forecast").await;
    let result = &reply.json()["result"];
    assert_eq!(result["isError"], true, "{}", reply.text);
    assert!(
        result["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("does not support elicitation")
    );
    let old = world
        .client()
        .opened("2025-06-18", json!({"elicitation": {}}))
        .await;
    elicited(&old.call("one_forecast").await);
    let off = World::start_with(&wanting(&one), &[&one], &[]).await;
    assert_eq!(
        off.client().initialized().await.call("one_forecast").await.status,
        200
    );
    let page = off.client();
    assert_eq!(page.send(page.request(Method::GET, "/tokens")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_token_left_on_one_replica_serves_on_the_other_and_rests_encrypted() {
    let one = Server::start("one", &["forecast"]).await;
    let pair = Pair::start_with(&wanting(&one), &[&one], &[ON]).await;
    let first = able(pair.worlds[0].client()).await;
    let second = pair.on(1, &first);
    let id = elicited(&first.call("one_forecast").await);
    let (_, csrf) = form(&second, &id).await;
    assert_eq!(
        submit(&second, (&id, &csrf, &csrf), "hunter2token").await.status,
        200
    );
    for client in [&first, &second] {
        assert_eq!(client.call("one_forecast").await.status, 200);
    }
    assert_eq!(
        seen_authorization(&one, "tools/call"),
        vec![Some("hunter2token".to_owned()); 2]
    );
    let dump = pair.redis.everything().await;
    assert!(
        dump.contains("token:ns/one") && !dump.contains("hunter2token"),
        "{dump}"
    );
}

const URLS: &str = r#"{"elicitation":{"url":{}}}"#;

/// Id of the entry that a result without a session names, after its shape was checked.
fn asked(reply: &Reply) -> String {
    let body = reply.json();
    let (result, request) = (&body["result"], &body["result"]["inputRequests"]["authorization"]);
    assert_eq!(
        (reply.status, &result["resultType"]),
        (200, &json!("input_required")),
        "{}",
        reply.text
    );
    assert_eq!(
        (&request["method"], &request["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url"))
    );
    assert!(request["params"].get("elicitationId").is_none());
    let url = request["params"]["url"].as_str().unwrap();
    let (page, id) = url.split_once("?elicitation_id=").unwrap();
    assert!(
        page.ends_with("mcp.test/tokens") || page.contains("mcp.test:"),
        "{url}"
    );
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_verified_client_without_a_session_leaves_its_token_once_and_calls_with_it() {
    let one = Server::start("one", &["forecast"]).await;
    let wants = with_policy(&[(&one, "one_")], "me", "*");
    let wants = wants.replacen("uid: one}", "uid: one, tokenURLElicitation: {url: ''}}", 1);
    let world = World::start_with(&wants, &[&one], &[ON]).await;
    let (client, urls) = (
        access::bearer(&world),
        serde_json::from_str::<Value>(URLS).unwrap(),
    );
    let unable = client
        .stateless("one_forecast", json!({"elicitation": {}}))
        .await
        .json();
    assert_eq!(
        (&unable["result"]["isError"], &unable["result"]["resultType"]),
        (&json!(true), &json!("complete"))
    );
    let id = asked(&client.stateless("one_forecast", urls.clone()).await);
    let (page, csrf) = form(&client, &id).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let stranger = submit(&world.client(), (&id, &csrf, &csrf), "Bearer theirs").await;
    assert_eq!(stranger.status, 403);
    let forged = world.client().with("authorization", bearer("me"));
    assert_eq!(
        submit(&forged, (&id, &csrf, &csrf), "Bearer theirs").await.status,
        403
    );
    let left = submit(&client, (&id, &csrf, &csrf), "Bearer mine").await;
    assert_eq!(left.status, 200, "{}", left.text);
    assert_eq!(
        submit(&client, (&id, &csrf, &csrf), "Bearer other").await.status,
        400
    );
    for _ in 0..2 {
        let reply = client.stateless("one_forecast", urls.clone()).await;
        assert_eq!(reply.json()["result"]["resultType"], "complete", "{}", reply.text);
    }
    let mine = Some("Bearer mine".to_owned());
    assert_eq!(seen_authorization(&one, "tools/call"), [mine.clone(), mine]);
    one.call_status.store(401, Ordering::Relaxed);
    let refused = client.stateless("one_forecast", urls.clone()).await;
    assert_eq!(
        (refused.status, refused.error().0),
        (200, -32603),
        "{}",
        refused.text
    );
    one.call_status.store(0, Ordering::Relaxed);
    let again = asked(&client.stateless("one_forecast", urls).await);
    assert_ne!(again, id, "a token that the server refuses is asked for anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_list_of_the_caller_alone_is_fetched_with_the_token_it_left_without_a_session() {
    let own = Server::start("own", &["basic"]).await;
    let wants = with_policy(&[(&own, "own_")], "me", "*");
    let more = "uid: own, userSpecificList: true, tokenURLElicitation: {url: ''}}";
    let wants = wants.replacen("uid: own}", more, 1);
    let world = World::start_with(&wants, &[&own], &[ON]).await;
    let client = access::bearer(&world);
    let urls = serde_json::from_str::<Value>(URLS).unwrap();
    assert!(client.stateless_tools().await.is_empty());
    let id = asked(&client.stateless("own_basic", urls.clone()).await);
    let foreign = client.stateless("other_basic", urls.clone()).await;
    assert_eq!(foreign.error().0, -32602, "no list of the caller alone has that");
    let (_, csrf) = form(&client, &id).await;
    let left = submit(&client, (&id, &csrf, &csrf), "Bearer mine").await;
    assert_eq!(left.status, 200, "{}", left.text);
    assert_eq!(client.stateless_tools().await, ["own_basic"]);
    let called = client.stateless("own_basic", urls.clone()).await;
    assert_eq!(
        called.json()["result"]["resultType"],
        "complete",
        "{}",
        called.text
    );
    assert_eq!(client.stateless("own_nothing", urls).await.error().0, -32602);
    for method in ["tools/list", "tools/call"] {
        let seen = seen_authorization(&own, method);
        assert!(!seen.is_empty(), "{method}");
        assert!(
            seen.iter().all(|value| value.as_deref() == Some("Bearer mine")),
            "{seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_a_token_left_without_a_session_outlives_a_rotation_of_the_key() {
    let one = Server::start("one", &["forecast"]).await;
    let wants = with_policy(&[(&one, "one_")], "me", "*");
    let wants = wants.replacen("uid: one}", "uid: one, tokenURLElicitation: {url: ''}}", 1);
    let redis = Redis::start().await;
    let store = format!("--cache-connection-string={}", redis.url());
    let former = format!("env:GATEWAY_SIGNING_KEY_PREVIOUS={KEY}");
    let rotated = [
        "--gateway-signing-key=fedcba9876543210fedcba9876543210",
        former.as_str(),
    ];
    let urls = serde_json::from_str::<Value>(URLS).unwrap();
    let leaves = async |world: &World, token: &str| {
        let client = access::bearer(world);
        let id = asked(&client.stateless("one_forecast", urls.clone()).await);
        let (_, csrf) = form(&client, &id).await;
        let left = submit(&client, (&id, &csrf, &csrf), token).await;
        assert_eq!(left.status, 200, "{}", left.text);
    };
    let calls = async |world: &World| {
        let reply = access::bearer(world)
            .stateless("one_forecast", urls.clone())
            .await;
        assert_eq!(reply.json()["result"]["resultType"], "complete", "{}", reply.text);
        seen_authorization(&one, "tools/call").pop().unwrap().unwrap()
    };
    let before = World::start_with(&wants, &[&one], &[ON, &store]).await;
    leaves(&before, "Bearer first").await;
    assert_eq!(calls(&before).await, "Bearer first");
    drop(before);
    let after = World::start_with(&wants, &[&one], &[&[ON, store.as_str()], &rotated[..]].concat()).await;
    assert_eq!(calls(&after).await, "Bearer first");
    // A token that the server refuses goes, wherever it was kept; the next one is kept under the new key.
    one.call_status.store(401, Ordering::Relaxed);
    let refused = access::bearer(&after)
        .stateless("one_forecast", urls.clone())
        .await;
    assert_eq!(refused.error().0, -32603, "{}", refused.text);
    one.call_status.store(0, Ordering::Relaxed);
    leaves(&after, "Bearer second").await;
    assert_eq!(calls(&after).await, "Bearer second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_nobody_without_a_session_leaves_a_token_where_callers_are_not_verified() {
    let one = Server::start("one", &["forecast"]).await;
    let world = world(&one).await;
    let urls = serde_json::from_str::<Value>(URLS).unwrap();
    for client in [
        world.client(),
        world.client().with("authorization", bearer("ann")),
    ] {
        let reply = client.stateless("one_forecast", urls.clone()).await;
        assert_eq!((reply.status, reply.error().0), (200, -32603), "{}", reply.text);
    }
    assert!(one.calls("tools/call").is_empty());
}
