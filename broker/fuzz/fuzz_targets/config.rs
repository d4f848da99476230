//! Any bytes as a config document: an error or a config, never a panic, and the same one each time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_gateway_broker::config::document::read;

fuzz_target!(|bytes: &[u8]| {
    let (Ok(first), Ok(second)) = (read(bytes), read(bytes)) else { return };
    assert_eq!(first.hash, second.hash);
    let mut names: Vec<&str> = first.servers.iter().map(|server| server.name.as_str()).collect();
    let served = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), served, "a name is served once");
});
