//! `mcpgw lint`: the admission rules offline, over manifests. All documents taken together are the world, so that
//! conflicts between them are found before anything is applied.

use std::io::{self, Write};

mod documents;
mod judge;
mod lines;
mod migrate;
mod output;

pub use documents::{Document, ReadError, parse, read};
pub use judge::lint;

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Admission would refuse it, or the API server would.
    Error,
    /// It would be stored, but not work as it stands.
    Warning,
}

impl Level {
    /// As it is printed, and as SARIF spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File, or `-` for standard input.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Severity.
    pub level: Level,
    /// Short name of the rule.
    pub rule: &'static str,
    /// `<kind> <namespace>/<name>`.
    pub object: String,
    /// `<field path>: <what is wrong and what to do>`.
    pub message: String,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line each: `file:line: level: object: message [rule]`.
    Text,
    /// A JSON array.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// What to lint.
#[derive(Clone, Debug, clap::Args)]
pub struct Lint {
    /// Files or directories with YAML or JSON; `-` is standard input.
    #[arg(required = true)]
    pub files: Vec<String>,
    /// How findings are printed.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Namespace of objects that name none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// Warnings fail too.
    #[arg(long)]
    pub strict: bool,
}

impl Lint {
    /// Lints and prints; the exit code is 0 when nothing is wrong, 1 when something is.
    ///
    /// # Errors
    /// When a file cannot be read or the output cannot be written; that is exit code 2.
    pub fn run(&self, out: &mut impl Write) -> Result<u8, LintError> {
        let mut documents = Vec::new();
        for file in &self.files {
            documents.extend(read(file)?);
        }
        if documents.is_empty() {
            return Err(LintError::Nothing(self.files.join(", ")));
        }
        let findings = lint(documents, &self.namespace);
        output::write(out, self.output, &findings)?;
        let fails = |finding: &Finding| finding.level == Level::Error || self.strict;
        Ok(u8::from(findings.iter().any(fails)))
    }
}

/// Why nothing could be linted.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// A file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Only empty files and folders.
    #[error(
        "nothing to lint in {0}: there is no document in it, or no file that ends with .yaml, .yml or .json"
    )]
    Nothing(String),
    /// The output.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

#[cfg(test)]
mod tests;
