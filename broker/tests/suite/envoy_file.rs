//! The gateway behind an Envoy that is configured from a file, without Kubernetes: the samples of docs/guides/envoy.md,
//! with the addresses of this test.

use crate::client::Client;
use crate::envoy::Envoy;
use crate::fixture::Server;
use crate::world::{KEY, World, free_port, is_direct};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const PUBLIC: &str = "mcp.127-0-0-1.sslip.io";

fn sample(name: &str) -> String {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    std::fs::read_to_string(samples.join(name)).unwrap()
}

/// The address in `place` of the sample becomes `address`.
fn put(place: &mut Value, address: SocketAddr) {
    assert!(place["socket_address"].is_object(), "{place}");
    place["socket_address"] = json!({"address": address.ip().to_string(), "port_value": address.port()});
}

fn envoy_yaml(port: u16, addresses: &[(&str, SocketAddr)]) -> Value {
    let mut bootstrap: Value = serde_saphyr::from_str(&sample("envoy.yaml")).unwrap();
    let resources = &mut bootstrap["static_resources"];
    put(
        &mut resources["listeners"][0]["address"],
        SocketAddr::from(([127, 0, 0, 1], port)),
    );
    let clusters = resources["clusters"].as_array_mut().unwrap();
    assert_eq!(clusters.len(), addresses.len());
    for (name, address) in addresses {
        let cluster = clusters
            .iter_mut()
            .find(|cluster| cluster["name"] == *name)
            .unwrap();
        let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        put(&mut endpoint["address"], *address);
    }
    bootstrap
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_samples_make_a_gateway_without_kubernetes() {
    if is_direct() {
        return;
    }
    let weather = Server::start("weather", &["forecast"]).await;
    let config = sample("config.yaml").replace("http://weather.example.com:8080/mcp", &weather.url());
    let port = free_port();
    let flags = [
        format!("--mcp-gateway-public-host={PUBLIC}"),
        format!("--gateway-signing-key={KEY}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let world = World::broker_at(port, &config, &flags).await;
    let router = world.running.as_ref().unwrap().router.unwrap();
    let addresses = [
        ("mcp-router", router),
        ("mcp-broker", world.broker),
        ("weather", weather.address),
    ];
    let _envoy = Envoy::start_with(&envoy_yaml(port, &addresses), port).await;
    let mut client = Client::new(format!("http://127.0.0.1:{port}"));
    client.host = format!("{PUBLIC}:{port}");
    let client = client.initialized().await;
    assert_eq!(client.tools().await, ["weather_forecast"]);
    let reply = client.call("weather_forecast").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let seen = weather.calls("tools/call").pop().unwrap();
    assert_eq!(seen.header("host"), Some("weather.mcp.local"));
    assert_eq!(
        client.call("weather_nothing").await.error().1,
        "Unknown tool: weather_nothing"
    );
}
