use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::{pages, read, root};

/// The repository as the book names it, whose pages know only each other.
const REPOSITORY: &str = "https://github.com/mcp-gateway-operator/mcp-gateway-operator/";

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
pub(crate) fn prose(text: &str) -> String {
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

/// What links of a page name: in place, or in a definition at the start of a line.
fn links(text: &str) -> Vec<String> {
    let link = Regex::new(r"(?m)\]\((?<here>[^)\s]+)\)|^\[[^\]]+\]: (?<defined>\S+)$").unwrap();
    let prose = prose(text);
    let found = link.captures_iter(&prose);
    found
        .filter_map(|found| found.name("here").or(found.name("defined")))
        .map(|found| found.as_str().to_owned())
        .collect()
}

/// What is wrong with a link into this tree by the repository's address: `blob/main/` is for files, `tree/main/` for folders.
fn broken_address(page: &Path, link: &str) -> Option<String> {
    let path = link.strip_prefix(REPOSITORY)?;
    let leads = match path.split_once("/main/") {
        Some(("blob", file)) => root().join(file).is_file(),
        Some(("tree", folder)) => root().join(folder).is_dir(),
        _ => true,
    };
    (!leads).then(|| format!("{}: {link}: no such file or folder", page.display()))
}

/// What is wrong with a link that is relative to its page.
fn broken(page: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_path_buf()
    } else {
        page.parent().unwrap().join(path)
    };
    let Ok(target) = target.canonicalize() else {
        return Some(format!("{}: {link}: no such file", page.display()));
    };
    let book = root().join("docs");
    let is_page = target.starts_with(&book) && target.extension().is_some_and(|ending| ending == "md");
    if page.starts_with(&book) && !is_page {
        return Some(format!(
            "{}: {link}: no page of the book; link to {REPOSITORY}",
            page.display()
        ));
    }
    let known = anchor.is_empty() || !target.is_file() || anchors(&read(&target)).contains(anchor);
    (!known).then(|| format!("{}: {link}: no such heading", page.display()))
}

#[test]
fn every_link_within_the_repository_leads_somewhere_and_in_the_book_too() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for link in links(&read(&page)) {
            seen += 1;
            if link.contains("://") {
                wrong.extend(broken_address(&page, &link));
            } else if !link.starts_with("mailto:") {
                wrong.extend(broken(&page, &link));
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
    let guide = root().join("docs/guides/install.md");
    assert!(broken(&guide, "../guides/tls.md").is_none());
    assert!(broken(&guide, "../../config/rbac").is_some());
    assert!(broken(&guide, "../runbooks").is_some());
    let address = |path: &str| broken_address(&guide, &format!("{REPOSITORY}{path}"));
    assert!(address("tree/main/config/rbac").is_none());
    assert!(address("blob/main/config/rbac").is_some());
    assert!(address("tree/main/config/gone").is_some());
    assert_eq!(links("[a](b) `[c](d)`\n[e]: f\n"), ["b", "f"]);
}

/// Pages below a folder that mdBook wrote; the page for printing repeats the others.
fn built(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            built(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "html") && !path.ends_with("print.html") {
            found.push(path);
        }
    }
}

/// What is wrong with a link of a built page.
fn broken_in_book(page: &Path, text: &str, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent().unwrap().join(path);
    if !path.is_empty() && !target.is_file() {
        return Some(format!("{}: {link}: no such file", page.display()));
    }
    let id = format!("id=\"{anchor}\"");
    let known = match (anchor, path) {
        ("", _) => true,
        (_, "") => text.contains(&id),
        _ => read(&target).contains(&id),
    };
    (!known).then(|| format!("{}: {link}: no such place", page.display()))
}

#[test]
#[ignore = "looks at the book that `make site` has built, in the folder that MCPGW_BOOK names"]
fn every_link_of_the_built_book_leads_somewhere() {
    let book = PathBuf::from(std::env::var_os("MCPGW_BOOK").unwrap());
    let link = Regex::new(r#"\b(?:href|src)="(?<link>[^"]+)""#).unwrap();
    let (mut found, mut wrong, mut seen) = (Vec::new(), Vec::new(), 0);
    built(&book, &mut found);
    for page in found.iter().filter(|page| !page.ends_with("404.html")) {
        let text = read(page);
        for link in link.captures_iter(&text).map(|found| found["link"].to_owned()) {
            if link.contains(':') || link == "#" {
                continue;
            }
            seen += 1;
            wrong.extend(broken_in_book(page, &text, &link));
        }
    }
    assert!(seen > 500, "only {seen} links were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
