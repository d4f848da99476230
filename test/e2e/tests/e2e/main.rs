//! The end-to-end suite: real API server, controllers, istiod and Envoy, our pods as processes under the roles they ship.
//! Run it by `make e2e`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this whole crate is tests: a panic is how they fail"
)]

mod admission;
mod admission_claims;
mod admission_fallback;
mod admission_optional;
mod admission_races;
mod admission_schema;
mod admission_serving;
mod authorization;
mod clients;
mod command_line;
mod direct;
mod guides;
mod healing;
mod isolation;
mod least_privilege;
mod monitors;
mod operator_children;
mod operator_config;
mod operator_ownership;
mod operator_patches;
mod operator_rivals;
mod operator_secrets;
mod path;
mod preservation;
mod remote_keys;
mod tls;

#[path = "../../../cases/admission.rs"]
mod cases;
