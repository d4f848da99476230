//! Pages of the documentation that are made from code: the command line of `mcpgw`, the flags of the processes, the
//! metrics, errors and limits of the data plane. A test holds them against the files; `UPDATE_DOCS=1` writes them.
//! [`guide`] reads the blocks of pages that people follow.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

pub mod command_line;
pub mod errors;
pub mod flags;
pub mod guide;
pub mod limits;
pub mod metrics;

/// Text that is safe in a cell of a table; what stands between backticks is shown as it is anyway.
fn cell(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(at, part)| {
        if at % 2 == 0 {
            part.replace('<', "&lt;")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("`").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_text_outside_of_code_is_escaped() {
        assert_eq!(super::cell("a <b> `<c|d>`"), "a &lt;b> `<c\\|d>`");
    }
}
