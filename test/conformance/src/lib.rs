//! Proof that the gateway speaks MCP: a dual-era MCP server of our own with everything that the official conformance suite
//! asks a server for (`fixture`), and the harness that runs the pinned suites and judges them per scenario (`harness`).

pub mod fixture;
pub mod harness;
