//! Mistakes that people make at the command line: each is answered with what happened, where, and what to do, in one line and
//! with exit code 2.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole crate is tests: a panic is how they fail"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

const NOWHERE: &str = "/no/such/kubeconfig";

/// What the program says on standard error.
fn said(kubeconfig: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mcpgw"))
        .args(words)
        .env("KUBECONFIG", kubeconfig)
        .env("NO_PROXY", "*")
        .env_remove("MCPGW_URL")
        .env_remove("MCPGW_TOKEN")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words:?}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{words:?}: {text}");
    assert!(!text.contains("::") && text.len() < 400, "{words:?}: {text}");
    text
}

#[track_caller]
fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert_eq!(text.matches(part).count(), 1, "{part:?} in {text}");
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A port where nothing listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A server that answers whatever comes with `answer`.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            // Whoever hangs up has heard enough.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn a_wrong_endpoint_is_named_with_what_is_wrong_with_it() {
    let ask = |url: &str| said(Path::new(NOWHERE), &["tools", "list", "--url", url]);
    let closed = format!("http://127.0.0.1:{}/mcp", closed_port());
    expect(
        &ask(&closed),
        &[&closed, "Connection refused", "nothing listens there", "--url"],
    );
    expect(
        &ask("127.0.0.1:8080/mcp"),
        &["--url 127.0.0.1:8080/mcp", "begins with http://"],
    );
    let plain = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    expect(
        &ask(&format!("https://127.0.0.1:{plain}/mcp")),
        &["does not speak TLS: use http://"],
    );
    let missing = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    expect(
        &ask(&format!("http://127.0.0.1:{missing}/wrong")),
        &["404", "is the path right (/mcp)"],
    );
}

#[test]
fn a_refused_token_is_told_why() {
    let answer = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\", error_description=\"the token has \
        expired\"\r\ncontent-length: 0\r\n\r\n";
    let url = format!("http://127.0.0.1:{}/mcp", answering(answer));
    let words = ["tools", "list", "--token", "old", "--url", &url];
    expect(
        &said(Path::new(NOWHERE), &words),
        &["401", "the token has expired", "--token"],
    );
}

#[test]
fn a_cluster_that_is_not_there_is_named() {
    for words in [
        &["status"] as &[&str],
        &["doctor"],
        &["export", "--to", "cr"],
        &["uninstall"],
        &["tools", "list"],
        &["explain", "--tool", "a/b:c"],
    ] {
        let text = said(Path::new(NOWHERE), words);
        expect(&text, &["no cluster is known", NOWHERE, "set KUBECONFIG"]);
    }
    let url = format!("https://127.0.0.1:{}", closed_port());
    let file = folder("cluster").join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
        clusters: [{{name: c, cluster: {{server: '{url}'}}}}], users: [{{name: u, user: {{token: t}}}}]}}"
    );
    fs::write(&file, text).unwrap();
    for words in [["status"], ["doctor"], ["uninstall"]] {
        expect(
            &said(&file, &words),
            &[&url, "Connection refused", "is KUBECONFIG the right one?"],
        );
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let nowhere = Path::new(NOWHERE);
    expect(
        &said(nowhere, &["lint", "/no/such/file"]),
        &["/no/such/file", "No such file"],
    );
    let empty = folder("empty");
    expect(
        &said(nowhere, &["lint", empty.to_str().unwrap()]),
        &["nothing to lint in", ".yaml"],
    );
    let claims = ["explain", "--tool", "a/b:c", "--as", "/no/such/claims"];
    expect(&said(nowhere, &claims), &["/no/such/claims", "No such file"]);
    expect(
        &said(nowhere, &["explain", "--tool", "add"]),
        &[
            "\"add\" is no name of an item",
            "<namespace>/<registration>:<name>",
        ],
    );
}
