//! Arguments of a tool that a client repeats in headers: the annotation `x-mcp-header` of the tool's schema (mcp.md 1.3).
//! Pure: reading the annotations, comparing headers with arguments, making headers from them.

use super::header;
use serde_json::Value;

const ANNOTATION: &str = "x-mcp-header";
/// Members of a schema that hold data, not schemas.
const DATA: [&str; 4] = ["default", "const", "enum", "examples"];

/// One argument that is mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Name of the header, lower case.
    pub header: String,
    /// The way to the argument through `properties`.
    pub path: Vec<String>,
}

/// The mirrored arguments of an `inputSchema`.
///
/// # Errors
/// What is wrong with an annotation; a client of the stateless revision cannot use the tool then.
pub fn mirrors(schema: &Value) -> Result<Vec<Mirror>, String> {
    let mut found = Vec::new();
    walk(schema, Some(&mut Vec::new()), &mut found)?;
    for (at, mirror) in found.iter().enumerate() {
        if found
            .iter()
            .skip(at + 1)
            .any(|other| other.header == mirror.header)
        {
            return Err(format!("{ANNOTATION} {:?} occurs twice", mirror.header));
        }
    }
    Ok(found)
}

/// `path` is `None` where no chain of `properties` leads.
fn walk(schema: &Value, path: Option<&mut Vec<String>>, found: &mut Vec<Mirror>) -> Result<(), String> {
    let Some(members) = schema.as_object() else {
        return match schema {
            Value::Array(items) => items.iter().try_for_each(|item| walk(item, None, found)),
            _ => Ok(()),
        };
    };
    let mut path = path;
    if let Some(annotation) = members.get(ANNOTATION) {
        let way = path.as_deref().filter(|path| !path.is_empty());
        let way = way.ok_or(format!("{ANNOTATION} is not on a property"))?;
        found.push(mirror(annotation, schema, way)?);
    }
    for (name, value) in members {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (property, schema) in properties {
                    match path.as_deref_mut() {
                        Some(path) => {
                            path.push(property.clone());
                            walk(schema, Some(&mut *path), found)?;
                            path.pop();
                        }
                        None => walk(schema, None, found)?,
                    }
                }
            }
            (name, Value::Object(_) | Value::Array(_)) if !DATA.contains(&name) && name != ANNOTATION => {
                walk(value, None, found)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn mirror(annotation: &Value, schema: &Value, path: &[String]) -> Result<Mirror, String> {
    let name = annotation
        .as_str()
        .ok_or(format!("{ANNOTATION} is not a string"))?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{ANNOTATION} {name:?} is no header name"));
    }
    let kind = schema.get("type").and_then(Value::as_str);
    if !matches!(kind, Some("string" | "integer" | "boolean")) {
        return Err(format!(
            "{ANNOTATION} {name:?} is on no string, integer or boolean"
        ));
    }
    Ok(Mirror {
        header: format!("{}{}", header::MCP_PARAM, name.to_ascii_lowercase()),
        path: path.to_vec(),
    })
}

impl Mirror {
    /// The argument, unless it is absent or null.
    fn argument<'v>(&self, arguments: &'v Value) -> Option<&'v Value> {
        let found = self
            .path
            .iter()
            .try_fold(arguments, |value, name| value.get(name.as_str()));
        found.filter(|value| !value.is_null())
    }

    /// Whether the header (decoded from its value as it came) says what the arguments say.
    pub fn agrees(&self, arguments: &Value, given: Option<&str>) -> bool {
        match (self.argument(arguments), given) {
            (None, None) => true,
            (Some(argument), Some(given)) => {
                header::decode(given).is_some_and(|given| says(argument, &given))
            }
            _ => false,
        }
    }

    /// The header's value for these arguments.
    pub fn value(&self, arguments: &Value) -> Option<String> {
        match self.argument(arguments)? {
            Value::String(text) => Some(header::encode(text)),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => match number.as_f64() {
                Some(float) if !number.is_i64() && !number.is_u64() && float.fract() == 0.0 => {
                    Some(format!("{float:.0}"))
                }
                _ => Some(number.to_string()),
            },
            _ => None,
        }
    }
}

/// Numbers by value, the rest by text.
fn says(argument: &Value, given: &str) -> bool {
    match argument {
        Value::String(text) => text == given,
        Value::Bool(flag) => given == if *flag { "true" } else { "false" },
        Value::Number(number) => match (number.to_string().parse::<i128>(), given.parse::<i128>()) {
            (Ok(number), Ok(given)) => number == given,
            _ => given
                .parse::<f64>()
                .ok()
                .is_some_and(|given| Some(given) == number.as_f64()),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(properties: &Value) -> Result<Vec<Mirror>, String> {
        mirrors(&json!({"type": "object", "properties": properties}))
    }

    #[test]
    fn annotations_are_found_through_properties_only() {
        let found = of(&json!({"a": {"type": "string", "x-mcp-header": "Region"},
            "b": {"type": "object", "properties": {"c": {"type": "integer", "x-mcp-header": "Deep"}}}}))
        .unwrap();
        let names: Vec<_> = found.iter().map(|mirror| mirror.header.as_str()).collect();
        assert_eq!(names, ["mcp-param-region", "mcp-param-deep"]);
        assert_eq!(found[1].path, ["b", "c"]);
        assert_eq!(
            of(&json!({"x-mcp-header": {"type": "string"}})).unwrap(),
            [],
            "a property of that name"
        );
    }

    #[test]
    fn bad_annotations_are_refused() {
        for bad in [
            json!({"a": {"type": "string", "x-mcp-header": ""}}),
            json!({"a": {"type": "string", "x-mcp-header": 7}}),
            json!({"a": {"type": "string", "x-mcp-header": "My Region"}}),
            json!({"a": {"type": "string", "x-mcp-header": "R\u{e9}gion"}}),
            json!({"a": {"type": "number", "x-mcp-header": "N"}}),
            json!({"a": {"type": "object", "x-mcp-header": "N"}}),
            json!({"a": {"x-mcp-header": "N"}}),
            json!({"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "N"}}}),
            json!({"a": {"type": "string", "x-mcp-header": "N"}, "b": {"type": "string", "x-mcp-header": "n"}}),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_and_arguments_are_compared_by_meaning() {
        let mirror = Mirror {
            header: "mcp-param-a".into(),
            path: vec!["a".into()],
        };
        let agrees = |argument: Value, given: Option<&str>| mirror.agrees(&json!({"a": argument}), given);
        assert!(agrees(json!("x"), Some("x")) && agrees(json!("é"), Some("=?base64?w6k=?=")));
        assert!(agrees(json!(42), Some("42")) && agrees(json!(42), Some("42.0")));
        assert!(agrees(json!(true), Some("true")) && agrees(Value::Null, None));
        assert!(!agrees(json!("x"), Some("X")) && !agrees(json!("x"), None));
        assert!(!agrees(Value::Null, Some("null")) && !agrees(json!("Hello"), Some("=?base64?SGVs!!!?=")));
        assert!(!agrees(
            json!(9_007_199_254_740_993_u64),
            Some("9007199254740992")
        ));
        for argument in [json!("a\nb"), json!(7), json!(7.0), json!(false)] {
            let value = mirror.value(&json!({"a": argument}));
            assert!(agrees(argument.clone(), value.as_deref()), "{argument}");
        }
    }
}
