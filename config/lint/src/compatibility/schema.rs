//! The walk over two schemas of one version.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    bundle::{items, strings},
    finding::Report,
};

const RULE: &str = "compatibility";
/// Bounds, with the direction in which they narrow.
const LOWER: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
const UPPER: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Members that may not change at all.
const FIXED: [&str; 9] = [
    "type",
    "format",
    "default",
    "pattern",
    "uniqueItems",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-int-or-string",
];

pub(super) fn compare(file: &str, path: &str, (old, new): (&Value, &Value), report: &mut Report) {
    let place = (file, path);
    fixed(place, old, new, report);
    bounds(place, old, new, report);
    enumeration(place, old, new, report);
    required(place, old, new, report);
    rules(place, old, new, report);
    let open = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    report.require(
        !open(old) || open(new),
        RULE,
        place,
        "unknown fields were kept and would be dropped",
    );
    for name in ["items", "additionalProperties"] {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => compare(file, &format!("{path}.{name}"), (old, new), report),
            (None, None) => {}
            _ => report.add(RULE, place, format!("{name} came or went")),
        }
    }
    for (name, old) in old
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match new.get("properties").and_then(|properties| properties.get(name)) {
            Some(new) => compare(file, &format!("{path}.{name}"), (old, new), report),
            None => report.add(
                RULE,
                place,
                format!("the field {name} is gone; stored values would be dropped"),
            ),
        }
    }
}

fn fixed(place: (&str, &str), old: &Value, new: &Value, report: &mut Report) {
    for name in FIXED {
        let (old, new) = (old.get(name), new.get(name));
        // A pattern may go, since then more is accepted; anything else changes meaning or refuses what was good.
        let wider = name == "pattern" && new.is_none();
        report.require(
            old == new || wider,
            RULE,
            place,
            format!("{name} was {old:?} and is {new:?}"),
        );
    }
    let nullable = |schema: &Value| schema["nullable"] == true;
    report.require(!nullable(old) || nullable(new), RULE, place, "null was accepted");
}

fn bounds(place: (&str, &str), old: &Value, new: &Value, report: &mut Report) {
    let number = |schema: &Value, name: &str| schema.get(name).and_then(Value::as_f64);
    for name in LOWER {
        let narrower = number(new, name).is_some_and(|new| number(old, name).is_none_or(|old| new > old));
        report.require(!narrower, RULE, place, format!("{name} is higher than before"));
    }
    for name in UPPER {
        let narrower = number(new, name).is_some_and(|new| number(old, name).is_none_or(|old| new < old));
        report.require(!narrower, RULE, place, format!("{name} is lower than before"));
    }
}

fn enumeration(place: (&str, &str), old: &Value, new: &Value, report: &mut Report) {
    let values = |schema: &Value| -> Option<BTreeSet<String>> {
        schema
            .get("enum")?
            .as_array()
            .map(|values| values.iter().map(ToString::to_string).collect())
    };
    if let Some(new) = values(new) {
        let kept = values(old).is_some_and(|old| old.is_subset(&new));
        report.require(
            kept,
            RULE,
            place,
            "values that were accepted are no longer in enum",
        );
    }
}

fn required(place: (&str, &str), old: &Value, new: &Value, report: &mut Report) {
    let before: BTreeSet<&str> = strings(old, "required").collect();
    for name in strings(new, "required").filter(|name| !before.contains(name)) {
        // Inside a field that is new altogether nothing was stored, and the walk never gets there.
        report.add(RULE, place, format!("{name} was optional and is required"));
    }
}

/// A new CEL rule must look at `oldSelf`, so that a stored object which breaks it can still be edited elsewhere.
fn rules(place: (&str, &str), old: &Value, new: &Value, report: &mut Report) {
    const NAME: &str = "x-kubernetes-validations";
    let before: BTreeSet<&str> = items(old, NAME)
        .filter_map(|rule| rule["rule"].as_str())
        .collect();
    for rule in items(new, NAME).filter_map(|rule| rule["rule"].as_str()) {
        let good = before.contains(rule) || rule.contains("oldSelf");
        report.require(
            good,
            RULE,
            place,
            format!("a new rule that stored objects may break: {rule}"),
        );
    }
}
