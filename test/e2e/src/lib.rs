//! The harness of the end-to-end suite: the installed operator, sites of its own for each test, kubectl as a user types
//! it, the reader of guides, and an MCP client that goes through Envoy.

#![expect(
    clippy::indexing_slicing,
    reason = "JSON answers: an absent member reads as null, and the assertion says so"
)]

mod cluster;
mod guide;
mod kubectl;
mod load;
pub mod main_job;
mod mcp;
pub mod races;
mod site;

pub use cluster::{Cluster, OPERATOR_NAMESPACE, with_admission, without_admission};
pub use guide::{Block, GUIDE_HOST, Reader};
pub use kubectl::{
    Written, apply, delete, delete_dry, dry_run, get, kubectl, kubectl_with, refused, write_dry,
};
pub use load::Load;
pub use mcp::{Answer, McpClient};
pub use site::{PUBLIC_PORT, Site, next_second, publish_address, publish_host};
