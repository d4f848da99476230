//! The linter of what is shipped through OLM: rules over a bundle's files, over the catalog, and over CRDs of two
//! versions (olm.md 7). Pure: it reads no cluster, no registry and no clock.

pub mod bundle;
pub mod catalog;
pub mod compatibility;
pub mod finding;
pub mod repository;
mod rules;

pub use finding::{Finding, RULES};
