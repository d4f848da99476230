//! The broker's own connections to MCP servers: one task per server with the state machine of data-plane.md 6, the
//! client it speaks with and the validation of what servers list. It knows nothing of other servers.

pub mod connection;
pub mod items;
pub mod listing;
mod noticing;
pub mod peer;
mod publisher;
pub mod snapshot;
mod stateless;
