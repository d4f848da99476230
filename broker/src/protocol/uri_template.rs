//! Which URIs a template (RFC 6570) covers. Values are not decoded: only the question "could this template have made
//! this URI" is answered, with a bound on the work.

/// Longest template and URI that are compared, bytes.
const MAX_LENGTH: usize = 8 * 1024;
/// Parts of one template.
const MAX_PARTS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// Text as it stands.
    Literal(&'a str),
    /// A variable; `path` also covers `/`, `optional` also nothing at all.
    Variable {
        path: bool,
        optional: bool,
        lead: Option<char>,
    },
}

fn parts(template: &str) -> Option<Vec<Part<'_>>> {
    let mut found = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (literal, after) = rest.split_once('{').unwrap_or((rest, ""));
        if !literal.is_empty() {
            found.push(Part::Literal(literal));
        }
        if literal.len() == rest.len() {
            break;
        }
        let (expression, after) = after.split_once('}')?;
        found.push(match expression.chars().next()? {
            '+' => Part::Variable {
                path: true,
                optional: true,
                lead: None,
            },
            '#' => Part::Variable {
                path: true,
                optional: true,
                lead: Some('#'),
            },
            '?' => Part::Variable {
                path: true,
                optional: true,
                lead: Some('?'),
            },
            '&' => Part::Variable {
                path: true,
                optional: true,
                lead: Some('&'),
            },
            ';' => Part::Variable {
                path: false,
                optional: true,
                lead: Some(';'),
            },
            '.' => Part::Variable {
                path: false,
                optional: true,
                lead: Some('.'),
            },
            '/' => Part::Variable {
                path: true,
                optional: true,
                lead: Some('/'),
            },
            _ => Part::Variable {
                path: false,
                optional: false,
                lead: None,
            },
        });
        rest = after;
    }
    (found.len() <= MAX_PARTS).then_some(found)
}

/// The number of literal characters of `template` when it covers `uri`; more is the better match.
pub fn covers(template: &str, uri: &str) -> Option<usize> {
    if template.len() > MAX_LENGTH || uri.len() > MAX_LENGTH {
        return None;
    }
    // Most templates differ from most URIs at once.
    let lead = template.split('{').next().unwrap_or_default();
    if !uri.starts_with(lead) {
        return None;
    }
    let parts = parts(template)?;
    let literal = |part: &Part<'_>| {
        if let Part::Literal(text) = part {
            text.len()
        } else {
            0
        }
    };
    reaches_end(&parts, uri).then(|| parts.iter().map(literal).sum())
}

/// Walks the parts with the set of offsets that can be reached: parts × length steps, whatever the template.
fn reaches_end(parts: &[Part<'_>], uri: &str) -> bool {
    let mut starts = vec![false; uri.len() + 1];
    if let Some(first) = starts.first_mut() {
        *first = true;
    }
    for part in parts {
        let mut next = vec![false; uri.len() + 1];
        match part {
            Part::Literal(text) => {
                for at in
                    offsets(&starts).filter(|at| uri.get(*at..).is_some_and(|rest| rest.starts_with(text)))
                {
                    mark(&mut next, at + text.len());
                }
            }
            Part::Variable { path, optional, lead } => {
                let mut inside = false;
                for (at, c) in uri.char_indices() {
                    let started = starts.get(at).copied().unwrap_or(false);
                    if started && *optional {
                        mark(&mut next, at);
                    }
                    let begins = started && lead.is_none_or(|lead| lead == c);
                    let goes_on = inside && (*path || c != '/');
                    let plain = lead.is_some() || *path || c != '/';
                    inside = goes_on || (begins && plain);
                    if inside {
                        mark(&mut next, at + c.len_utf8());
                    }
                }
                if *optional && starts.last().copied().unwrap_or(false) {
                    mark(&mut next, uri.len());
                }
            }
        }
        if !next.contains(&true) {
            return false;
        }
        starts = next;
    }
    starts.last().copied().unwrap_or(false)
}

fn offsets(reached: &[bool]) -> impl Iterator<Item = usize> + '_ {
    reached
        .iter()
        .enumerate()
        .filter(|(_, reached)| **reached)
        .map(|(at, _)| at)
}

fn mark(reached: &mut [bool], at: usize) {
    if let Some(slot) = reached.get_mut(at) {
        *slot = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn templates_cover_what_they_could_have_made() {
        for (template, uri) in [
            ("file:///{name}", "file:///a.txt"),
            ("file:///{+path}", "file:///a/b/c"),
            ("db://{table}/rows/{id}", "db://users/rows/7"),
            ("search://x{?q,limit}", "search://x?q=1&limit=2"),
            ("search://x{?q}", "search://x"),
            ("a{/seg*}", "a/b/c"),
            ("plain://x", "plain://x"),
            ("é{x}", "éü"),
        ] {
            assert!(covers(template, uri).is_some(), "{template} {uri}");
        }
        for (template, uri) in [
            ("file:///{name}", "file:///a/b"),
            ("file:///{name}", "file:///"),
            ("db://{table}/rows/{id}", "db://users/rows/"),
            ("search://x{?q}", "search://xy"),
            ("plain://x", "plain://xy"),
            ("broken://{x", "broken://y"),
            ("{", "{"),
        ] {
            assert!(covers(template, uri).is_none(), "{template} {uri}");
        }
    }

    #[test]
    fn more_literal_characters_are_a_better_match() {
        assert!(covers("file:///logs/{x}", "file:///logs/a") > covers("file:///{+x}", "file:///logs/a"));
    }

    proptest! {
        #[test]
        fn a_template_covers_its_own_expansions(before in "[a-z:/]{0,8}", value in "[a-z0-9.%-]{1,12}", after in "[a-z/]{0,8}") {
            let template = format!("{before}{{x}}{after}");
            let uri = format!("{before}{value}{after}");
            prop_assert!(covers(&template, &uri).is_some());
        }

        #[test]
        fn nothing_makes_it_panic(template in ".{0,40}", uri in ".{0,40}") {
            let _ = covers(&template, &uri);
        }
    }
}
