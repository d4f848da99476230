//! Protocol revisions (mcp.md 1.1) and what the gateway does with each.

/// First revision of the modern era.
pub const MODERN: &str = "2026-07-28";
/// Newest revision that `initialize` negotiates.
pub const LATEST_LEGACY: &str = "2025-11-25";
/// Revision assumed when a legacy request says nothing and has no session.
pub const ASSUMED: &str = "2025-03-26";
/// Revisions of the legacy era that the gateway serves, newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// A dialect of 2025-03-26 without batches; echoed at `initialize`.
pub const OLDEST: &str = "2024-11-05";

/// All revisions that the gateway serves, newest first.
pub const SERVED: [&str; 4] = [MODERN, LEGACY[0], LEGACY[1], LEGACY[2]];

/// How a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Era {
    /// Sessions, opened by `initialize`.
    #[default]
    Legacy,
    /// Every request stands alone.
    Modern,
}

impl Era {
    /// The word in status, metadata and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }

    /// The era of a negotiated revision.
    pub fn of(version: &str) -> Self {
        if is_modern(version) {
            Self::Modern
        } else {
            Self::Legacy
        }
    }
}

/// The revision that `initialize` answers: a served one is echoed, everything else gets the newest.
pub fn negotiate(requested: Option<&str>) -> &'static str {
    requested.and_then(served).unwrap_or(LATEST_LEGACY)
}

/// The static form of a legacy revision that is served.
pub fn served(version: &str) -> Option<&'static str> {
    LEGACY
        .iter()
        .copied()
        .chain([OLDEST])
        .find(|known| *known == version)
}

/// True for every revision that the gateway knows, of either era.
pub fn is_known(version: &str) -> bool {
    version == MODERN || served(version).is_some()
}

/// True when the header value or `_meta` member belongs to the modern era. Revisions are dates, so text order is age.
pub fn is_modern(version: &str) -> bool {
    version.len() == MODERN.len() && version >= MODERN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_versions_are_echoed_and_others_get_the_newest() {
        assert_eq!(negotiate(Some("2025-03-26")), "2025-03-26");
        assert_eq!(negotiate(Some("2024-11-05")), "2024-11-05");
        assert_eq!(negotiate(Some("1999-01-01")), "2025-11-25");
        assert_eq!(negotiate(None), "2025-11-25");
    }

    #[test]
    fn the_modern_era_begins_with_its_date() {
        assert!(is_modern("2026-07-28") && is_modern("2027-01-01"));
        assert!(!is_modern("2025-11-25") && !is_modern("zzz"));
    }
}
