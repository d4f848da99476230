//! Files to documents: YAML streams and JSON, lists taken apart, with the line on which each document begins.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use serde_json::Value;

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// File, or `-`.
    pub file: String,
    /// Line of its first line, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
    /// The object, or why the text is none.
    pub object: Result<Value, String>,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}: {source}")]
pub struct ReadError {
    file: String,
    #[source]
    source: io::Error,
}

/// The documents of a file, of every YAML and JSON file of a directory (by name), or of standard input (`-`).
///
/// # Errors
/// When something cannot be read.
pub fn read(file: &str) -> Result<Vec<Document>, ReadError> {
    let failed = |source| ReadError {
        file: file.to_owned(),
        source,
    };
    if file == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(parse(file, &text));
    }
    if !Path::new(file).is_dir() {
        return Ok(parse(file, &fs::read_to_string(file).map_err(failed)?));
    }
    let mut entries: Vec<_> = fs::read_dir(file)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
        })
        .map_err(failed)?;
    entries.sort();
    let mut documents = Vec::new();
    for entry in entries {
        let manifest = entry
            .extension()
            .is_some_and(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known));
        if manifest || entry.is_dir() {
            documents.extend(read(&entry.to_string_lossy())?);
        }
    }
    Ok(documents)
}

/// The documents of a text. Markers (`---`) count at the beginning of a line only, as YAML has it.
#[must_use]
pub fn parse(file: &str, text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let (mut begin, mut lines) = (1, Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            documents.extend(document(file, begin, &lines));
            (begin, lines) = (index + 2, Vec::new());
        } else {
            lines.push(line);
        }
    }
    documents.extend(document(file, begin, &lines));
    documents
}

fn document(file: &str, line: usize, lines: &[&str]) -> Vec<Document> {
    let text = lines.join("\n");
    if lines
        .iter()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return vec![];
    }
    let one = |object| Document {
        file: file.to_owned(),
        line,
        text: text.clone(),
        object,
    };
    match serde_saphyr::from_str::<Value>(&text) {
        Err(error) => vec![one(Err(error.to_string()))],
        Ok(Value::Null) => vec![],
        Ok(list)
            if list
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.ends_with("List")) =>
        {
            let items = list
                .get("items")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            items.into_iter().map(|item| one(Ok(item))).collect()
        }
        Ok(object) => vec![one(Ok(object))],
    }
}
