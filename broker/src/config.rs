//! The config: its validated form (`model`), the reading of a document item by item (`document`) and the watching of
//! its file (`watch`). Invariant: only a [`model::Snapshot`] leaves this layer, and it is immutable.

mod access;
pub mod ca_bundle;
pub mod document;
pub mod front;
mod ide;
mod local;
pub mod model;
mod places;
mod policies;
mod resources;
mod server;
pub mod sources;
pub mod trouble;
pub mod watch;

#[cfg(test)]
mod tests;
