//! Every test of the webhook, in one binary: the admission case table through the Router, claims against a store in
//! memory, the endpoints' manners, and the serving certificate.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail by panic"
)]

mod bytes;
mod claims;
mod endpoints;
mod memory;
mod records;
mod table;
mod tls;

#[path = "../../../test/cases/admission.rs"]
#[expect(dead_code, reason = "some fields are for the other runner, test/e2e")]
mod cases;
