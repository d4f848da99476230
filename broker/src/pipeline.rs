//! From a request to its decision, for router and front alike: facts are fetched (`facts`), the pure functions decide
//! (`decide`), what was decided is counted and audited (`audit`). Carrying a decision out is the business of the two.

pub mod asked;
pub mod audit;
pub mod batch;
pub mod carried;
pub mod decide;
pub mod facts;
pub mod span;
