//! Tests of what is shipped, with the real programs that users have: Helm 3 and Helm 4, built from pinned Go modules
//! into the cache that the kit uses too.

pub mod chart;
pub mod combinations;
pub mod helm;
