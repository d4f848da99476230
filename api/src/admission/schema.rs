//! Holds an object against the schema of its CRD: what the API server does before it asks a webhook, for files
//! (`mcpgw lint`), for tests and for clusters whose CRDs are older than this program. Covers the keywords that our
//! CRDs use; CEL rules are repeated in the modules of the kinds.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value};

use super::{Kind, Violation};
use crate::crds;

static SCHEMAS: LazyLock<BTreeMap<Kind, Schema>> = LazyLock::new(|| {
    let crds = crds::all().unwrap_or_default();
    crds.iter()
        .filter_map(|crd| {
            let plural = crd.manifest.pointer("/spec/names/plural")?.as_str()?;
            let schema = crd.manifest.pointer("/spec/versions/0/schema/openAPIV3Schema")?;
            Some((Kind::from_plural(plural)?, Schema::compile(schema)))
        })
        .collect()
});

/// Every violation of the schema of `kind` in `object`, with field paths. Unknown fields are not violations: the API
/// server prunes them.
#[must_use]
pub fn check(kind: Kind, object: &Value) -> Vec<Violation> {
    let mut findings = Vec::new();
    match (SCHEMAS.get(&kind), object.get("spec")) {
        (Some(schema), Some(spec)) => {
            if let Some(schema) = schema.properties.get("spec") {
                schema.check("spec", spec, &mut findings);
            }
        }
        _ => findings.push(("spec".to_owned(), "is required".to_owned())),
    }
    findings
        .into_iter()
        .map(|(field, message)| Violation::new("schema", field, kind.invalid(), message))
        .collect()
}

/// Paths of the members of `object`'s spec that the schema of `kind` does not know.
#[must_use]
pub fn unknown_fields(kind: Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let (Some(schema), Some(spec)) = (
        SCHEMAS
            .get(&kind)
            .and_then(|schema| schema.properties.get("spec")),
        object.get("spec"),
    ) {
        schema.unknown("spec", spec, &mut found);
    }
    found
}

type Findings = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Schema {
    kind: Option<String>,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    items: Option<Box<Schema>>,
    allowed: Vec<Value>,
    pattern: Option<Regex>,
    length: Bounds,
    count: Bounds,
    range: Bounds,
    set: bool,
    map_keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    min: Option<i64>,
    max: Option<i64>,
}

impl Bounds {
    fn of(schema: &Value, (min, max): (&str, &str)) -> Self {
        let bound = |name: &str| {
            let value = schema.get(name)?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "bounds of our CRDs are small whole numbers"
            )]
            value
                .as_i64()
                .or_else(|| value.as_f64().map(|float| float as i64))
        };
        Self {
            min: bound(min),
            max: bound(max),
        }
    }

    fn check(self, value: i64, what: &str, (path, findings): (&str, &mut Findings)) {
        if let Some(min) = self.min.filter(|min| value < *min) {
            findings.push((path.to_owned(), format!("must have {what} of at least {min}")));
        }
        if let Some(max) = self.max.filter(|max| value > *max) {
            findings.push((path.to_owned(), format!("must have {what} of at most {max}")));
        }
    }
}

impl Schema {
    fn compile(schema: &Value) -> Self {
        let strings = |name: &str| -> Vec<String> {
            let list = schema.get(name).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        Self {
            kind: schema.get("type").and_then(Value::as_str).map(str::to_owned),
            properties: properties
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), Self::compile(schema)))
                .collect(),
            required: strings("required"),
            items: schema.get("items").map(|items| Box::new(Self::compile(items))),
            allowed: schema
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            pattern: schema
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|text| Regex::new(text).ok()),
            length: Bounds::of(schema, ("minLength", "maxLength")),
            count: Bounds::of(schema, ("minItems", "maxItems")),
            range: Bounds::of(schema, ("minimum", "maximum")),
            set: schema
                .get("x-kubernetes-list-type")
                .is_some_and(|kind| kind == "set"),
            map_keys: strings("x-kubernetes-list-map-keys"),
        }
    }

    fn check(&self, path: &str, value: &Value, findings: &mut Findings) {
        let fits = match self.kind.as_deref() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            _ => true,
        };
        if !fits {
            let kind = self.kind.as_deref().unwrap_or_default();
            findings.push((path.to_owned(), format!("must be of type {kind}")));
            return;
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let values: Vec<String> = self.allowed.iter().map(ToString::to_string).collect();
            findings.push((path.to_owned(), format!("must be one of {}", values.join(", "))));
        }
        match value {
            Value::Object(members) => self.check_members(path, members, findings),
            Value::Array(items) => self.check_items(path, items, findings),
            Value::String(text) => self.check_text(path, text, findings),
            Value::Number(number) => {
                if let Some(number) = number.as_i64() {
                    self.range.check(number, "a value", (path, findings));
                }
            }
            _ => {}
        }
    }

    fn check_members(&self, path: &str, members: &Map<String, Value>, findings: &mut Findings) {
        for name in &self.required {
            if members.get(name).is_none_or(Value::is_null) {
                findings.push((format!("{path}.{name}"), "is required".to_owned()));
            }
        }
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            if let Some(schema) = self.properties.get(name) {
                schema.check(&format!("{path}.{name}"), value, findings);
            }
        }
    }

    fn check_items(&self, path: &str, items: &[Value], findings: &mut Findings) {
        self.count.check(
            i64::try_from(items.len()).unwrap_or(i64::MAX),
            "a number of items",
            (path, findings),
        );
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(schema) = &self.items {
                schema.check(&path, item, findings);
            }
            let repeats = |other: &Value| {
                let same_keys = || self.map_keys.iter().all(|key| item.get(key) == other.get(key));
                if self.set {
                    other == item
                } else {
                    !self.map_keys.is_empty() && same_keys()
                }
            };
            if items.iter().take(index).any(repeats) {
                findings.push((path, "is given twice".to_owned()));
            }
        }
    }

    fn check_text(&self, path: &str, text: &str, findings: &mut Findings) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        self.length.check(length, "a length", (path, findings));
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            findings.push((path.to_owned(), format!("must match {pattern}")));
        }
    }

    fn unknown(&self, path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) if !self.properties.is_empty() => {
                for (name, value) in members {
                    let path = format!("{path}.{name}");
                    match self.properties.get(name) {
                        Some(schema) => schema.unknown(&path, value, found),
                        None => found.push(path),
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(schema) = &self.items {
                        schema.unknown(&format!("{path}[{index}]"), item, found);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(kind: Kind, spec: &Value) -> Vec<String> {
        check(kind, &json!({"spec": spec}))
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn every_kind_has_a_schema_and_every_pattern_compiles() {
        assert_eq!(SCHEMAS.len(), Kind::ALL.len());
        let patterns: usize = crds::all()
            .expect("CRDs")
            .iter()
            .map(|crd| {
                crd.manifest
                    .pointer("/spec/versions/0/schema")
                    .expect("schema")
                    .to_string()
            })
            .map(|text| text.matches("\"pattern\":").count())
            .sum();
        fn compiled(schema: &Schema) -> usize {
            usize::from(schema.pattern.is_some())
                + schema.properties.values().map(compiled).sum::<usize>()
                + schema.items.as_deref().map_or(0, compiled)
        }
        assert_eq!(SCHEMAS.values().map(compiled).sum::<usize>(), patterns);
    }

    #[test]
    fn all_violations_come_with_their_paths() {
        let spec = json!({"targetRef": {"name": "", "sectionName": "mcp", "kind": "Service"}, "publicHost": "http://x",
            "backendPingIntervalSeconds": 5, "allowedOrigins": ["*", "*"]});
        assert_eq!(
            fields(Kind::Extension, &spec),
            [
                "spec.allowedOrigins[1]",
                "spec.backendPingIntervalSeconds",
                "spec.publicHost",
                "spec.targetRef.kind",
                "spec.targetRef.name",
                "spec.targetRef.name"
            ]
        );
        assert_eq!(fields(Kind::VirtualServer, &json!({"tools": []})), ["spec.tools"]);
        assert_eq!(fields(Kind::VirtualServer, &json!({})), ["spec.tools"]);
        assert_eq!(check(Kind::Policy, &json!({})).len(), 1);
    }

    #[test]
    fn unknown_fields_are_listed_for_lint() {
        let object = json!({"spec": {"toolPrefix": "a_", "targetRef": {"name": "r", "sectionname": "x"}}});
        assert_eq!(
            unknown_fields(Kind::Registration, &object),
            ["spec.targetRef.sectionname", "spec.toolPrefix"]
        );
    }
}
