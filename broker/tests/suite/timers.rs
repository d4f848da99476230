//! How long Envoy waits for the router (data-plane.md 8.9).

use crate::fixture::Server;
use crate::world::{World, config, entry, is_direct};
use serde_json::json;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_takes_longer_than_envoys_timeout_is_waited_for_where_that_may_be_extended() {
    if is_direct() {
        return;
    }
    let one = Server::start("one", &["forecast"]).await;
    for (longest, status) in [(60, 200), (0, 504)] {
        let longest = format!("--ext-proc-max-message-timeout={longest}");
        let flags = ["--ext-proc-message-timeout=3", &longest];
        let mut world = World::broker_only(&config(&[entry(&one, "one_")]), &flags).await;
        let servers = [&one];
        let envoy = world.envoy(&servers, |bootstrap| {
            let manager =
                &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
            let filter = &mut manager["typed_config"]["http_filters"][0]["typed_config"];
            assert_eq!(filter["message_timeout"], "10s");
            filter["message_timeout"] = json!("3s");
        });
        world.envoy = Some(envoy.await);
        let client = world.client().initialized().await;
        // Only now: the broker's own connection is not meant.
        one.init_delay_ms.store(4000, Ordering::Relaxed);
        let reply = client.call("one_forecast").await;
        one.init_delay_ms.store(0, Ordering::Relaxed);
        assert_eq!(reply.status, status, "{longest}: {}", reply.text);
        if status != 200 {
            assert_eq!(
                reply.error(),
                (
                    -32603,
                    "MCP server is still starting a session, call again".to_owned()
                )
            );
        }
    }
}
