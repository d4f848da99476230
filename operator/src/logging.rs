//! Log output: level and format.

use std::io::IsTerminal;

use mcp_gateway_api::log_level;
use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// Installs the global subscriber; a second call does nothing.
pub(crate) fn install(level: &str, format: LogFormat) {
    let level = log_level::word(log_level::parse(level));
    let filter = EnvFilter::new(format!(
        "{level},kube=warn,hyper=warn,rustls=warn,reqwest=warn,tower=warn"
    ));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error means that a subscriber is there already (tests).
    let _ = match format {
        LogFormat::Txt => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
