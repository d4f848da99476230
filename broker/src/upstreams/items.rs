//! What a server lists, validated item by item (data-plane.md 5.3). Definitions are kept as the server's own bytes.

mod kind;

use crate::options::InvalidToolPolicy;
use crate::protocol::json::{Kind, Reader};
use crate::protocol::mirror::{self, Mirror};
pub use kind::ItemKind;
use mcp_gateway_api::broker_status::InvalidItem;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Largest definition, bytes.
pub const MAX_DEFINITION: usize = 256 * 1024;
const MAX_SCHEMA_DEPTH: u32 = 64;
/// Reported invalid items per kind.
const MAX_REPORTED: usize = 100;
const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "number", "string", "integer",
];

/// Behaviour hints of a tool; `None` is unspecified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `readOnlyHint`
    pub read_only: Option<bool>,
    /// `destructiveHint`
    pub destructive: Option<bool>,
    /// `idempotentHint`
    pub idempotent: Option<bool>,
    /// `openWorldHint`
    pub open_world: Option<bool>,
}

/// One valid item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The server's own name, URI or URI template.
    pub key: String,
    /// The definition as the server sent it.
    pub definition: Arc<str>,
    /// Where the key's token stands in the definition.
    pub key_range: Range<usize>,
    /// Hints of a tool.
    pub hints: Hints,
    /// Arguments of a tool that clients of the stateless revision repeat in headers, or why they cannot use it.
    pub mirrors: Result<Arc<[Mirror]>, String>,
    /// `annotations` of the definition, for conditions of policies.
    pub annotations: Option<Arc<Map<String, Value>>>,
}

/// How long a list of a server may be kept, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheHints {
    /// Milliseconds.
    pub ttl_ms: u64,
    /// By the caller alone.
    pub private: bool,
}

impl Default for CacheHints {
    fn default() -> Self {
        Self {
            ttl_ms: 0,
            private: true,
        }
    }
}

impl CacheHints {
    /// The hints of a list that both went into.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self {
            ttl_ms: self.ttl_ms.min(other.ttl_ms),
            private: self.private || other.private,
        }
    }
}

/// One list of a server after validation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindItems {
    /// Valid items, in the server's order, without doubles.
    pub items: Vec<Item>,
    /// What does not validate.
    pub invalid: Vec<InvalidItem>,
    /// Number of invalid items, also beyond those reported.
    pub invalid_count: u64,
    /// The list was cut at a limit.
    pub truncated: bool,
    /// What the server said of all pages; `None` when it said nothing.
    pub cache: Option<CacheHints>,
}

/// All lists of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    /// Tools.
    pub tools: KindItems,
    /// Prompts.
    pub prompts: KindItems,
    /// Resources.
    pub resources: KindItems,
    /// Resource templates.
    pub templates: KindItems,
}

impl Items {
    /// The list of one kind.
    pub fn of(&self, kind: ItemKind) -> &KindItems {
        match kind {
            ItemKind::Tool => &self.tools,
            ItemKind::Prompt => &self.prompts,
            ItemKind::Resource => &self.resources,
            ItemKind::Template => &self.templates,
        }
    }

    /// The memory that the definitions take, about, bytes.
    pub fn bytes(&self) -> usize {
        let items = ItemKind::ALL.into_iter().flat_map(|kind| &self.of(kind).items);
        items
            .map(|item| item.definition.len() + item.key.len() + size_of::<Item>())
            .sum()
    }

    /// The list of one kind, to replace it.
    pub fn of_mut(&mut self, kind: ItemKind) -> &mut KindItems {
        match kind {
            ItemKind::Tool => &mut self.tools,
            ItemKind::Prompt => &mut self.prompts,
            ItemKind::Resource => &mut self.resources,
            ItemKind::Template => &mut self.templates,
        }
    }

    /// True when any item does not validate and the policy withdraws the server for it.
    pub fn rejected(&self, policy: InvalidToolPolicy) -> bool {
        policy == InvalidToolPolicy::RejectServer && self.tools.invalid_count > 0
    }
}

impl KindItems {
    /// Takes one definition of a list; `known` are the keys of the others.
    pub fn add(&mut self, kind: ItemKind, definition: &str, known: &mut HashSet<String>) {
        match validated(kind, definition) {
            Ok(item) if !known.insert(item.key.clone()) => {
                self.refuse(
                    &item.key,
                    vec![format!("{} occurs twice in the list", kind.key())],
                );
            }
            Ok(item) => self.items.push(item),
            Err((name, errors)) => self.refuse(&name, errors),
        }
    }

    /// Takes out the tools that no client of the stateless revision can use.
    pub fn refuse_unusable(&mut self) {
        for item in std::mem::take(&mut self.items) {
            match &item.mirrors {
                Ok(_) => self.items.push(item),
                Err(error) => self.refuse(&item.key, vec![error.clone()]),
            }
        }
    }

    fn refuse(&mut self, name: &str, errors: Vec<String>) {
        self.invalid_count += 1;
        if self.invalid.len() < MAX_REPORTED {
            self.invalid.push(InvalidItem {
                name: name.chars().take(256).collect(),
                errors,
            });
        }
    }
}

fn validated(kind: ItemKind, definition: &str) -> Result<Item, (String, Vec<String>)> {
    if definition.len() > MAX_DEFINITION {
        return Err((
            String::new(),
            vec![format!("definition larger than {MAX_DEFINITION} bytes")],
        ));
    }
    let (key_range, key) = find_key(kind, definition).map_err(|error| (String::new(), vec![error]))?;
    let Ok(value) = serde_json::from_str::<Value>(definition) else {
        return Err((key, vec!["definition is not valid JSON".to_owned()]));
    };
    let mut errors = Vec::new();
    if key.is_empty() {
        errors.push(format!("{} is empty", kind.key()));
    }
    match kind {
        ItemKind::Tool => {
            check_schema(&value, "inputSchema", true, &mut errors);
            check_schema(&value, "outputSchema", false, &mut errors);
        }
        ItemKind::Prompt => check_arguments(&value, &mut errors),
        ItemKind::Resource | ItemKind::Template => {
            if !value.get("name").is_some_and(Value::is_string) {
                errors.push("name is missing".to_owned());
            }
        }
    }
    if errors.is_empty() {
        Ok(Item {
            key,
            definition: definition.into(),
            key_range,
            hints: hints(&value),
            mirrors: value
                .get("inputSchema")
                .map_or(Ok(Vec::new()), mirror::mirrors)
                .map(Into::into),
            annotations: match value.get("annotations") {
                Some(Value::Object(members)) => Some(Arc::new(members.clone())),
                _ => None,
            },
        })
    } else {
        Err((key, errors))
    }
}

/// Finds the one member that identifies the item.
fn find_key(kind: ItemKind, definition: &str) -> Result<(Range<usize>, String), String> {
    let mut found = Vec::new();
    let mut reader = Reader::new(definition);
    let read = reader.members(&mut |reader, name| {
        let value_kind = reader.kind()?;
        let range = reader.value()?;
        if name == kind.key() {
            let text = if value_kind == Kind::String {
                Some(reader.unescaped(range.clone())?.into_owned())
            } else {
                None
            };
            found.push((range, text));
        }
        Ok(())
    });
    read.map_err(|_| "definition is not a valid JSON object".to_owned())?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(format!("{} is missing", kind.key())),
        (Some(_), false) => Err(format!("{} occurs twice", kind.key())),
        (Some((_, None)), true) => Err(format!("{} is not a string", kind.key())),
        (Some((range, Some(text))), true) => Ok((range, text)),
    }
}

fn check_schema(value: &Value, member: &str, required: bool, errors: &mut Vec<String>) {
    let Some(schema) = value.get(member) else {
        if required {
            errors.push(format!("{member} is missing"));
        }
        return;
    };
    let Some(object) = schema.as_object() else {
        errors.push(format!("{member} must be an object"));
        return;
    };
    if object.get("type").and_then(Value::as_str) != Some("object") {
        errors.push(format!("{member}.type must be \"object\""));
    }
    if depth(schema) > MAX_SCHEMA_DEPTH {
        errors.push(format!("{member} nests deeper than {MAX_SCHEMA_DEPTH}"));
    }
    match object.get("properties") {
        None => {}
        Some(Value::Object(properties)) => {
            for (name, property) in properties {
                check_property(&format!("{member}.properties.{name}"), property, errors);
            }
        }
        Some(_) => errors.push(format!("{member}.properties must be an object")),
    }
}

fn check_property(place: &str, property: &Value, errors: &mut Vec<String>) {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match property {
        Value::Bool(_) => {}
        Value::Object(members) => match members.get("type") {
            None => {}
            Some(Value::Array(types)) if !types.is_empty() && types.iter().all(known) => {}
            Some(name) if known(name) => {}
            Some(_) => errors.push(format!("{place}.type is no JSON Schema type")),
        },
        _ => errors.push(format!("{place} must be an object or a boolean")),
    }
}

fn check_arguments(value: &Value, errors: &mut Vec<String>) {
    match value.get("arguments") {
        None | Some(Value::Null) => {}
        Some(Value::Array(arguments)) => {
            let named = |argument: &Value| {
                argument
                    .get("name")
                    .and_then(Value::as_str)
                    .is_some_and(|name| !name.is_empty())
            };
            for (position, _) in arguments
                .iter()
                .enumerate()
                .filter(|(_, argument)| !named(argument))
            {
                errors.push(format!("arguments[{position}].name is missing"));
            }
        }
        Some(_) => errors.push("arguments must be an array".to_owned()),
    }
}

fn depth(value: &Value) -> u32 {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn hints(value: &Value) -> Hints {
    let hint = |name: &str| {
        value
            .get("annotations")
            .and_then(|annotations| annotations.get(name))
            .and_then(Value::as_bool)
    };
    Hints {
        read_only: hint("readOnlyHint"),
        destructive: hint("destructiveHint"),
        idempotent: hint("idempotentHint"),
        open_world: hint("openWorldHint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(definition: &str) -> KindItems {
        tools(&[definition])
    }

    fn tools(definitions: &[&str]) -> KindItems {
        let (mut items, mut known) = (KindItems::default(), HashSet::new());
        for definition in definitions {
            items.add(ItemKind::Tool, definition, &mut known);
        }
        items
    }

    #[test]
    fn d41_a_definition_keeps_the_servers_own_bytes() {
        let text = r#"{ "title":"F\u00e9", "name":"forecast","inputSchema":{"type":"object"},"execution":{"x":1e2},"icons":[] }"#;
        let items = tool(text);
        assert_eq!(&*items.items[0].definition, text);
        assert_eq!(text.get(items.items[0].key_range.clone()), Some("\"forecast\""));
    }

    #[test]
    fn d42_type_lists_and_boolean_subschemas_are_valid() {
        let items = tool(
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"day":{"type":["string","null"]},"any":true}}}"#,
        );
        assert_eq!((items.items.len(), items.invalid_count), (1, 0));
    }

    #[test]
    fn what_is_wrong_is_listed_completely() {
        let items = tool(
            r#"{"name":"","inputSchema":{"type":"array","properties":{"a":7,"b":{"type":"text"},"c":{"type":[]}}},"outputSchema":7}"#,
        );
        assert_eq!(items.invalid[0].errors.len(), 6, "{:?}", items.invalid);
        for bad in [
            "7",
            "{}",
            r#"{"name":7}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","name":"b","inputSchema":{"type":"object"}}"#,
        ] {
            assert_eq!(tool(bad).invalid_count, 1, "{bad}");
        }
    }

    #[test]
    fn s23_a_definition_has_its_size_and_a_schema_its_depth() {
        let sized = |size: usize| {
            let text = |filling: &str| {
                format!(r#"{{"name":"a","description":"{filling}","inputSchema":{{"type":"object"}}}}"#)
            };
            tool(&text(&"x".repeat(size - text("").len())))
        };
        assert_eq!(sized(MAX_DEFINITION).invalid_count, 0);
        assert_eq!(sized(MAX_DEFINITION + 1).invalid_count, 1);
        let nested = |levels: u32| {
            let inner = format!("{}1{}", "[".repeat(levels as usize), "]".repeat(levels as usize));
            tool(&format!(
                r#"{{"name":"a","inputSchema":{{"type":"object","default":{inner}}}}}"#
            ))
        };
        let fits = (1..MAX_SCHEMA_DEPTH + 2).filter(|levels| nested(*levels).invalid_count == 0);
        assert_eq!(
            fits.max(),
            Some(MAX_SCHEMA_DEPTH - 1),
            "the schema itself is a level"
        );
    }

    #[test]
    fn a_name_listed_twice_is_served_once() {
        let items = tools(&[r#"{"name":"a","inputSchema":{"type":"object"}}"#; 2]);
        assert_eq!((items.items.len(), items.invalid_count), (1, 1));
    }
}
