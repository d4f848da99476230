//! The command line: one subcommand for each module.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cluster,
    doctor::Doctor,
    explain::Explain,
    export::Export,
    items::{Prompts, Resources, Tools},
    lint::Lint,
    status::Status,
    uninstall::{self, Uninstall},
};

/// Command line of MCP gateways.
///
/// Exit codes of every subcommand: 0 fine, 1 something is wrong (a finding, a denial, an error of the tool), 2 it could not
/// be done (arguments, files, no cluster, no answer). `NO_COLOR` turns colours off; there are none where standard output is
/// no terminal. As kubectl-mcp on PATH it is also `kubectl mcp`.
#[derive(Parser)]
#[command(name = "mcpgw", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows gateways, their servers, and what is wrong with the next step.
    Status(Status),
    /// Looks at everything that has to be in order, and says what mends what is not: install, definitions, webhooks,
    /// certificates, permissions, Gateway, grants, Envoy filter, servers, names.
    Doctor(Doctor),
    /// Lists, describes and calls tools.
    #[command(subcommand)]
    Tools(Tools),
    /// Lists, describes and gets prompts.
    #[command(subcommand)]
    Prompts(Prompts),
    /// Lists and reads resources.
    #[command(subcommand)]
    Resources(Resources),
    /// Judges manifests by the admission rules, offline.
    Lint(Lint),
    /// Says whether a caller may use a tool, prompt or resource, by which rule, and what would have to change.
    Explain(Explain),
    /// Writes the custom resources as manifests, or as the config of a standalone gateway.
    Export(Export),
    /// Prints the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Before the operator is removed: it stops working, its webhook configurations go, and finalizers are released, so that
    /// every object can be deleted without it. Gateways keep serving.
    Uninstall {
        /// Namespace of the operator.
        #[arg(long, short, default_value = "mcp-system")]
        namespace: String,
        /// Namespace whose extension is removed together with the operator; once for each.
        #[arg(long = "without-extension-in", value_name = "NAMESPACE")]
        without_extensions: Vec<String>,
        /// Seconds until it gives up.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
}

impl Arguments {
    /// Runs the subcommand; returns the exit code.
    ///
    /// # Errors
    /// What the subcommand could not do; that is exit code 2.
    pub async fn run(self) -> anyhow::Result<u8> {
        let out = &mut io::stdout().lock();
        match self.command {
            Command::Status(status) => Ok(status.run(out).await?),
            Command::Doctor(doctor) => Ok(doctor.run(out).await?),
            Command::Tools(tools) => Ok(tools.run(out).await?),
            Command::Prompts(prompts) => Ok(prompts.run(out).await?),
            Command::Resources(resources) => Ok(resources.run(out).await?),
            Command::Lint(lint) => Ok(lint.run(out)?),
            Command::Explain(explain) => Ok(explain.run(out).await?),
            Command::Export(export) => Ok(export.run(out).await?),
            Command::Completion { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "mcpgw", out);
                Ok(0)
            }
            Command::Uninstall {
                namespace,
                without_extensions,
                timeout,
            } => {
                let client = cluster::connect().await?;
                let task = Uninstall {
                    client,
                    namespace,
                    without_extensions,
                };
                let done = uninstall::run(&task, Duration::from_secs(timeout)).await?;
                writeln!(out, "{done}")?;
                Ok(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together_and_every_argument_says_what_it_is() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        documented(&command);
    }

    fn documented(command: &clap::Command) {
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some() || argument.get_long_help().is_some(),
                "{} {}",
                command.get_name(),
                argument.get_id()
            );
        }
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
            documented(subcommand);
        }
    }
}
