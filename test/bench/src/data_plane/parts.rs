//! Two more processes of a measurement: a server of fixed bytes, and the gateway itself.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use axum::{Router, body::Bytes, http::header, response::IntoResponse, serve::ListenerExt as _};
use mcp_gateway_broker::{
    kubernetes::secret::ClusterAccess,
    options::{self, Command},
    run::{self, Environment},
    telemetry,
    transport::address::AddressPolicy,
};

/// Options of `bench static`.
#[derive(clap::Args)]
pub(crate) struct StaticArguments {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// What it answers with.
    #[arg(long)]
    file: PathBuf,
}

/// Options of `bench broker`.
#[derive(clap::Args)]
pub(crate) struct BrokerArguments {
    /// API server whose config Secret it watches; without one it reads its file only.
    #[arg(long, requires = "account")]
    api_server: Option<String>,
    /// Folder with `token` and `ca.crt` of its account there.
    #[arg(long)]
    account: Option<PathBuf>,
    /// Flags of `mcp-gateway-broker`.
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Answers everything with the file.
pub(crate) async fn serve_static(arguments: &StaticArguments) -> anyhow::Result<()> {
    let bytes = Bytes::from(std::fs::read(&arguments.file)?);
    let answer =
        async move |_: Bytes| ([(header::CONTENT_TYPE, "application/json")], bytes.clone()).into_response();
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    Ok(axum::serve(listener, Router::new().fallback(answer)).await?)
}

/// Runs the gateway; the servers of a benchmark are on loopback, which the program itself refuses behind Envoy.
pub(crate) async fn serve_broker(arguments: &BrokerArguments) -> anyhow::Result<()> {
    let options = match options::parse(arguments.flags.iter().cloned(), &|_| None)? {
        Command::Run(options) => *options,
        Command::Print(_) | Command::Example(_) | Command::Child(..) => {
            anyhow::bail!("the flags ask for something else than a gateway")
        }
    };
    // Every call is audited by a line, as in a cluster.
    telemetry::logs::start(options.log_level, options.log_json);
    let cluster = arguments.api_server.clone().zip(arguments.account.clone());
    let environment = Environment {
        cluster: cluster.map(|(base, account)| ClusterAccess { base, account }),
        addresses: AddressPolicy::Unchecked,
        endpoint_removal: Duration::ZERO,
        ..Environment::real(&options)
    };
    let _running = run::start(options, environment).await?;
    std::future::pending().await
}
