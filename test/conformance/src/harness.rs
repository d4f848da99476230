//! The harness: installs the pinned suites (`install`), runs one against an endpoint (`suite`), reads what it found
//! (`verdict`), compares with what is expected (`baseline`) and with what the fixture saw (`evidence`), and says so (`report`).
//! `places` are where a suite can be run: directly against the fixture, through a gateway, against any URL.

mod baseline;
mod cli;
mod evidence;
pub mod gateway;
pub mod install;
mod places;
mod report;
mod suite;
mod verdict;

pub use cli::{Cli, run};
