//! The broker and router as one process beside a real Envoy and MCP servers on loopback. One binary: linking is slow.
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "modules of one test binary share freely"
)]

mod client;
mod envoy;
mod fixture;
mod flow;
mod world;
