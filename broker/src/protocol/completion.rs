//! Answers to `completion/complete`: the specification allows [`MAX_VALUES`] values, and some servers send more.

use super::json::Reader;
use super::object::Object;

/// Values of one answer (data-plane.md 15.1).
pub const MAX_VALUES: usize = 100;

/// An answer of a server without the values past the bound, and with `hasMore`; `None` when it has no more than allowed.
pub fn capped(text: &str) -> Option<String> {
    let mut message = Object::read(text)?;
    let mut result = Object::read(message.get("result")?)?;
    let mut completion = Object::read(result.get("completion")?)?;
    let values = first(completion.get("values")?)?;
    completion.set("values", values);
    completion.set("hasMore", "true".to_owned());
    let completion = completion.text();
    result.set("completion", completion);
    let result = result.text();
    message.set("result", result);
    Some(message.text())
}

/// The first values of an array that has too many.
fn first(values: &str) -> Option<String> {
    let (mut count, mut end) = (0, 0);
    let mut reader = Reader::new(values);
    reader
        .elements(&mut |reader| {
            let range = reader.value()?;
            count += 1;
            if count <= MAX_VALUES {
                end = range.end;
            }
            Ok(())
        })
        .ok()?;
    let kept = values.get(..end).filter(|_| count > MAX_VALUES)?;
    Some(format!("{kept}]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer(count: usize) -> Value {
        let values: Vec<String> = (0..count).map(|number| format!("v{number}")).collect();
        json!({"jsonrpc": "2.0", "id": 7, "result": {"_meta": {"x": 1}, "completion": {"values": values, "total": count, "hasMore": false}}})
    }

    #[test]
    fn s23_a_completion_has_a_hundred_values() {
        assert_eq!(capped(&answer(MAX_VALUES).to_string()), None);
        let text = capped(&answer(MAX_VALUES + 1).to_string()).unwrap();
        let mut expected = answer(MAX_VALUES);
        expected["result"]["completion"]["total"] = json!(MAX_VALUES + 1);
        expected["result"]["completion"]["hasMore"] = json!(true);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        for other in [
            r#"{"error":{}}"#,
            r#"{"result":{"completion":{"values":7}}}"#,
            r#"{"result":{}}"#,
            "[",
        ] {
            assert_eq!(capped(other), None, "{other}");
        }
    }
}
