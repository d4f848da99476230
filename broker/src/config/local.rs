//! Members of a server that only a file on one's own machine may have (data-plane.md 13): commands, headers, and names of
//! environment variables in values.

use super::document::Dialect;
use super::model::{ChildCommand, Transport};
use super::server::FileMembers;
use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_gateway_api::config::{Credential, ServerEntry};

/// The command of a server, its variables replaced; also replaces those in `url` and `credential`.
///
/// # Errors
/// The reason, without any value.
pub(super) fn command(
    extra: &mut FileMembers,
    entry: &mut ServerEntry,
    (transport, dialect): (Transport, Dialect),
) -> Result<Option<ChildCommand>, String> {
    if transport == Transport::Sse && !dialect.forwards {
        return Err(
            "transport sse needs the gateway's own front: dataPath Direct, or mcp-gateway-broker run"
                .to_owned(),
        );
    }
    let Some(lookup) = dialect.local else {
        if transport == Transport::Stdio || !extra.command.is_empty() || !extra.headers.is_empty() {
            return Err(
                "command, headers and transport stdio work only in mcp-gateway-broker run".to_owned(),
            );
        }
        return Ok(None);
    };
    let expand = |text: &str| expanded(text, lookup);
    entry.url = expand(&entry.url)?;
    if !entry.credential.is_empty() {
        entry.credential = Credential::new(expand(entry.credential.expose())?);
    }
    if extra.command.is_empty() {
        return match transport {
            Transport::Stdio => Err("command is missing".to_owned()),
            Transport::StreamableHttp | Transport::Sse if entry.url.is_empty() => {
                Err("url is missing; a server needs url, or command".to_owned())
            }
            Transport::StreamableHttp | Transport::Sse => Ok(None),
        };
    }
    let mut environment = std::mem::take(&mut extra.env);
    for value in environment.values_mut() {
        *value = expand(value)?;
    }
    let arguments = extra.args.iter().map(|text| expand(text));
    Ok(Some(ChildCommand {
        program: expand(&extra.command)?,
        arguments: arguments.collect::<Result<_, _>>()?,
        environment,
        folder: Some(expand(&extra.cwd)?).filter(|folder| !folder.is_empty()),
    }))
}

/// The headers of a server, their variables replaced.
///
/// # Errors
/// The reason, without any value.
pub(super) fn headers(extra: &FileMembers, dialect: Dialect) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in extra.headers.iter() {
        let Some(lookup) = dialect.local else { break };
        let bad = |_| format!("headers: {name:?} or its value is no header");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
        let mut value = HeaderValue::from_str(&expanded(value, lookup)?).map_err(|_| bad(()))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Replaces `${NAME}` and `${env:NAME}`.
fn expanded(text: &str, lookup: fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            break;
        };
        let name = name.strip_prefix("env:").unwrap_or(name);
        let value = lookup(name);
        out.push_str(before);
        out.push_str(&value.ok_or_else(|| format!("variable {name:?} is not set in the environment"))?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}
