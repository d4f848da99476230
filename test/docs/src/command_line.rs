//! `docs/reference/mcpgw.md`: every subcommand with its arguments, read from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use mcpgw::arguments::Arguments;

/// The page.
#[must_use]
pub fn page() -> String {
    let mut command = Arguments::command().term_width(0);
    command.build();
    let mut text =
        String::from("# mcpgw\n\n<!-- Made from code: UPDATE_DOCS=1 cargo test -p mcp-gateway-docs -->\n\n");
    let about = command.get_long_about().map(ToString::to_string);
    text.push_str(&about.unwrap_or_default());
    text.push('\n');
    for subcommand in shown(&command) {
        section(&mut text, "mcpgw", subcommand);
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
}

fn section(text: &mut String, parent: &str, command: &Command) {
    let path = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let leaves: Vec<&Command> = shown(command).collect();
    if leaves.is_empty() {
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "\n## {path}\n\n{about}\n\n| argument | default | meaning |\n|---|---|---|\n"
        );
        for argument in command.get_arguments().filter(|argument| !is_common(argument)) {
            row(text, argument);
        }
    }
    for leaf in leaves {
        section(text, &path, leaf);
    }
}

/// `--help` and `--version` are everywhere.
fn is_common(argument: &Arg) -> bool {
    ["help", "version"].contains(&argument.get_id().as_str())
}

fn row(text: &mut String, argument: &Arg) {
    let value = argument
        .get_value_names()
        .and_then(<[_]>::first)
        .map_or_else(String::new, |name| format!(" {name}"));
    let takes = argument.get_action().takes_values();
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    let shown = if name.is_empty() {
        value.trim_start().to_owned()
    } else if takes {
        format!("{name}{value}")
    } else {
        name
    };
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    let default = if defaults.is_empty() || !takes {
        String::new()
    } else {
        format!("`{}`", defaults.join(", "))
    };
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if let Some(variable) = argument.get_env() {
        let _ = write!(help, "; variable `{}`", variable.to_string_lossy());
    }
    let _ = writeln!(text, "| `{shown}` | {default} | {} |", crate::cell(&help));
}
