//! Wall-clock time as the tokens use it. Pure code gets it as a value.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// The current time as RFC 3339 text.
pub fn rfc3339() -> String {
    jiff::Timestamp::now().to_string()
}
