//! Where the MCP endpoint is: a URL that the user gave, or the listener of an extension of the cluster.

use std::net::SocketAddr;

use mcp_gateway_api::{acceptance::Accepted, object_key::ObjectKey, resolution::Plan};

use crate::cluster::{self, JUDGED, NoClusterError, Snapshot};

/// Where to find the endpoint, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// URL of the endpoint, such as http://127.0.0.1:8080/mcp; without it the cluster of the current context is asked.
    #[arg(long, env = "MCPGW_URL")]
    pub url: Option<String>,
    /// Extension `<namespace>/<name>`; needed when the cluster has several.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub extension: Option<String>,
    /// Bearer token of the caller.
    #[arg(long, env = "MCPGW_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Virtual server `<namespace>/<name>`.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub virtual_server: Option<String>,
    /// Seconds until a request is given up.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// URL with the public host.
    pub(crate) url: String,
    /// Host and addresses that connections go to instead of what DNS says.
    pub(crate) resolved: Option<(String, Vec<SocketAddr>)>,
}

/// Why no endpoint is known.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The cluster.
    #[error("{0}; or give --url to do without a cluster")]
    Cluster(#[from] NoClusterError),
    /// The URL of the user has no scheme.
    #[error("--url {0}: a URL begins with http:// or https://, as in http://127.0.0.1:8080/mcp")]
    Url(String),
    /// Which extension is meant.
    #[error("{0}")]
    Unclear(String),
}

impl Target {
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, EndpointError> {
        if let Some(url) = &self.url {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(EndpointError::Url(url.clone()));
            }
            return Ok(Endpoint {
                url: url.clone(),
                resolved: None,
            });
        }
        let client = cluster::connect().await?;
        let snapshot = Snapshot::take(&client, &JUDGED).await;
        if let Some((kind, why)) = snapshot.unreadable().next() {
            return Err(EndpointError::Unclear(format!("{kind}: {why}")));
        }
        let plan = Plan::compute(&snapshot.world(), "cluster.local");
        let accepted = chosen(&plan, self.extension.as_deref())?;
        let address = accepted.gateway().addresses.first().ok_or_else(|| {
            EndpointError::Unclear(format!(
                "Gateway {} has no address yet; mcpgw doctor says why",
                accepted.gateway().key
            ))
        })?;
        let port = u16::try_from(accepted.listener().port).unwrap_or_default();
        let found = tokio::net::lookup_host((address.value.as_str(), port)).await;
        let addresses: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
        Ok(Endpoint {
            url: accepted.url(),
            // An address that only the cluster knows: the public name may still lead there.
            resolved: (!addresses.is_empty()).then(|| (accepted.public_host().to_owned(), addresses)),
        })
    }
}

fn chosen<'p>(plan: &'p Plan, named: Option<&str>) -> Result<&'p Accepted, EndpointError> {
    let key = named.map(|named| {
        ObjectKey::parse(named)
            .ok_or_else(|| EndpointError::Unclear(format!("--extension {named}: must be <namespace>/<name>")))
    });
    let key = key.transpose()?;
    let found: Vec<&Accepted> = plan
        .accepted()
        .filter(|accepted| key.as_ref().is_none_or(|key| accepted.extension() == key))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(EndpointError::Unclear(
            "no MCPGatewayExtension that works fits; mcpgw doctor says what is wrong".to_owned(),
        )),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|accepted| accepted.extension().to_string())
                .collect();
            Err(EndpointError::Unclear(format!(
                "there are several extensions, choose one with --extension: {}",
                names.join(", ")
            )))
        }
    }
}
