//! Log levels as operator and webhook take them (operator.md 11.1): names, or -4 debug, 0 info, 4 warn, 8 error. Pure.

/// A level by name or number.
#[must_use]
pub fn parse(text: &str) -> Option<i32> {
    match text.trim().to_ascii_lowercase().as_str() {
        "trace" => Some(-8),
        "debug" => Some(-4),
        "info" => Some(0),
        "warn" | "warning" => Some(4),
        "error" => Some(8),
        other => other.parse().ok(),
    }
}

/// The word for a filter of log lines; what is no level counts as info.
#[must_use]
pub fn word(level: Option<i32>) -> &'static str {
    match level {
        Some(..=-8) => "trace",
        Some(-7..0) => "debug",
        Some(1..=4) => "warn",
        Some(5..) => "error",
        Some(0) | None => "info",
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
            ("trace", "trace"),
            ("?", "info"),
        ] {
            assert_eq!(word(parse(given)), level, "{given}");
        }
    }
}
