use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::Value;

use super::{links::prose, pages, read, root};

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
    let fences = mcp_gateway_docs::guide::fences(text).unwrap();
    fences.into_iter().map(|fence| (fence.info, fence.text)).collect()
}

/// Words between angle brackets outside of code: Markdown takes them for HTML, and shows nothing.
fn swallowed(text: &str) -> Vec<String> {
    let tag = Regex::new("<(?:/?[A-Za-z][^>]*)>").unwrap();
    let prose = prose(text);
    let found = tag.find_iter(&prose).map(|found| found.as_str().to_owned());
    found.filter(|tag| !tag.contains("://")).collect()
}

#[test]
fn no_page_has_words_that_are_taken_for_html() {
    for page in pages() {
        assert_eq!(swallowed(&read(&page)), [""; 0], "{}", page.display());
    }
    assert_eq!(swallowed("a `<b>` <c> &lt;d> <!-- e --> <https://f>"), ["<c>"]);
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

/// Why the commands of a block are run by no test, as the second word of its info string says.
const NOT_RUN: [(&str, &str); 5] = [
    ("needs-OLM", "OLM does not run on the kit"),
    (
        "needs-Prometheus",
        "the definitions of the Prometheus operator are not on the kit",
    ),
    ("needs-a-registry", "nothing is pushed to one"),
    ("needs-cross-compilers", "machines have none"),
    ("compiles", "it compiles the programs in release mode"),
];
/// Programs whose use in a guide is a command to be followed.
const PROGRAMS: [&str; 9] = [
    "kubectl",
    "helm",
    "oc",
    "mcpgw",
    "cargo",
    "make",
    "curl",
    "envoy",
    "mcp-gateway-broker",
];

/// What is wrong with the info string of a block: a page's commands are followed by a test, or the block says why not.
fn unfollowed(info: &str, text: &str, followed: bool) -> Option<&'static str> {
    let is_command = |line: &str| {
        line.split(' ')
            .next()
            .is_some_and(|word| PROGRAMS.contains(&word))
    };
    match info.split_once(' ') {
        Some(("sh" | "yaml", "run")) | Some(("sh", "serve")) => {
            (!followed).then_some("no test follows this page")
        }
        Some(("sh", reason)) => {
            let known = NOT_RUN.iter().any(|(known, _)| *known == reason) || root().join(reason).is_file();
            (!known).then_some("neither a reason nor a file that runs it")
        }
        None if info == "sh" || (info.is_empty() && text.lines().any(is_command)) => {
            Some("commands that no test runs: mark them `sh run`, or say why not")
        }
        _ => None,
    }
}

#[test]
fn every_command_of_a_guide_is_run_by_a_test_or_says_why_not() {
    let tests: String = [
        "e2e/tests/e2e/guides.rs",
        "ship/tests/install/isolated.rs",
        "ship/tests/install/kustomize.rs",
    ]
    .map(|file| read(&root().join("test").join(file)))
    .concat();
    let guides = pages()
        .into_iter()
        .filter(|page| page.starts_with(root().join("docs/guides")) || *page == root().join("README.md"));
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in guides {
        let name = page.file_stem().unwrap().to_string_lossy().into_owned();
        let followed = tests.contains(&format!("{name}.md\"")) || tests.contains(&format!("\"{name}\""));
        for (info, text) in blocks(&read(&page)) {
            seen += usize::from(info.starts_with("sh "));
            let what = unfollowed(&info, &text, followed);
            wrong.extend(what.map(|what| format!("{}: {what}:\n{text}", page.display())));
        }
    }
    assert!(seen > 30, "only {seen} blocks were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_nobody_runs_is_noticed() {
    assert!(unfollowed("", "kubectl get pods", true).is_some());
    assert!(unfollowed("sh", "ls", true).is_some());
    assert!(unfollowed("sh run", "ls", false).is_some());
    assert!(unfollowed("sh some/file.rs", "ls", true).is_some());
    assert!(unfollowed("sh run", "ls", true).is_none());
    assert!(unfollowed("", "NAME  READY", false).is_none());
}

/// The findings of `mcpgw lint` over a manifest that is called `name`, and its exit code.
fn linted(name: &str, manifest: &str) -> (u8, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(name);
    fs::write(&file, manifest).unwrap();
    let lint = mcpgw::lint::Lint {
        files: vec![file.to_string_lossy().into_owned()],
        output: mcpgw::lint::Format::Text,
        namespace: "default".to_owned(),
        strict: false,
    };
    let mut printed = Vec::new();
    let code = lint.run(&mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    (code, printed.replace(&format!("{}/", folder.display()), ""))
}

#[test]
fn the_guide_to_migration_shows_what_lint_says_of_its_manifests() {
    let blocks = blocks(&read(&root().join("docs/guides/migrate.md")));
    let [(_, old), (command, _), (_, said), (_, new)] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    assert_eq!(command, "sh test/docs/tests/docs/pages.rs");
    assert_eq!(linted("old.yaml", old), (1, said.clone()));
    let (code, findings) = linted("new.yaml", new);
    assert!(code == 0 && !findings.contains("error"), "{findings}");
}
