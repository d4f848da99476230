//! One catalog out of many servers (data-plane.md 5): the immutable snapshot and its building (`catalog`, `offer`, `table`), what a caller
//! sees of it (`view`) and of lists of its own (`user_lists`), the pages of lists (`lists`), the gateway's own tools (`meta`), the status, and the task that keeps it current (`federation`).

pub mod catalog;
pub mod federation;
mod gauges;
pub mod lists;
pub mod meta;
mod offer;
pub mod status;
pub mod table;
pub mod user_lists;
pub mod view;
