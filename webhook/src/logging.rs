//! Log output: level and format.

use mcp_gateway_api::log_level;
use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// Installs the global subscriber; a second call does nothing.
pub(crate) fn install(level: &str, format: LogFormat) {
    let filter = EnvFilter::new(format!(
        "{},kube=warn,hyper=warn,rustls=warn",
        log_level::word(log_level::parse(level))
    ));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // An error means that a subscriber is there already (tests).
    let _ = match format {
        LogFormat::Txt => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
