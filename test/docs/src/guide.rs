//! Fenced blocks of a page, and what their info strings say is done with them: `yaml run` is applied, `sh run` goes to a
//! shell, `sh serve` is started and stays. Anything else is for reading only.

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What stands behind the opening backticks.
    pub info: String,
    /// The lines between, each with its end.
    pub text: String,
}

/// A block that whoever follows the page acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A manifest to apply.
    Apply(String),
    /// Lines for a shell.
    Shell(String),
    /// Lines for a shell that stays until the page is done.
    Serve(String),
}

/// The page ends inside of a block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block of line {line} has no end")]
pub struct UnclosedError {
    /// The block's first line, counted from 1.
    pub line: usize,
}

/// All fenced blocks, in the order of the page. A fence is a line that begins with three backticks and has none after them.
///
/// # Errors
/// When one has no end.
pub fn fences(page: &str) -> Result<Vec<Fence>, UnclosedError> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.contains('`')) else {
            continue;
        };
        let mut text = String::new();
        loop {
            let (_, line) = lines.next().ok_or(UnclosedError { line: at + 1 })?;
            if line == "```" {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        let info = info.to_owned();
        found.push(Fence { info, text });
    }
    Ok(found)
}

/// The blocks to act on, in the order of the page.
///
/// # Errors
/// As [`fences`].
pub fn blocks(page: &str) -> Result<Vec<Block>, UnclosedError> {
    let marked = |fence: Fence| match fence.info.as_str() {
        "yaml run" => Some(Block::Apply(fence.text)),
        "sh run" => Some(Block::Shell(fence.text)),
        "sh serve" => Some(Block::Serve(fence.text)),
        _ => None,
    };
    Ok(fences(page)?.into_iter().filter_map(marked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_blocks_are_found_in_the_order_of_the_page_and_others_are_not() {
        let page = "# Title\n```sh run\nls\nls -l\n```\ntext `sh run`\n```yaml run\nkind: A\n---\nkind: B\n```\n\
            ```sh\nnot this\n```\n```\nnor this\n```\n```sh needs-OLM\nnor this\n```\n```sh serve\nstays\n```\n";
        assert_eq!(
            blocks(page).unwrap(),
            [
                Block::Shell("ls\nls -l\n".to_owned()),
                Block::Apply("kind: A\n---\nkind: B\n".to_owned()),
                Block::Serve("stays\n".to_owned()),
            ]
        );
    }

    #[test]
    fn a_mark_is_the_whole_info_string() {
        for info in [
            "sh running",
            "sh  run",
            "yaml serve",
            "run",
            "bash run",
            "sh run twice",
            "SH RUN",
        ] {
            assert_eq!(blocks(&format!("```{info}\nx\n```\n")).unwrap(), [], "{info}");
        }
    }

    #[test]
    fn a_mark_inside_of_a_block_is_text() {
        let page = "```\n```sh run\n```\n```sh run\nls\n```\n";
        let found = fences(page).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].text, "```sh run\n");
        assert_eq!(blocks(page).unwrap(), [Block::Shell("ls\n".to_owned())]);
    }

    #[test]
    fn code_spans_and_indented_fences_open_no_block() {
        assert_eq!(fences("```sh run``` is a mark\n  ```sh run\n").unwrap(), []);
    }

    #[test]
    fn a_block_without_an_end_is_refused_with_its_line() {
        for page in ["a\n\n```sh run\nls\n", "a\n\n```sh run\nls\n```  \n", "a\n\n```"] {
            assert_eq!(blocks(page), Err(UnclosedError { line: 3 }), "{page}");
        }
        assert_eq!(blocks("").unwrap(), []);
    }
}
