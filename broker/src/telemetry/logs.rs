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
/// Room for the audit line of an ordinary call, bytes.
const TYPICAL_LINE: usize = 1024;

struct Line {
    json: bool,
}

/// The fields of an event, written as they come; the message stands before the others wherever it comes.
struct Fields {
    message: String,
    rest: Pairs,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.rest.put(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
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
        let mut fields = Fields {
            message: String::new(),
            rest: Pairs::new(self.json),
        };
        event.record(&mut fields);
        let mut head = Pairs::new(self.json);
        head.put("time", &jiff::Timestamp::now().to_string());
        head.put("level", event.metadata().level().as_str());
        head.put("msg", &fields.message);
        let mut line = head.followed_by(&fields.rest);
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

/// Part of a line.
struct Pairs {
    json: bool,
    text: String,
}

impl Pairs {
    fn new(json: bool) -> Self {
        Self {
            json,
            text: String::with_capacity(TYPICAL_LINE),
        }
    }

    fn separator(&self) -> &'static str {
        if self.json { "," } else { " " }
    }

    fn put(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push_str(self.separator());
        }
        let quoted = crate::protocol::json::quoted;
        let plain = !value.is_empty()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'));
        let text = &mut self.text;
        let result = match (self.json, plain) {
            (true, true) => write!(text, "\"{name}\":\"{value}\""),
            (true, false) => write!(text, "\"{name}\":{}", quoted(value)),
            (false, true) => write!(text, "{name}={value}"),
            (false, false) => write!(text, "{name}={}", quoted(value)),
        };
        debug_assert!(result.is_ok(), "writing to a string cannot fail");
    }

    /// The whole line.
    fn followed_by(self, rest: &Self) -> String {
        let separator = if rest.text.is_empty() {
            ""
        } else {
            self.separator()
        };
        let (open, close) = if self.json { ("{", "}") } else { ("", "") };
        [open, &self.text, separator, &rest.text, close].concat()
    }
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
        let line = |json| {
            let (mut head, mut rest) = (Pairs::new(json), Pairs::new(json));
            for (name, value) in [("time", "t"), ("level", "INFO"), ("msg", "Two words")] {
                head.put(name, value);
            }
            rest.put("error", "a\nlevel=ERROR");
            head.followed_by(&rest)
        };
        assert_eq!(
            line(false),
            "time=t level=INFO msg=\"Two words\" error=\"a\\nlevel=ERROR\""
        );
        assert_eq!(
            line(true),
            r#"{"time":"t","level":"INFO","msg":"Two words","error":"a\nlevel=ERROR"}"#
        );
        assert_eq!(Pairs::new(true).followed_by(&Pairs::new(true)), "{}");
    }
}
