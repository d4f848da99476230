use std::{collections::BTreeSet, fs, path::PathBuf};

use regex::Regex;
use serde_json::Value;

use super::{pages, read, root};

/// Holds a made page against its file, or writes it.
fn fresh(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, text).unwrap();
    }
    assert!(
        read(&file) == text,
        "{path} is stale: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs"
    );
}

#[test]
fn the_reference_of_the_command_line_is_that_of_the_code() {
    fresh("docs/reference/mcpgw.md", &mcp_gateway_docs::command_line::page());
}

#[test]
fn the_reference_of_the_metrics_is_that_of_the_code() {
    let page = mcp_gateway_docs::metrics::page(&root()).unwrap();
    assert!(page.matches("\n| `").count() > 35, "{page}");
    fresh("docs/reference/metrics.md", &page);
}

#[test]
fn the_reference_of_the_flags_is_that_of_the_code() {
    let page = mcp_gateway_docs::flags::page(&root()).unwrap();
    for known in ["`--mcp-gateway-public-host`", "`--webhook-certs`", "`--advisory`"] {
        assert!(page.contains(known), "{known} in {page}");
    }
    fresh("docs/reference/flags.md", &page);
}

#[test]
fn the_reference_of_errors_is_that_of_the_code_and_knows_what_mends_each() {
    assert_eq!(
        mcp_gateway_docs::errors::unmatched(&root()).unwrap(),
        [""; 0],
        "refusals without a remedy, or remedies without a refusal"
    );
    let page = mcp_gateway_docs::errors::page(&root()).unwrap();
    for known in ["`session not found`", "`Method not found: <method>`", "-32020"] {
        assert!(page.contains(known), "{known} in {page}");
    }
    fresh("docs/reference/errors.md", &page);
}

#[test]
fn the_reference_of_limits_is_that_of_the_code() {
    fresh(
        "docs/reference/limits.md",
        &mcp_gateway_docs::limits::page(&root()).unwrap(),
    );
}

#[test]
fn the_book_lists_every_page_once() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    let link = Regex::new(r"\]\((?<link>[^)]+)\)").unwrap();
    let listed: Vec<PathBuf> = link
        .captures_iter(&summary)
        .map(|found| root().join("docs").join(&found["link"]))
        .collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    let docs: BTreeSet<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with(root().join("docs")) && !page.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(once, docs);
}

/// The fenced blocks of a page: info string and text.
fn blocks(text: &str) -> Vec<(String, String)> {
    let block = Regex::new(r"(?ms)^```(?<info>[^\n]*)\n(?<text>.*?)^```$").unwrap();
    block
        .captures_iter(text)
        .map(|found| (found["info"].to_owned(), found["text"].to_owned()))
        .collect()
}

#[test]
fn every_block_of_yaml_can_be_read() {
    let mut seen = 0;
    for page in pages() {
        for (info, text) in blocks(&read(&page)) {
            if info.split(' ').next() == Some("yaml") {
                seen += 1;
                let read = serde_saphyr::from_multiple::<Value>(&text);
                assert!(read.is_ok(), "{}: {:?}\n{text}", page.display(), read.err());
            }
        }
    }
    assert!(seen > 10, "only {seen} blocks were looked at");
}
