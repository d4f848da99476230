//! Pages of the documentation that are made from code: the command line of `mcpgw`, the flags of the processes, the
//! metrics, errors and limits of the data plane. A test holds them against the files; `UPDATE_DOCS=1` writes them.

pub mod command_line;
pub mod errors;
pub mod flags;
pub mod limits;
pub mod metrics;

/// Text that is safe in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
