//! Outgoing HTTP: which addresses may be reached, which roots are trusted, and JSON-RPC exchanges over streamable HTTP
//! with a deadline on every wait (data-plane.md 6.3, 6.4). It knows no sessions and no catalog.

pub mod address;
pub mod carrier;
pub mod client;
pub mod exchange;
pub mod notices;
