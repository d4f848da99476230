//! How answers are printed: tables for people (colours only on a terminal and without `NO_COLOR`), JSON or YAML for
//! programs, and a spinner on stderr while something takes long.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The pipe or the terminal.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// YAML.
    #[error("cannot render: {0}")]
    Render(#[from] serde_saphyr::SerializeError),
}

/// How good a thing is; the colour of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

/// Prints a document for programs; `None` for [`Format::Table`], which the caller prints.
pub(crate) fn document(
    out: &mut impl Write,
    format: Format,
    value: &Value,
) -> Result<Option<()>, OutputError> {
    match format {
        Format::Table => return Ok(None),
        Format::Json => writeln!(out, "{value:#}")?,
        Format::Yaml => write!(out, "{}", serde_saphyr::to_string(value)?)?,
    }
    Ok(Some(()))
}

/// Least room that is worth wrapping the last column for.
const ROOM: usize = 30;

/// Columns without lines around them, as kubectl prints.
pub(crate) fn table(out: &mut impl Write, head: &[&str], rows: Vec<Vec<(String, Tone)>>) -> io::Result<()> {
    // `None` unless standard output is a terminal.
    let width = Table::new().width();
    for line in rendered(head, rows, width) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The lines of a table. Only the last column is wrapped, where there is room for that: names and URLs are copied. A terminal
/// that is too narrow folds whole lines.
fn rendered(head: &[&str], rows: Vec<Vec<(String, Tone)>>, width: Option<u16>) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(head.iter().map(Cell::new));
    for row in rows {
        table.add_row(row.into_iter().map(|(text, tone)| painted(&text, tone)));
    }
    let mut widths = table.column_max_content_widths();
    widths.pop();
    // Each has a blank on either side.
    let names: usize = widths.iter().map(|width| usize::from(*width) + 2).sum();
    match width.filter(|width| usize::from(*width) >= names + ROOM) {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
            for column in table.column_iter_mut().take(widths.len()) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    let lines = table.lines();
    lines
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect()
}

fn painted(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    if !coloured() {
        return cell;
    }
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Doubtful => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// Colours are for terminals of people who did not set `NO_COLOR` (no-color.org).
fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A spinner with this text on stderr; nothing where stderr is no terminal. It goes when it is dropped.
pub(crate) fn spinner(text: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A word in the colour of its tone.
pub(crate) fn painted_text(text: &str, tone: Tone) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Doubtful => 33,
        Tone::Bad => 31,
    };
    if coloured() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(description: &str, width: Option<u16>) -> Vec<String> {
        let row =
            ["everything_gzip-file-as-resource", description].map(|text| (text.to_owned(), Tone::Plain));
        rendered(&["NAME", "DESCRIPTION"], vec![row.to_vec()], width)
    }

    #[test]
    fn only_the_last_column_is_wrapped_and_stays_below_its_heading() {
        let long = "word ".repeat(20);
        let wrapped = lines(&long, Some(80));
        assert_eq!(wrapped[0], "NAME                              DESCRIPTION");
        assert!(
            wrapped.len() > 2 && wrapped.iter().all(|line| line.len() <= 80),
            "{wrapped:?}"
        );
        assert!(
            wrapped[1].starts_with("everything_gzip-file-as-resource  word"),
            "{wrapped:?}"
        );
        assert!(
            wrapped[2].starts_with(&format!("{} word", " ".repeat(33))),
            "{wrapped:?}"
        );
    }

    #[test]
    fn without_room_lines_are_left_whole() {
        let long = "word ".repeat(20);
        for width in [None, Some(0), Some(40), Some(63)] {
            let whole = lines(&long, width);
            assert_eq!(whole.len(), 2, "{width:?}: {whole:?}");
        }
    }
}
