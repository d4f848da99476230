//! Each rule of the linter, broken in one place of an otherwise good repository.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(
    clippy::semicolon_if_nothing_returned,
    reason = "tables of changes, one expression each"
)]

mod changes_bundle;
mod changes_listing;
mod compatibility;
mod fixture;
mod rules;
mod traps;
