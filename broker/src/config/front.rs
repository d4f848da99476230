//! What a document says about the front itself (data-plane.md 13): its certificate, and clients of the older transport.

use super::document::{Dialect, DocumentError, Notes};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Settings of the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontSettings {
    /// Certificate and key of the listener; `None`: plain HTTP.
    pub tls: Option<PairFiles>,
    /// Clients of 2024-11-05 are served at `/sse`.
    pub legacy_sse: bool,
}

/// `tls`: PEM files, named as from the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PairFiles {
    /// Certificates, the listener's own first.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Takes the members about the front out of the document; those that do not work here are left out.
///
/// # Errors
/// [`DocumentError::Tls`]: without it the listener would go back to plain HTTP.
pub(super) fn read(
    top: &mut Map<String, Value>,
    dialect: Dialect,
    notes: &mut Notes,
) -> Result<FrontSettings, DocumentError> {
    let mut settings = FrontSettings::default();
    match top.remove("tls") {
        None | Some(Value::Null) => {}
        Some(_) if dialect.local.is_none() => notes
            .errors
            .push("tls works only in mcp-gateway-broker run".to_owned()),
        Some(pair) => settings.tls = Some(serde_json::from_value(pair).map_err(|_| DocumentError::Tls)?),
    }
    match top.remove("legacySSE") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) if dialect.forwards => settings.legacy_sse = true,
        Some(Value::Bool(true)) => notes.errors.push(
            "legacySSE needs the gateway's own front: dataPath Direct, or mcp-gateway-broker run".to_owned(),
        ),
        Some(_) => notes
            .errors
            .push("legacySSE: true or false is expected".to_owned()),
    }
    Ok(settings)
}
