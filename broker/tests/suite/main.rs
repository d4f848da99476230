//! The broker and router as one process beside a real Envoy and MCP servers on loopback. One binary: linking is slow.
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "modules of one test binary share freely"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code, helper functions included"
)]

mod access;
mod audit;
mod catalog;
mod client;
mod client_streams;
mod config;
mod direct;
mod envoy;
mod envoy_file;
mod faults;
mod fixture;
mod flow;
mod goldens;
mod layers;
mod limits;
mod links;
mod memory;
mod messages;
mod metrics;
mod own_tools;
mod prefixed;
mod process;
mod programs;
mod relays;
mod remote_keys;
mod rounds;
mod routed;
mod secret_watch;
mod security;
mod servers;
mod sessions;
mod shared_store;
mod standalone;
mod standalone_front;
mod through_envoy;
mod timers;
mod tls;
mod user_lists;
mod user_tokens;
mod world;
