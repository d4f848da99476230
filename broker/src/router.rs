//! The router: Envoy's external processor (data-plane.md 8). `machine` is the phase machine of one
//! request, `replies` its answers in time, `translate` turns decisions into ext_proc messages, `server` speaks gRPC. What is decided comes from `pipeline`.

pub mod machine;
pub mod replies;
pub mod reply;
pub mod server;
pub mod translate;
