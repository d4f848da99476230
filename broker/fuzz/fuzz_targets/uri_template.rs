//! Any template and URI: never a panic, and a template without variables covers exactly itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_gateway_broker::protocol::uri_template::covers;

fuzz_target!(|texts: (&str, &str)| {
    let (template, uri) = texts;
    let covered = covers(template, uri);
    if !template.contains(['{', '}']) {
        assert_eq!(covered.is_some(), template == uri, "{template:?} {uri:?}");
    }
    if let Some(literals) = covered {
        assert!(literals <= uri.len().max(template.len()));
    }
});
