//! `mcpgw`, also usable as `kubectl mcp`: one module for each subcommand.

pub mod lint;
pub mod uninstall;
