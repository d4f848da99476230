//! `docs/reference/flags.md`: the flags of broker, operator and webhook, read from the tables in their sources.

use std::{fmt::Write as _, fs, io, path::Path};

use regex::Regex;

/// Process and the file with its flags.
const PLACES: [(&str, &str); 3] = [
    ("mcp-gateway-broker", "broker/src/options/flags.rs"),
    ("mcp-gateway-operator", "operator/src/options.rs"),
    ("mcp-gateway-webhook", "webhook/src/options.rs"),
];

/// The page.
///
/// # Errors
/// When a source file cannot be read.
pub fn page(root: &Path) -> io::Result<String> {
    let mut text = String::from(
        "# Flags\n\n<!-- Made from code: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs -->\n\n\
         The operator sets those of the broker; what you add to its Deployment stays (see [install](../guides/install.md)).\n",
    );
    for (process, file) in PLACES {
        let source = fs::read_to_string(root.join(file))?;
        // Writing into a String cannot fail.
        let _ = write!(text, "\n## {process}\n\n| flag | meaning |\n|---|---|\n");
        for (name, help) in flags(&source) {
            let _ = writeln!(text, "| `--{name}` | {} |", crate::cell(&help));
        }
    }
    Ok(text)
}

/// Rows of the broker's table, or fields of a clap structure with their doc comments.
fn flags(source: &str) -> Vec<(String, String)> {
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    let row = Regex::new(r#"\b(?:flag|switch)\(\s*"(?<name>[a-z-]+)",\s*"(?<help>[^"]+)""#);
    let field = Regex::new(
        r"(?<help>(?:    /// [^\n]*\n)+)    #\[arg\([^\]]*long[^\]]*\)\]\n    pub (?:\(crate\) )?(?<name>[a-z_]+):",
    );
    let mut found = Vec::new();
    for captures in row.iter().flat_map(|row| row.captures_iter(product)) {
        found.push((captures["name"].to_owned(), captures["help"].to_owned()));
    }
    for captures in field.iter().flat_map(|field| field.captures_iter(product)) {
        let help: Vec<&str> = captures["help"]
            .lines()
            .map(|line| line.trim().trim_start_matches("/// "))
            .collect();
        found.push((captures["name"].replace('_', "-"), help.join(" ")));
    }
    found
}
