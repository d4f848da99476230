//! One `servers[]` entry: raw members → [`ServerConfig`] (data-plane.md 3.2). Reasons name the member, never its value.

use super::document::Dialect;
use super::local;
use super::model::{ChildCommand, Protocol, ServerConfig, Transport};
use super::trouble::Trouble;
use crate::protocol::host;
use crate::protocol::uri_prefix::UriPrefix;
use crate::secret::Secret;
use http::{HeaderMap, HeaderValue};
use mcp_gateway_api::config::{Credential, ServerEntry, ServerState};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Stands in for the URL of a server that has none, until its bridge gives it one.
const NO_URL: &str = "http://stdio.invalid/mcp";

/// Members of a server entry that only hand-written files have.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FileMembers {
    tool_prefix: String,
    enabled: Option<bool>,
    auth: Option<FileAuth>,
    protocol: String,
    transport: String,
    call_timeout: Option<Value>,
    server_url: String,
    r#type: String,
    disabled: bool,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: String,
    isolation: String,
    #[serde(rename = "resourceURIs")]
    resource_uris: String,
    expose_server_info: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FileAuth {
    r#type: String,
    token: String,
    username: String,
    password: String,
}

/// Validates one entry.
pub(super) fn validated(
    mut entry: ServerEntry,
    mut extra: FileMembers,
    (position, dialect): (usize, Dialect),
) -> Result<ServerConfig, String> {
    if entry.name.is_empty() {
        return Err("name is missing".to_owned());
    }
    let reach = reach(&mut entry, &mut extra, dialect)?;
    let url = reach.url;
    let prefix = std::mem::take(if entry.prefix.is_empty() {
        &mut extra.tool_prefix
    } else {
        &mut entry.prefix
    });
    if !good_prefix(&prefix) {
        return Err("prefix must match ^[a-z0-9][a-z0-9_]*$".to_owned());
    }
    let hostname = match entry.hostname.as_str() {
        "" => host::comparable(url.host_str().unwrap_or_default()),
        name => host::comparable(name),
    };
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let uris = uris(&extra.resource_uris, &prefix)?;
    let protocol = protocol(&extra)?;
    let call_timeout = extra.call_timeout.as_ref().map(duration).transpose()?;
    let credential = credential(&entry.credential, extra.auth.as_ref(), &reach.headers)?;
    let mut tags = entry.tags;
    tags.sort();
    tags.dedup();
    Ok(ServerConfig {
        id: format!("{}:{prefix}:{hostname}", entry.name),
        url,
        hostname,
        path,
        prefix,
        uris,
        enabled: entry.state == ServerState::Enabled && extra.enabled.unwrap_or(!extra.disabled),
        credential,
        ca: entry.ca_cert.into(),
        user_specific_list: entry.user_specific_list,
        token_url_elicitation: entry.token_url_elicitation.map(|page| page.url),
        forward_headers: entry
            .forward_headers
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        category: entry.category,
        hint: entry.hint,
        tags,
        age: (entry.created_at, entry.uid, position),
        protocol,
        call_timeout,
        expose_server_info: extra.expose_server_info,
        transport: reach.transport,
        command: reach.command,
        shared: reach.shared,
        headers: reach.headers,
        bridged: false,
        trouble: Trouble::default(),
        name: entry.name,
    })
}

/// How a server is reached.
struct Reach {
    transport: Transport,
    command: Option<Arc<ChildCommand>>,
    shared: bool,
    headers: HeaderMap,
    url: Url,
}

fn reach(entry: &mut ServerEntry, extra: &mut FileMembers, dialect: Dialect) -> Result<Reach, String> {
    if entry.url.is_empty() {
        entry.url = std::mem::take(&mut extra.server_url);
    }
    let transport = transport(extra, &entry.url)?;
    let command = local::command(extra, entry, (transport, dialect))?.map(Arc::new);
    Ok(Reach {
        transport,
        command,
        shared: shared(extra, transport)?,
        headers: local::headers(extra, dialect)?,
        url: match transport {
            Transport::Stdio => Url::parse(NO_URL).map_err(|error| error.to_string())?,
            Transport::StreamableHttp | Transport::Sse => url(&entry.url)?,
        },
    })
}

/// Whether the sessions of a command share one process.
fn shared(extra: &FileMembers, transport: Transport) -> Result<bool, String> {
    match extra.isolation.as_str() {
        "" | "session" => Ok(false),
        "shared" if transport == Transport::Stdio => Ok(true),
        "shared" => {
            Err("isolation: shared is for a command that speaks on its standard input and output".to_owned())
        }
        _ => Err("isolation must be session or shared".to_owned()),
    }
}

fn url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|_| "url is not a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("url must be http or https with a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url must not carry a user name or password; use credential".to_owned());
    }
    url.set_fragment(None);
    if matches!(url.path(), "" | "/") {
        url.set_path("/mcp");
    }
    Ok(url)
}

fn good_prefix(prefix: &str) -> bool {
    prefix.is_empty()
        || (!prefix.starts_with('_')
            && prefix
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
}

/// How the server is spoken with: as it says, else by what else is there. IDEs call the member `type`.
fn transport(extra: &FileMembers, url: &str) -> Result<Transport, String> {
    let said = match extra.transport.as_str() {
        "" => extra.r#type.as_str(),
        said => said,
    };
    match said {
        "" if url.is_empty() && !extra.command.is_empty() => Ok(Transport::Stdio),
        "" | "streamable-http" | "streamableHttp" | "http" => Ok(Transport::StreamableHttp),
        "sse" => Ok(Transport::Sse),
        "stdio" => Ok(Transport::Stdio),
        _ => Err("transport must be streamable-http, sse or stdio".to_owned()),
    }
}

/// How URIs are published. Without a prefix two servers of this kind could not be told apart.
fn uris(said: &str, prefix: &str) -> Result<Option<UriPrefix>, String> {
    match said {
        "" | "asIs" => Ok(None),
        "prefixed" if prefix.is_empty() => Err("resourceURIs: prefixed needs a prefix".to_owned()),
        "prefixed" => Ok(Some(UriPrefix::new(prefix))),
        _ => Err("resourceURIs must be asIs or prefixed".to_owned()),
    }
}

fn protocol(extra: &FileMembers) -> Result<Protocol, String> {
    match extra.protocol.as_str() {
        "" | "auto" => Ok(Protocol::Auto),
        "legacy" => Ok(Protocol::Legacy),
        "modern" => Ok(Protocol::Modern),
        _ => Err("protocol must be auto, legacy or modern".to_owned()),
    }
}

fn duration(value: &Value) -> Result<Duration, String> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.strip_suffix("ms") {
            Some(number) => number.parse::<f64>().ok().map(|number| number / 1000.0),
            None => text.strip_suffix('s').unwrap_or(text).parse().ok(),
        },
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "callTimeout must be a duration such as 30s".to_owned())
}

fn credential(
    credential: &Credential,
    auth: Option<&FileAuth>,
    headers: &HeaderMap,
) -> Result<Secret, String> {
    use base64::Engine as _;
    let in_headers = headers.get("authorization").map(HeaderValue::to_str);
    let text = match auth {
        _ if !credential.is_empty() => credential.expose().to_owned(),
        None => in_headers.and_then(Result::ok).unwrap_or_default().to_owned(),
        Some(auth) if auth.r#type.eq_ignore_ascii_case("bearer") => format!("Bearer {}", auth.token),
        Some(auth) if auth.r#type.eq_ignore_ascii_case("basic") => {
            let pair = format!("{}:{}", auth.username, auth.password);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Some(_) => return Err("auth.type must be bearer or basic".to_owned()),
    };
    if http::HeaderValue::from_str(&text).is_err() {
        return Err("credential is no header value".to_owned());
    }
    Ok(Secret::new(text))
}
