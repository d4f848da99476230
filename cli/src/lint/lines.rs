//! On which line of a document is a field? A walk over the text that follows the names of a path in their order; good
//! for block and flow style, and never further off than the nearest parent that was found.

/// Offset in lines (from 0) of `path`, such as `spec.rules[2].resource.name`, in `text`.
#[must_use]
pub(super) fn offset(text: &str, path: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    for step in path.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (step, None),
        };
        let Some(found) = find(&lines, at, |line| has_key(line, name)) else {
            return at;
        };
        at = found;
        if let Some(index) = index {
            at = item(&lines, at, index).unwrap_or(at);
        }
    }
    at
}

fn find(lines: &[&str], from: usize, fits: impl Fn(&str) -> bool) -> Option<usize> {
    lines
        .iter()
        .enumerate()
        .skip(from)
        .find(|(_, line)| fits(line))
        .map(|(index, _)| index)
}

/// True when `name:` stands in the line as a key, bare or quoted.
fn has_key(line: &str, name: &str) -> bool {
    [format!("{name}:"), format!("\"{name}\":"), format!("'{name}':")]
        .iter()
        .any(|key| {
            line.match_indices(key.as_str()).any(|(at, _)| {
                let before = line.get(..at).unwrap_or_default().trim_end();
                before.is_empty() || before.ends_with(['{', ',', '-'])
            })
        })
}

/// The line of item `index` of the block list under line `at`; `None` for a list in flow style.
fn item(lines: &[&str], at: usize, index: usize) -> Option<usize> {
    let first = find(lines, at + 1, |line| line.trim_start().starts_with("- "))?;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let column = indent(lines.get(first)?);
    let own = indent(lines.get(at)?);
    if column < own {
        return None;
    }
    lines
        .iter()
        .enumerate()
        .skip(first)
        .filter(|(_, line)| indent(line) == column && line.trim_start().starts_with("- "))
        .nth(index)
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_block_and_flow_style() {
        let text = "kind: X\nmetadata:\n  name: a\nspec:\n  targetRef: {name: gw, kind: Service}\n  rules:\n  - name: one\n  - name: two\n    resource:\n      name: x";
        assert_eq!(offset(text, "spec.targetRef.kind"), 4);
        assert_eq!(offset(text, "spec.rules[1].resource.name"), 9);
        assert_eq!(offset(text, "spec.rules[0]"), 6);
        assert_eq!(offset(text, "spec.absent"), 3, "the nearest parent");
        assert_eq!(offset(text, "metadata.namespace"), 1);
        assert_eq!(offset("{\"spec\": {\n\"path\": 1}}", "spec.path"), 1);
    }
}
