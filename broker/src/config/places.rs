//! Where the servers of a file stand, so that what is wrong with one of them is named with its line.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::HashMap;
use std::fmt;

/// Lines of server entries, from 1.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Of entries of a list, in its order.
    listed: Vec<u64>,
    /// Of entries that stand under their names.
    named: HashMap<String, u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Top {
    servers: Places,
    mcp_servers: Places,
}

impl Places {
    /// Reads the places from a document; what cannot be read has none.
    pub(super) fn of(text: &str) -> Self {
        let Top { servers, mcp_servers } = serde_saphyr::from_str(text).unwrap_or_default();
        let mut named = servers.named;
        named.extend(mcp_servers.named);
        Self {
            listed: servers.listed,
            named,
        }
    }

    /// What stands before words about the entry at this position (lists come first): its line, as far as it is known.
    pub(super) fn prefix(&self, position: usize, entry: &Value) -> String {
        let name = || entry.get("name").and_then(Value::as_str);
        let line = self
            .listed
            .get(position)
            .or_else(|| name().and_then(|name| self.named.get(name)));
        line.map(|line| format!("line {line}: ")).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Places, E> {
        Ok(Places::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Places, A::Error> {
        let mut places = Places::default();
        while let Some(entry) = entries.next_element::<Spanned<IgnoredAny>>()? {
            places.listed.push(entry.referenced.line());
        }
        Ok(places)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Places, A::Error> {
        let mut places = Places::default();
        while let Some(name) = entries.next_key::<Spanned<String>>()? {
            entries.next_value::<IgnoredAny>()?;
            places.named.insert(name.value, name.referenced.line());
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_of_lists_and_of_mappings_have_their_lines() {
        let places =
            Places::of("# servers\nservers:\n- name: a\n  url: b\n\n- {name: c,\n   url: d}\nhash: e\n");
        assert_eq!(places.listed, [3, 6]);
        let text = "{\n  \"mcpServers\": {\n    \"a\": {\"command\": \"b\"},\n    \"c\": {}\n  }\n}\n";
        let places = Places::of(text);
        assert_eq!(places.prefix(0, &json!({"name": "a"})), "line 3: ");
        assert_eq!(places.prefix(1, &json!({"name": "c"})), "line 4: ");
        assert_eq!(places.prefix(2, &json!({"name": "d"})), "");
    }

    #[test]
    fn what_has_another_shape_has_no_place() {
        for text in ["servers: 1\n", "servers:\n", "- a\n", "a: [}\n", ""] {
            assert_eq!(Places::of(text), Places::default(), "{text}");
        }
    }
}
