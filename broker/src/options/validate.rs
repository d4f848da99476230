//! Raw flag values and environment → [`Options`], every rule of data-plane.md 2.2 and 2.3.

use super::flags::{FLAGS, RawFlags};
use super::raw::{Checked, Raw, bad, list};
use super::{InvalidToolPolicy, KeyOptions, LogLevel, OauthOptions, Options, PrivateHost};
use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_PRIVATE_HOST: &str = "mcp-gateway-istio.gateway-system.svc.cluster.local:8080";
const HARD_BODY_LIMIT: i64 = 64 * 1024 * 1024;
const MIN_KEY_BYTES: usize = 32;

/// Builds the options.
pub(super) fn options(flags: &RawFlags, env: &dyn Fn(&str) -> Option<String>) -> Checked<Options> {
    let raw = Raw { flags, env };
    let public_host = public_host(&raw)?;
    let standalone = raw.switch("standalone", false)
        || (public_host.is_empty() && raw.text("mcp-router-address").is_none());
    if !standalone && public_host.is_empty() {
        return bad("mcp-router-address", "a router needs --mcp-gateway-public-host");
    }
    let router_address = raw.address("mcp-router-address", "0.0.0.0:50051")?;
    Ok(Options {
        config_files: config_files(&raw),
        config_secret: config_secret(&raw)?,
        api_server: api_server(env),
        public_host,
        private_host: private_host(&raw)?,
        gateway_ca_cert: raw
            .text("gateway-ca-cert")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        broker_address: broker_address(&raw, standalone)?,
        router_address: (!standalone).then_some(router_address),
        metrics_address: metrics_address(&raw, standalone)?,
        enable_pprof: raw.switch("enable-pprof", false),
        keys: keys(&raw, standalone)?,
        session_length: session_length(&raw)?,
        cache_connection: cache_connection(&raw)?,
        check_interval: check_interval(&raw)?,
        write_timeout: raw.duration("mcp-broker-write-timeout", 1, 0)?,
        max_request_body: body_limit(&raw)?,
        trusted_header_key: env("TRUSTED_HEADER_PUBLIC_KEY").filter(|key| !key.is_empty()),
        url_elicitation: raw.switch("enable-url-elicitation", false),
        discovery_tools: raw.switch("discovery-tools-enabled", true),
        discovery_threshold: usize::try_from(raw.integer("discovery-tool-threshold", 0)?).unwrap_or(0),
        enforce_capability_filtering: raw.switch("enforce-capability-filtering", false),
        not_built: not_built(&raw),
        invalid_tool_policy: match raw.one_of("invalid-tool-policy", &["FilterOut", "RejectServer"])? {
            "RejectServer" => InvalidToolPolicy::RejectServer,
            _ => InvalidToolPolicy::FilterOut,
        },
        allowed_origins: list(raw.text("allowed-origins").unwrap_or_default()),
        message_timeout: at_least(
            "ext-proc-message-timeout",
            raw.duration("ext-proc-message-timeout", 1, 10)?,
            3,
        )?,
        max_message_timeout: raw.duration("ext-proc-max-message-timeout", 1, 60)?,
        page_size: page_size(&raw)?,
        bridge_wait: bridge_wait(&raw)?,
        standalone,
        forwards: standalone || raw.one_of("data-path", &["ext-proc", "direct"])? == "direct",
        log_level: log_level(&raw)?,
        log_json: raw.one_of("log-format", &["txt", "json"])? == "json",
        oauth: oauth(&raw),
        replica: env("POD_NAME").or_else(|| env("HOSTNAME")).unwrap_or_default(),
    })
}

fn bridge_wait(raw: &Raw<'_>) -> Checked<Duration> {
    let wait = raw.duration("bridge-wait", 1, 60)?;
    if wait > Duration::from_secs(300) {
        return bad("bridge-wait", "at most 300 seconds");
    }
    Ok(wait)
}

fn not_built(raw: &Raw<'_>) -> Vec<&'static str> {
    let given = |name: &&'static str| {
        raw.text(name)
            .is_some_and(|value| !value.is_empty() && value != "false")
    };
    FLAGS
        .iter()
        .filter(|row| !row.built)
        .map(|row| row.name)
        .filter(given)
        .collect()
}

/// Without Envoy, nobody outside of this machine is served unless somebody says so.
fn broker_address(raw: &Raw<'_>, standalone: bool) -> Checked<String> {
    let default = if standalone {
        "127.0.0.1:8080"
    } else {
        "0.0.0.0:8080"
    };
    raw.address("mcp-broker-public-address", default)
}

fn config_files(raw: &Raw<'_>) -> Vec<PathBuf> {
    match raw.text("mcp-gateway-config") {
        Some(path) => vec![PathBuf::from(path)],
        None => vec![
            "./config/mcp-system/config.yaml".into(),
            "./config/samples/config.yaml".into(),
        ],
    }
}

fn config_secret(raw: &Raw<'_>) -> Checked<Option<(String, String)>> {
    let flag = "mcp-gateway-config-secret";
    let Some(text) = raw.text(flag).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Some((namespace.to_owned(), name.to_owned())))
        }
        _ => bad(flag, "<namespace>/<name> is expected"),
    }
}

fn api_server(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let host = env("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let port = env("KUBERNETES_SERVICE_PORT")
        .filter(|port| !port.is_empty())
        .unwrap_or_else(|| "443".to_owned());
    Some(format!("https://{host}:{port}"))
}

fn public_host(raw: &Raw<'_>) -> Checked<String> {
    let flag = "mcp-gateway-public-host";
    let text = raw.text(flag).unwrap_or_default();
    let host = crate::protocol::host::without_port(text).to_ascii_lowercase();
    if host.contains('/') || host.contains(' ') {
        return bad(flag, "a host name is expected, without scheme or path");
    }
    Ok(host)
}

fn private_host(raw: &Raw<'_>) -> Checked<PrivateHost> {
    let flag = "mcp-gateway-private-host";
    let text = raw
        .text(flag)
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_PRIVATE_HOST);
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let Ok(url) = url::Url::parse(&with_scheme) else {
        return bad(flag, "[http://|https://]host[:port] is expected");
    };
    let tls = url.scheme() == "https";
    match url.host_str() {
        Some(host) if tls || url.scheme() == "http" => Ok(PrivateHost {
            tls,
            host: host.to_ascii_lowercase(),
            port: url.port().unwrap_or(if tls { 443 } else { 80 }),
        }),
        _ => bad(flag, "[http://|https://]host[:port] is expected"),
    }
}

fn metrics_address(raw: &Raw<'_>, standalone: bool) -> Checked<Option<String>> {
    if raw.text("metrics-addr") == Some("") {
        return Ok(None);
    }
    let default = if standalone {
        "127.0.0.1:9090"
    } else {
        "0.0.0.0:9090"
    };
    raw.address("metrics-addr", default).map(Some)
}

fn keys(raw: &Raw<'_>, standalone: bool) -> Checked<KeyOptions> {
    let flag = "gateway-signing-key";
    let signing = raw
        .or_env(flag, &["GATEWAY_SIGNING_KEY", "JWT_SESSION_SIGNING_KEY"])
        .map(Secret::new);
    let previous = (raw.env)("GATEWAY_SIGNING_KEY_PREVIOUS")
        .filter(|key| !key.is_empty())
        .map(Secret::new);
    let short = |key: &Option<Secret>| key.as_ref().is_some_and(|key| key.len() < MIN_KEY_BYTES);
    if short(&signing) || short(&previous) {
        return bad(
            flag,
            "at least 32 bytes are needed (also GATEWAY_SIGNING_KEY, GATEWAY_SIGNING_KEY_PREVIOUS)",
        );
    }
    if signing.is_none() && !standalone {
        return bad(
            flag,
            "a key of at least 32 bytes is needed (or GATEWAY_SIGNING_KEY)",
        );
    }
    Ok(KeyOptions { signing, previous })
}

fn session_length(raw: &Raw<'_>) -> Checked<Duration> {
    let day = Duration::from_secs(1440 * 60);
    let length = raw.duration("session-length", 60, 1440)?;
    Ok(if length.is_zero() { day } else { length })
}

fn cache_connection(raw: &Raw<'_>) -> Checked<Secret> {
    let flag = "cache-connection-string";
    let text = raw.or_env(flag, &["CACHE_CONNECTION_STRING"]).unwrap_or_default();
    if text.is_empty() || text.starts_with("redis://") || text.starts_with("rediss://") {
        return Ok(Secret::new(text));
    }
    bad(flag, "redis:// or rediss:// is expected")
}

fn check_interval(raw: &Raw<'_>) -> Checked<Duration> {
    let flag = "mcp-check-interval";
    let interval = raw.duration(flag, 1, 60)?;
    if interval.is_zero() {
        bad(flag, "a number of seconds above 0 is expected")
    } else {
        Ok(interval)
    }
}

fn body_limit(raw: &Raw<'_>) -> Checked<usize> {
    let limit = raw.integer("max-request-body-size", 5_242_880)?;
    let limit = if limit <= 0 {
        HARD_BODY_LIMIT
    } else {
        limit.min(HARD_BODY_LIMIT)
    };
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn at_least(flag: &'static str, value: Duration, seconds: u64) -> Checked<Duration> {
    if value < Duration::from_secs(seconds) {
        bad(flag, &format!("at least {seconds} seconds"))
    } else {
        Ok(value)
    }
}

fn page_size(raw: &Raw<'_>) -> Checked<usize> {
    match usize::try_from(raw.integer("page-size", 1000)?) {
        Ok(size) if size > 0 => Ok(size),
        _ => bad("page-size", "a number above 0 is expected"),
    }
}

fn log_level(raw: &Raw<'_>) -> Checked<LogLevel> {
    let flag = "log-level";
    let text = raw.text(flag).unwrap_or("0");
    match text.to_ascii_lowercase().as_str() {
        "debug" => return Ok(LogLevel::Debug),
        "info" => return Ok(LogLevel::Info),
        "warn" | "warning" => return Ok(LogLevel::Warn),
        "error" => return Ok(LogLevel::Error),
        _ => {}
    }
    match text.parse::<i64>() {
        Ok(level) if level < 0 => Ok(LogLevel::Debug),
        Ok(level) if level < 4 => Ok(LogLevel::Info),
        Ok(level) if level < 8 => Ok(LogLevel::Warn),
        Ok(_) => Ok(LogLevel::Error),
        Err(_) => bad(
            flag,
            "accepted values: -4, 0, 4, 8, numbers between, debug, info, warn, error",
        ),
    }
}

fn oauth(raw: &Raw<'_>) -> OauthOptions {
    let one = |name: &str, default: &str| {
        (raw.env)(name)
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| default.to_owned())
    };
    OauthOptions {
        resource_name: one("OAUTH_RESOURCE_NAME", "MCP Server"),
        resource: one("OAUTH_RESOURCE", "/mcp"),
        authorization_servers: raw.env_list("OAUTH_AUTHORIZATION_SERVERS", ""),
        bearer_methods: raw.env_list("OAUTH_BEARER_METHODS_SUPPORTED", "header"),
        scopes: raw
            .env_list("OAUTH_SCOPES_SUPPORTED", "basic")
            .into_iter()
            .filter(|scope| scope != "offline_access")
            .collect(),
    }
}
