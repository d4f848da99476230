//! Bytes and words of MCP, JSON-RPC, SSE and HTTP, without state and without I/O. Lowest layer: imports nothing of the
//! other modules.

pub mod completion;
pub mod header;
pub mod host;
pub mod json;
pub mod links;
mod member;
pub mod message;
pub mod meta;
pub mod mirror;
pub mod object;
pub mod reply;
pub mod server_message;
pub mod sse;
pub mod sse_blocks;
pub mod uri_prefix;
pub mod uri_template;
pub mod version;
