use super::*;
use crate::protocol::message::read;

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn head(path: &str, fields: &[(&str, &str)]) -> Head {
    let pseudo = [(":method", "POST"), (":path", path)];
    let fields = pseudo.iter().chain(fields);
    Head {
        fields: fields
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect(),
        ..Head::default()
    }
}

fn body(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#)
}

fn refused(fields: &[(&str, &str)], text: &str) -> Option<(u16, i32)> {
    let refusal = check(&head("/mcp", fields), &read(text.as_bytes()).unwrap()).err()?;
    Some((refusal.status, refusal.code))
}

const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

#[test]
fn the_era_follows_path_session_header_and_body_in_this_order() {
    let plain = body("ping", "{}");
    let dressed = body("ping", &format!(r#"{{"_meta":{META}}}"#));
    let is = |path, fields: &[_], text: &str, session| {
        is_stateless(&head(path, fields), &read(text.as_bytes()).unwrap(), || session)
    };
    assert!(!is("/mcp", &[], &plain, false));
    assert!(is("/mcp", &[VERSION], &plain, false) && is("/mcp", &[], &dressed, false));
    assert!(
        !is("/mcp", &[VERSION], &dressed, true),
        "a session of ours decides"
    );
    assert!(is("/mcp/stateless", &[], &plain, true));
    for session in [true, false] {
        assert!(
            is_by_head(&head("/mcp/stateless", &[]), session),
            "nor do the headers need the body for that"
        );
        assert_eq!(is_by_head(&head("/mcp", &[VERSION]), session), !session);
        assert!(!is_by_head(&head("/mcp/stateful", &[VERSION]), session));
    }
    assert!(!is("/mcp/stateful", &[VERSION], &dressed, false));
    assert!(!is(
        "/mcp",
        &[("mcp-protocol-version", "2025-11-25")],
        &plain,
        false
    ));
}

#[test]
fn d69_headers_and_body_say_the_same_or_the_request_is_refused() {
    let call = body("tools/call", &format!(r#"{{"name":"é","_meta":{META}}}"#));
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "=?base64?w6k=?=");
    assert_eq!(refused(&[VERSION, method, name], &call), None);
    assert_eq!(
        refused(&[VERSION, ("mcp-method", " tools/call "), name], &call),
        None
    );
    for fields in [
        vec![method, name],
        vec![("mcp-protocol-version", "2026-07-29"), method, name],
        vec![VERSION, name],
        vec![VERSION, ("mcp-method", "Tools/Call"), name],
        vec![VERSION, method, method, name],
        vec![VERSION, method],
        vec![VERSION, method, ("mcp-name", "e")],
        vec![VERSION, method, ("mcp-name", "=?base64?w6k?=")],
        vec![VERSION, method, name, name],
    ] {
        assert_eq!(
            refused(&fields, &call),
            Some((400, HEADER_MISMATCH)),
            "{fields:?}"
        );
    }
}

#[test]
fn what_is_missing_or_not_served_has_its_code_and_status() {
    let method = ("mcp-method", "tools/list");
    let code = |params: &str| refused(&[VERSION, method], &body("tools/list", params));
    assert_eq!(code("{}"), Some((400, INVALID_PARAMS)));
    assert_eq!(
        code(r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#),
        Some((400, INVALID_PARAMS))
    );
    assert_eq!(code(&format!(r#"{{"_meta":{META}}}"#)), None);
    let later = META.replace("2026-07-28", "2027-01-01");
    let request = body("tools/list", &format!(r#"{{"_meta":{later}}}"#));
    let head = head("/mcp", &[("mcp-protocol-version", "2027-01-01"), method]);
    let refusal = check(&head, &read(request.as_bytes()).unwrap()).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (400, UNSUPPORTED_VERSION));
    assert!(refusal.body(None).contains(
        r#""data":{"requested":"2027-01-01","supported":["2026-07-28","2025-11-25","2025-06-18","2025-03-26"]}"#
    ));
    for removed in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "x",
    ] {
        let request = body(removed, &format!(r#"{{"_meta":{META}}}"#));
        let fields = [VERSION, ("mcp-method", removed)];
        assert_eq!(
            refused(&fields, &request),
            Some((404, METHOD_NOT_FOUND)),
            "{removed}"
        );
    }
}

#[test]
fn mirrored_arguments_are_compared_and_unknown_headers_are_nobodys_business() {
    let mirrors = [Mirror {
        header: "mcp-param-region".to_owned(),
        path: vec!["region".to_owned()],
    }];
    let call = body("tools/call", r#"{"name":"a","arguments":{"region":"eu"}}"#);
    let check = |fields: &[_]| {
        check_mirrors(&head("/mcp", fields), &read(call.as_bytes()).unwrap(), &mirrors)
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(
        check(&[("mcp-param-region", "eu"), ("mcp-param-other", "x")]),
        Ok(())
    );
    assert_eq!(check(&[]), Err(HEADER_MISMATCH));
    assert_eq!(check(&[("mcp-param-region", "us")]), Err(HEADER_MISMATCH));
    let twice = [("mcp-param-region", "eu"), ("mcp-param-region", "eu")];
    assert_eq!(check(&twice), Err(HEADER_MISMATCH));
}
