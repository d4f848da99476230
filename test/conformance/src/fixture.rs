//! The fixture: one MCP server, on one endpoint `/mcp`, for clients of both protocol eras. Tools, prompts and resources carry
//! the names that the conformance suite expects; faults are switched on by flags.
//!
//! `rpc`, `seal`, `journal`, `stream`, `catalog` know nothing of HTTP; `call` and `tools` know no era but through `call`;
//! `legacy` and `modern` are the two translations; `server` decides which one a request gets.

mod call;
mod catalog;
mod faults;
mod journal;
mod legacy;
mod methods;
mod modern;
mod options;
mod rpc;
mod seal;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod tools;

pub use faults::{FaultScope, Faults};
pub use journal::{Entry, Journal, Kind};
pub use options::{EraChoice, Options, ReplyForm};
pub use server::{Fixture, Running, start};
