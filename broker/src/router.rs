//! The router: Envoy's external processor (data-plane.md 8). `machine` is the phase machine of one request, `facts`
//! fetches what a decision needs, `translate` turns decisions into ext_proc messages, `server` speaks gRPC.

pub mod audit;
pub mod batch;
pub mod facts;
pub mod machine;
pub mod reply;
pub mod server;
pub mod translate;

#[cfg(test)]
mod tests;
