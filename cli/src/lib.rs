//! `mcpgw`, also usable as `kubectl mcp`: one module for each subcommand.

pub mod explain;
pub mod lint;
pub mod uninstall;

mod world;
