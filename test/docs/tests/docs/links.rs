use std::{collections::BTreeSet, path::Path};

use regex::Regex;

use super::{pages, read, root};

/// The anchors of a page, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Text without fenced blocks and code spans: what stands there is no link.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Regex::new("`[^`]*`")
        .unwrap()
        .replace_all(&kept, "``")
        .into_owned()
}

fn broken(page: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_path_buf()
    } else {
        page.parent().unwrap().join(path)
    };
    if !target.exists() {
        return Some(format!("{}: {link}: no such file", page.display()));
    }
    let known = anchor.is_empty() || !target.is_file() || anchors(&read(&target)).contains(anchor);
    (!known).then(|| format!("{}: {link}: no such heading", page.display()))
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let link = Regex::new(r"\]\((?<link>[^)\s]+)\)").unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for found in link.captures_iter(&prose(&read(&page))) {
            let link = &found["link"];
            if !link.contains("://") && !link.starts_with("mailto:") {
                seen += 1;
                wrong.extend(broken(&page, link));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_link_is_noticed() {
    let readme = root().join("README.md");
    assert!(broken(&readme, "docs/guides/install.md").is_none());
    assert!(broken(&readme, "docs/guides/gone.md").is_some());
    assert!(broken(&readme, "docs/guides/install.md#nothing-of-the-kind").is_some());
}
