//! Log output: level and format.

use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// Installs the global subscriber; a second call does nothing.
pub(crate) fn install(level: &str, format: LogFormat) {
    let filter = EnvFilter::new(format!("{},kube=warn,hyper=warn,rustls=warn", level_name(level)));
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

/// Names are taken as they are; numbers are those of the operator: -4 debug, 0 info, 4 warn, 8 error.
fn level_name(level: &str) -> &'static str {
    match level.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "warn" | "warning" => "warn",
        "error" => "error",
        other => match other.parse::<i32>() {
            Ok(number) if number < 0 => "debug",
            Ok(1..=4) => "warn",
            Ok(5..) => "error",
            _ => "info",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_names_or_numbers() {
        for (given, level) in [
            ("-4", "debug"),
            ("0", "info"),
            ("4", "warn"),
            ("8", "error"),
            ("Debug", "debug"),
            ("?", "info"),
        ] {
            assert_eq!(level_name(given), level);
        }
    }
}
