//! `mcpgw`, also usable as `kubectl mcp`: one module for each subcommand.

pub mod arguments;
pub mod doctor;
pub mod endpoint;
pub mod explain;
pub mod export;
pub mod items;
pub mod lint;
pub mod output;
pub mod remedy;
pub mod session;
pub mod status;
pub mod uninstall;

mod cluster;
mod reason;
mod world;
