//! Running other programs to their end and turning a failure into a sentence that names the program and its last words.

use std::path::Path;
use std::process::{Command, Output};

/// Why another program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The program could not be started at all.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program as it was called.
        program: String,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// The program ran and failed.
    #[error("{command} failed ({status}): {tail}")]
    Failed {
        /// Program and arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its standard error (or output).
        tail: String,
    },
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or its exit status is not 0.
pub(crate) fn output_of(command: &mut Command) -> Result<String, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|source| CommandError::Start { program, source })?;
    finished(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `program` with `args` in `dir` to its end and returns its standard output.
///
/// # Errors
/// As [`output_of`].
pub(crate) fn run_in(dir: &Path, program: &str, args: &[&str]) -> Result<String, CommandError> {
    output_of(Command::new(program).args(args).current_dir(dir))
}

fn finished(command: &Command, output: &Output) -> Result<(), CommandError> {
    if output.status.success() {
        return Ok(());
    }
    let text = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    Err(CommandError::Failed {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        tail: last_lines(&String::from_utf8_lossy(text), 12),
    })
}

/// The last `count` lines of `text`.
#[must_use]
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_last_words_of_the_program() {
        let error = run_in(
            Path::new("/"),
            "sh",
            &["-c", "echo first; echo broken >&2; exit 3"],
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("broken") && text.contains('3'), "{text}");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
