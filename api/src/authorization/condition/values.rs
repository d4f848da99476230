//! JSON as values of CEL that borrow its text, and how large they are. Arguments are read here: what two readers could
//! understand differently (a name twice, or in two spellings that differ in case only) counts as unreadable, because the
//! MCP server may take the other one.

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
    value::Val,
};
use serde_json::{Map, Number, Value};

use crate::strict_json::{self, SameName};

/// Largest arguments that a condition looks at, bytes.
const MAX_ARGUMENTS: usize = 64 * 1024;
/// Bytes of text that count as one step.
const STEP: u64 = 16;

/// How large the values of an evaluation are.
#[derive(Debug, Default)]
pub(super) struct Size {
    /// Values and member names.
    pub(super) values: u64,
    /// The same with their text, in steps.
    pub(super) weight: u64,
}

impl Size {
    fn add(&mut self, text: &str) {
        self.values += 1;
        self.weight += 1 + text.len() as u64 / STEP;
    }
}

/// A JSON value, borrowed.
pub(super) fn value<'v>(json: &'v Value, size: &mut Size) -> Box<dyn Val + 'v> {
    match json {
        Value::Object(members) => return object(members, size),
        Value::String(text) => {
            size.add(text);
            return Box::new(CelString::from(text.as_str()));
        }
        _ => size.add(""),
    }
    match json {
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => of_number(number),
        Value::Array(members) => {
            let members: Vec<_> = members.iter().map(|member| value(member, size)).collect();
            Box::new(CelList::from(members))
        }
        _ => Box::new(CelNull),
    }
}

/// A JSON object, borrowed.
pub(super) fn object<'v>(members: &'v Map<String, Value>, size: &mut Size) -> Box<dyn Val + 'v> {
    size.add("");
    let mut entries = std::collections::HashMap::with_capacity(members.len());
    for (name, member) in members {
        size.add(name);
        entries.insert(CelMapKey::from(name.as_str()), value(member, size));
    }
    Box::new(CelMap::from(entries))
}

fn of_number<'v>(number: &Number) -> Box<dyn Val + 'v> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Box::new(CelInt::from(value)),
        (None, Some(value)) => Box::new(CelUInt::from(value)),
        (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
    }
}

/// The arguments of a call; `None` when they are too large or can be read in two ways.
pub(in super::super) fn arguments(text: &str) -> Option<Value> {
    if text.len() > MAX_ARGUMENTS {
        return None;
    }
    strict_json::read(text.as_bytes(), SameName::IgnoringCase).ok()
}
