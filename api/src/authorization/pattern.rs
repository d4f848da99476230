//! Names of items in rules: `*`, or `<namespace>/<server>:<item>` with `*` for any run inside a segment (operator.md 10.2).

/// A parsed resource name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResourcePattern {
    Everything,
    Named {
        namespace: String,
        server: String,
        item: String,
    },
}

impl ResourcePattern {
    /// `None` when it is neither `*` nor has a `/` followed by a `:`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everything);
        }
        let (namespace, rest) = text.split_once('/')?;
        let (server, item) = rest.split_once(':')?;
        let parts = [namespace, server, item];
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let [namespace, server, item] = parts.map(str::to_owned);
        Some(Self::Named {
            namespace,
            server,
            item,
        })
    }

    /// `<namespace>/<server>` when the pattern names one server without `*`.
    pub(super) fn server(&self) -> Option<String> {
        match self {
            Self::Named {
                namespace, server, ..
            } if !namespace.contains('*') && !server.contains('*') => Some(format!("{namespace}/{server}")),
            _ => None,
        }
    }

    /// The item when the pattern names one without `*`.
    pub(super) fn item(&self) -> Option<&str> {
        match self {
            Self::Named { item, .. } if !item.contains('*') => Some(item),
            _ => None,
        }
    }

    /// True when the pattern covers item `item` of server `<namespace>/<name>`.
    pub(super) fn matches(&self, server: &str, item: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Named {
                namespace,
                server: name,
                item: wanted,
            } => server.split_once('/').is_some_and(|(its_namespace, its_name)| {
                glob(namespace, its_namespace) && glob(name, its_name) && glob(wanted, item)
            }),
        }
    }
}

/// Byte-wise comparison in which `*` stands for any run, also an empty one. Linear in the text for each literal part.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_inside_its_segment() {
        for (pattern, text) in [
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("*b*", "abc"),
            ("*", ""),
            ("a**c", "abbc"),
            ("abc", "abc"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a*", "ba"),
            ("*c", "cb"),
            ("a*c", "a"),
            ("a*bc", "abcb"),
            ("ab*ba", "aba"),
            ("A", "a"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn names_split_at_the_first_slash_and_the_first_colon_after_it() {
        let pattern = ResourcePattern::parse("default/files:file:///a/b:c").expect("a name");
        assert!(pattern.matches("default/files", "file:///a/b:c"));
        assert!(!pattern.matches("default/other", "file:///a/b:c"));
        for bad in [
            "",
            "tool",
            "ns/server",
            "ns:server/tool",
            "/server:tool",
            "ns/:tool",
            "ns/server:",
        ] {
            assert_eq!(ResourcePattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_star_in_one_segment_does_not_reach_into_the_next() {
        let pattern = ResourcePattern::parse("team-a/*:get_*").expect("a name");
        assert!(pattern.matches("team-a/weather", "get_forecast"));
        assert!(!pattern.matches("team-b/weather", "get_forecast"));
        assert!(!pattern.matches("team-a/weather", "set_forecast"));
    }
}
