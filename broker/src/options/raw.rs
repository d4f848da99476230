//! Typed reads of raw flag values and environment variables.

use super::flags::{FlagError, RawFlags};
use std::time::Duration;

/// Flags and environment, not yet judged.
pub(super) struct Raw<'a> {
    pub(super) flags: &'a RawFlags,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

/// A value or the line that refuses the start.
pub(super) type Checked<T> = Result<T, FlagError>;

/// Refuses a flag.
pub(super) fn bad<T>(flag: &'static str, accepted: &str) -> Checked<T> {
    Err(FlagError::BadValue {
        flag,
        accepted: accepted.to_owned(),
    })
}

impl Raw<'_> {
    pub(super) fn text(&self, flag: &'static str) -> Option<&str> {
        self.flags.get(flag).map(String::as_str)
    }

    pub(super) fn or_env(&self, flag: &'static str, variables: &[&str]) -> Option<String> {
        let from_env = || {
            variables
                .iter()
                .find_map(|name| (self.env)(name).filter(|value| !value.is_empty()))
        };
        self.text(flag)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .or_else(from_env)
    }

    pub(super) fn switch(&self, flag: &'static str, default: bool) -> bool {
        self.text(flag).map_or(default, |value| value == "true")
    }

    pub(super) fn integer(&self, flag: &'static str, default: i64) -> Checked<i64> {
        match self.text(flag) {
            None => Ok(default),
            Some(text) => text.parse().or_else(|_| bad(flag, "an integer is expected")),
        }
    }

    /// A duration as an integer in `unit` seconds, or as text such as `90s`, `5m`, `1h`, `250ms`.
    pub(super) fn duration(&self, flag: &'static str, unit: u64, default: u64) -> Checked<Duration> {
        let Some(text) = self.text(flag) else {
            return Ok(Duration::from_secs(default * unit));
        };
        if let Ok(number) = text.parse::<i64>() {
            let number = u64::try_from(number).unwrap_or(0);
            return Ok(Duration::from_secs(number.saturating_mul(unit)));
        }
        parse_duration(text).map_or_else(
            || bad(flag, "an integer or a duration such as 90s is expected"),
            Ok,
        )
    }

    pub(super) fn one_of(&self, flag: &'static str, values: &[&'static str]) -> Checked<&'static str> {
        let Some(text) = self.text(flag) else {
            return Ok(values.first().copied().unwrap_or_default());
        };
        match values.iter().find(|value| **value == text) {
            Some(value) => Ok(value),
            None => bad(flag, &format!("accepted values: {}", values.join(", "))),
        }
    }

    pub(super) fn address(&self, flag: &'static str, default: &str) -> Checked<String> {
        let text = self.text(flag).unwrap_or(default);
        let text = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.to_owned()
        };
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text),
            _ => bad(flag, "host:port is expected"),
        }
    }

    pub(super) fn env_list(&self, name: &str, default: &str) -> Vec<String> {
        list(&(self.env)(name).unwrap_or_else(|| default.to_owned()))
    }
}

/// `90s`, `5m`, `1h`, `250ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match text.strip_prefix(digits)? {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

/// A comma list, trimmed, without empty elements.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
