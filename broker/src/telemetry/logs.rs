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

/// A line as its event is read: what comes first, and the fields, written as they come; the message stands before them
/// wherever it comes.
struct Fields {
    head: Pairs,
    rest: Pairs,
}

impl Fields {
    fn new(json: bool) -> Self {
        Self {
            head: Pairs::new(json, if json { "{" } else { "" }),
            rest: Pairs::new(json, ""),
        }
    }

    /// The end of the line; the rest goes before it.
    fn write_to(&self, writer: &mut impl fmt::Write) -> fmt::Result {
        let separator = if self.rest.text.is_empty() {
            ""
        } else {
            self.rest.separator()
        };
        let mut left = MAX_LINE;
        for part in [self.head.text.as_str(), separator, self.rest.text.as_str()] {
            let fits = part.floor_char_boundary(left.min(part.len()));
            let (kept, cut) = part.split_at(fits);
            writer.write_str(kept)?;
            if !cut.is_empty() {
                return writer.write_str("…\n");
            }
            left -= fits;
        }
        writer.write_str(if self.rest.json { "}\n" } else { "\n" })
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.head.put("msg", value),
            name => self.rest.put(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.put_plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.put_plain(field.name(), value);
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
        let mut fields = Fields::new(self.json);
        fields.head.put("time", &jiff::Timestamp::now().to_string());
        fields.head.put("level", event.metadata().level().as_str());
        event.record(&mut fields);
        fields.write_to(&mut writer)
    }
}

/// Part of a line.
struct Pairs {
    json: bool,
    text: String,
    /// Where the first pair begins.
    begin: usize,
}

impl Pairs {
    fn new(json: bool, opening: &str) -> Self {
        let mut text = String::with_capacity(TYPICAL_LINE);
        text.push_str(opening);
        Self {
            json,
            text,
            begin: opening.len(),
        }
    }

    fn separator(&self) -> &'static str {
        if self.json { "," } else { " " }
    }

    fn quote(&self) -> &'static str {
        if self.json { "\"" } else { "" }
    }

    fn put(&mut self, name: &str, value: &str) {
        let plain = !value.is_empty()
            && value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'));
        self.name(name);
        if plain {
            let quote = self.quote();
            for part in [quote, value, quote] {
                self.text.push_str(part);
            }
        } else {
            self.text.push_str(&crate::protocol::json::quoted(value));
        }
    }

    /// A number or a truth value: its text needs no escape.
    fn put_plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let quote = self.quote();
        let written = write!(self.text, "{quote}{value}{quote}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > self.begin {
            self.text.push_str(self.separator());
        }
        let quote = self.quote();
        for part in [quote, name, quote, if self.json { ":" } else { "=" }] {
            self.text.push_str(part);
        }
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
        let line = |json, fields: &[(&str, &str)]| {
            let mut line = Fields::new(json);
            for (name, value) in [("time", "t"), ("level", "INFO"), ("msg", "Two words")] {
                line.head.put(name, value);
            }
            for (name, value) in fields {
                line.rest.put(name, value);
            }
            let mut text = String::new();
            line.write_to(&mut text).unwrap();
            text
        };
        let forged = [("error", "a\nlevel=ERROR")];
        assert_eq!(
            line(false, &forged),
            "time=t level=INFO msg=\"Two words\" error=\"a\\nlevel=ERROR\"\n"
        );
        assert_eq!(
            line(true, &forged),
            "{\"time\":\"t\",\"level\":\"INFO\",\"msg\":\"Two words\",\"error\":\"a\\nlevel=ERROR\"}\n"
        );
        assert_eq!(line(false, &[]), "time=t level=INFO msg=\"Two words\"\n");
        let long = "é".repeat(MAX_LINE);
        let cut = line(false, &[("error", &long)]);
        assert!(cut.ends_with("é…\n") && cut.len() <= MAX_LINE + "…\n".len());
    }
}
