//! The end-to-end suite: real API server, controllers, istiod and Envoy, our pods as processes under the roles they ship.
//! Run it by `make e2e`.

mod admission;
mod admission_races;
mod healing;
mod path;

#[path = "../../../cases/admission.rs"]
mod cases;
