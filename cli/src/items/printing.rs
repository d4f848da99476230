//! How lists and answers look on a terminal: a table without lines, text as it is, anything else as JSON.

use std::io::{self, Write};

use serde_json::Value;

use crate::output::{self, Tone};

/// Longest description in a table, characters.
const SHORT: usize = 80;

/// One row for each item, one column for each of these members.
pub(super) fn table(out: &mut impl Write, all: &Value, columns: &[&str]) -> io::Result<()> {
    let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return writeln!(out, "none");
    }
    let head: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let cell = |item: &Value, column: &str| {
        let text = item.get(column).and_then(Value::as_str).unwrap_or_default();
        (shortened(text), Tone::Plain)
    };
    let rows = all
        .iter()
        .map(|item| columns.iter().map(|column| cell(item, column)).collect())
        .collect();
    output::table(out, &head, rows)
}

/// The first line, cut.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().nth(SHORT).is_none() {
        return line.to_owned();
    }
    line.chars().take(SHORT).chain(['…']).collect()
}

/// The content of a tool's result. Structured content is the same once more, unless nothing else is there.
pub(super) fn content(out: &mut impl Write, result: &Value) -> io::Result<()> {
    let blocks = result.get("content").and_then(Value::as_array);
    let blocks = blocks.map(Vec::as_slice).unwrap_or_default();
    for block in blocks {
        self::block(out, block)?;
    }
    match result.get("structuredContent") {
        Some(structured) if blocks.is_empty() => writeln!(out, "{structured:#}"),
        _ => Ok(()),
    }
}

/// The messages of a prompt, each after its role.
pub(super) fn messages(out: &mut impl Write, result: &Value) -> io::Result<()> {
    let messages = result.get("messages").and_then(Value::as_array);
    for message in messages.into_iter().flatten() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        write!(out, "{role}: ")?;
        block(out, message.get("content").unwrap_or(&Value::Null))?;
    }
    Ok(())
}

/// The parts of a resource.
pub(super) fn contents(out: &mut impl Write, result: &Value) -> io::Result<()> {
    let contents = result.get("contents").and_then(Value::as_array);
    for content in contents.into_iter().flatten() {
        block(out, content)?;
    }
    Ok(())
}

/// Text as it is, anything else as JSON.
fn block(out: &mut impl Write, block: &Value) -> io::Result<()> {
    match block.get("text").and_then(Value::as_str) {
        Some(text) => writeln!(out, "{text}"),
        None => writeln!(out, "{block:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_is_printed_once() {
        let printed = |result: &Value| {
            let mut out = Vec::new();
            content(&mut out, result).unwrap();
            String::from_utf8(out).unwrap()
        };
        let both = json!({"content": [{"type": "text", "text": "42"}], "structuredContent": {"result": 42}});
        assert_eq!(printed(&both), "42\n");
        let structured = json!({"content": [], "structuredContent": {"result": 42}});
        assert!(printed(&structured).contains("\"result\": 42"));
    }

    #[test]
    fn a_list_is_a_table_without_lines_and_with_short_descriptions() {
        let mut out = Vec::new();
        let long = format!("{}\nsecond line", "x".repeat(100));
        let tools = json!([{"name": "one_add", "description": "Adds"}, {"name": "b", "description": long}]);
        table(&mut out, &tools, &["name", "description"]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["NAME", "DESCRIPTION"]
        );
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["one_add", "Adds"]
        );
        assert!(lines[2].ends_with('…') && lines.len() == 3, "{text}");
    }
}
