//! One line per event on stdout: text `time= level= msg= k=v` or JSON with the same keys (data-plane.md 18.4).

use super::output::Gathered;
use crate::options::LogLevel;
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Longest line, bytes.
const MAX_LINE: usize = 8 * 1024;

struct Line {
    json: bool,
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    fn put(&mut self, name: &'static str, value: String) {
        if name == "message" {
            self.message = value;
        } else {
            self.rest.push((name, value));
        }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = jiff::Timestamp::now().to_string();
        let level = event.metadata().level().as_str();
        let pairs = [
            ("time", time.as_str()),
            ("level", level),
            ("msg", fields.message.as_str()),
        ];
        let rest = fields.rest.iter().map(|(name, value)| (*name, value.as_str()));
        let mut line = render(self.json, pairs.into_iter().chain(rest));
        if line.len() > MAX_LINE {
            let mut end = MAX_LINE;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push('…');
        }
        writeln!(writer, "{line}")
    }
}

fn render<'a>(json: bool, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let quoted = crate::protocol::json::quoted;
    let mut line = String::new();
    for (name, value) in pairs {
        let result = if json {
            let separator = if line.is_empty() { '{' } else { ',' };
            write!(line, "{separator}{}:{}", quoted(name), quoted(value))
        } else {
            let separator = if line.is_empty() { "" } else { " " };
            let plain = !value.is_empty()
                && value
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'));
            let value = if plain { value.to_owned() } else { quoted(value) };
            write!(line, "{separator}{name}={value}")
        };
        debug_assert!(result.is_ok(), "writing to a string cannot fail");
    }
    if json {
        line.push('}');
    }
    line
}

/// Starts logging. A second call changes nothing.
pub fn start(level: LogLevel, json: bool) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Libraries speak from warn on; at debug they would print requests of their own.
    let ours = tracing_subscriber::filter::Targets::new()
        .with_target("mcp_gateway_broker", level)
        .with_default(level.min(LevelFilter::WARN));
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Line { json })
        .with_writer(Gathered::start());
    let _ = tracing_subscriber::registry().with(ours).with(layer).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_contracts_keys_and_cannot_be_forged() {
        let pairs = [
            ("time", "t"),
            ("level", "INFO"),
            ("msg", "Two words"),
            ("error", "a\nlevel=ERROR"),
        ];
        assert_eq!(
            render(false, pairs.into_iter()),
            "time=t level=INFO msg=\"Two words\" error=\"a\\nlevel=ERROR\""
        );
        assert_eq!(
            render(true, pairs.into_iter()),
            r#"{"time":"t","level":"INFO","msg":"Two words","error":"a\nlevel=ERROR"}"#
        );
    }
}
