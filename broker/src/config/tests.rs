use super::document::{DocumentError, MAX_BYTES, read};
use super::model::Snapshot;
use super::watch::{self, Update};
use std::time::Duration;
use tokio::sync::mpsc;

const TWO: &str = "
servers:
- {name: a/one, url: 'http://one.svc:8080', prefix: one_, hostname: One.mcp.local, credential: Bearer hunter2}
- {name: a/two, url: 'https://two.svc/x?y=1', tags: [b, a]}
virtualServers:
- {name: a/few, tools: [one_x], prompts: []}
";

#[test]
fn a_server_without_path_gets_mcp_and_without_hostname_that_of_its_url() {
    let config = read(TWO.as_bytes()).unwrap();
    assert_eq!(config.servers[0].url.as_str(), "http://one.svc:8080/mcp");
    assert_eq!(config.servers[0].id, "a/one:one_:one.mcp.local");
    assert_eq!(
        (
            config.servers[1].hostname.as_str(),
            config.servers[1].path.as_str()
        ),
        ("two.svc", "/x?y=1")
    );
    assert_eq!(config.hash.len(), 16);
    assert!(
        config.virtual_servers["a/few"]
            .prompts
            .as_ref()
            .unwrap()
            .is_empty()
    );
    assert!(config.virtual_servers["a/few"].resources.is_none());
}

#[test]
fn d13_one_bad_item_of_each_kind_leaves_the_others_and_is_named() {
    let config = read(
        b"servers:\n- {name: a/bad, url: 'ftp://x'}\n- 7\n- {name: a/good, url: 'http://x'}\n- {name: a/good, url: 'http://y'}\n- {name: a/p, url: 'http://x', prefix: Up_}\nvirtualServers: [7, {name: v/ok, tools: []}]\n",
    )
    .unwrap();
    let names: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["a/good"]);
    assert_eq!(config.virtual_servers.len(), 1);
    assert_eq!(config.errors.len(), 5, "{:?}", config.errors);
    assert!(config.errors[0].contains("a/bad"));
}

#[test]
fn uris_are_prefixed_only_where_there_is_a_prefix() {
    let of = |members: &str| {
        let text = format!("servers: [{{name: a/b, url: 'http://x', {members}}}]");
        let mut config = read(text.as_bytes()).unwrap();
        let server = config.servers.pop();
        (server.is_some_and(|server| server.uris.is_some()), config.errors)
    };
    let set = |text: &str| of(&format!("prefix: b_, {text}"));
    assert_eq!(set("resourceURIs: prefixed"), (true, vec![]));
    assert_eq!(set("resourceURIs: asIs"), (false, vec![]));
    assert_eq!(set("resourceURIs: ''"), (false, vec![]));
    let (_, bare) = of("resourceURIs: prefixed");
    assert!(
        bare[0].ends_with("resourceURIs: prefixed needs a prefix"),
        "{bare:?}"
    );
    let (_, other) = set("resourceURIs: Prefixed");
    assert!(other[0].contains("asIs or prefixed"), "{other:?}");
}

#[test]
fn keys_are_found_without_case_and_unknown_ones_are_reported() {
    let config = read(b"SERVERS:\n- {Name: a/b, URL: 'http://x', toolprefix: t_, color: red}\n").unwrap();
    assert_eq!(config.servers[0].prefix, "t_");
    assert!(config.warnings[0].contains("color"), "{:?}", config.warnings);
}

#[test]
fn older_auth_is_folded_into_the_credential() {
    let config =
        read(b"servers:\n- {name: a, url: 'http://x', auth: {type: basic, username: u, password: p}}\n")
            .unwrap();
    assert_eq!(config.servers[0].credential.expose(), "Basic dTpw");
}

#[test]
fn only_unreadable_documents_are_refused_as_a_whole() {
    assert!(matches!(read(b"servers: [").err(), Some(DocumentError::Yaml(_))));
    assert_eq!(read(b"servers: {}").err(), Some(DocumentError::Shape("servers")));
    assert_eq!(read(b"- a").err(), Some(DocumentError::Shape("(top level)")));
    assert!(read(b"").unwrap().servers.is_empty());
}

#[test]
fn s13_errors_repeat_no_value_of_the_document() {
    let config = read(b"servers:\n- {name: a, url: 'http://x', credential: [hunter2]}\n- {name: b, url: 'http://u:hunter2@x'}\n").unwrap();
    assert_eq!(config.errors.len(), 2);
    assert!(!config.errors.concat().contains("hunter2"), "{:?}", config.errors);
}

/// Whether an anonymous caller may use this tool.
fn open_to_anybody(config: &Snapshot, server: &str) -> bool {
    use mcp_gateway_api::authorization::{Item, ItemKind, Request};
    let item = Item {
        kind: ItemKind::Tool,
        server,
        name: "t",
        annotations: None,
    };
    config.policies.decide(&Request::default(), &item).permits()
}

#[test]
fn s10_a_policy_that_cannot_be_judged_closes_what_it_names() {
    let config = read(b"servers: []\nauthPolicies:\n- {name: a/p, valid: false, targets: [{kind: MCPServerRegistration, name: a/one}]}\n").unwrap();
    assert!(!open_to_anybody(&config, "a/one") && open_to_anybody(&config, "a/two"));
    for closed in [
        "authRequired: true",
        "authPolicies: [7]",
        "authPolicies: [{name: a/p, rules: [{resource: {name: '*'}}]}]",
        "authPolicies: [{name: a/p, rules: [{matches: [{jwt: {claim: sub}}], resource: {kind: tool, name: '*'}}]}]",
    ] {
        let config = read(closed.as_bytes()).unwrap();
        assert!(!open_to_anybody(&config, "a/one"), "{closed}");
        assert_eq!(
            config.errors.is_empty(),
            closed.starts_with("authRequired"),
            "{closed}"
        );
    }
}

#[test]
fn the_short_form_of_files_is_the_policy_of_the_users_guide() {
    let text = r"
authn: {type: jwt, issuer: [me], audience: [me.com], jwks: {type: local, source: {type: inline, data: '{}'}}}
authPolicies:
- name: ns/policy
  rules:
  - matches: [{type: JWT, jwt: {claim: sub, value: me}}]
    resource: {kind: tool, name: default/mcp-tool:convert_to_markdown}
";
    let config = read(text.as_bytes()).unwrap();
    assert_eq!(
        (config.errors.len(), config.warnings.len()),
        (0, 0),
        "{:?}{:?}",
        config.errors,
        config.warnings
    );
    let provider = config.providers.first().unwrap();
    assert_eq!(
        (provider.issuer.as_str(), provider.audiences.as_slice()),
        ("me", &["me.com".to_owned()][..])
    );
    use mcp_gateway_api::authorization::{Item, ItemKind, Request};
    let permitted = |sub: &str, name: &str| {
        let claims = serde_json::json!({"sub": sub}).as_object().unwrap().clone();
        let request = Request {
            claims: Some(&claims),
            ..Request::default()
        };
        let item = Item {
            kind: ItemKind::Tool,
            server: "default/mcp-tool",
            name,
            annotations: None,
        };
        config.policies.decide(&request, &item).permits()
    };
    assert!(permitted("me", "convert_to_markdown"));
    assert!(!permitted("you", "convert_to_markdown") && !permitted("me", "other"));
}

#[test]
fn authn_that_cannot_be_read_lets_nobody_in() {
    for broken in [
        "authn: {type: basic}",
        "authn: {type: basic, issuer: me, jwks: {type: local, source: {type: inline, data: '{}'}}}",
        "authn: {type: jwt, issuer: me, jwks: {type: local, source: {type: file, data: /nowhere/at/all}}}",
        "authn: {type: jwt, issuer: [], jwks: {type: local, source: {type: inline, data: '{}'}}}",
    ] {
        let config = read(broken.as_bytes()).unwrap();
        assert_eq!(
            (config.errors.len(), config.providers.len()),
            (1, 1),
            "{broken}: {:?}",
            config.errors
        );
        assert!(!open_to_anybody(&config, "a/one"), "{broken}");
    }
}

#[test]
fn d7_what_concerns_the_connection_and_what_does_not() {
    let base = "servers:\n- {name: a, url: 'https://x', hint: h, tags: [a, b]}\n";
    let one = read(base.as_bytes()).unwrap();
    let with = |from: &str, to: &str| read(base.replace(from, to).as_bytes()).unwrap();
    let differs = |other: &super::model::Snapshot, bundle| {
        other.servers[0].needs_new_connection(&one.servers[0], bundle)
    };
    assert!(differs(&with("https://x", "https://y"), false));
    assert!(differs(&with("hint: h", "userSpecificList: true"), false));
    assert!(differs(&with("hint: h", "caCert: pem"), false));
    assert!(differs(&with("", ""), true));
    assert!(!differs(&with("hint: h", "hint: other"), false));
    assert!(with("[a, b]", "[b, a]").servers[0].same_facts(&one.servers[0]));
}

async fn next(updates: &mut mpsc::Receiver<Update>) -> Update {
    tokio::time::timeout(Duration::from_secs(10), updates.recv())
        .await
        .expect("no update in 10 s")
        .expect("watch ended")
}

fn hash(update: &Update) -> String {
    match update {
        Update::Good(_, snapshot) => snapshot
            .servers
            .iter()
            .map(|server| server.name.clone())
            .collect::<Vec<_>>()
            .join(","),
        Update::Bad(_, error) => format!("error: {error}"),
    }
}

#[tokio::test]
async fn d5_a_secret_update_by_symlink_swap_is_one_reload() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, server: &str| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(
            folder.path().join(name).join("config.yaml"),
            format!("servers: [{{name: {server}, url: 'http://x'}}]"),
        )
        .unwrap();
    };
    version("..1", "one");
    std::os::unix::fs::symlink("..1", folder.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/config.yaml", folder.path().join("config.yaml")).unwrap();
    let (sender, mut updates) = mpsc::channel(8);
    let task = tokio::spawn(watch::run(
        vec![folder.path().join("config.yaml")],
        crate::config::document::Dialect::default(),
        sender,
    ));
    assert_eq!(hash(&next(&mut updates).await), "one");
    version("..2", "two");
    std::os::unix::fs::symlink("..2", folder.path().join("..data_tmp")).unwrap();
    std::fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    std::fs::remove_dir_all(folder.path().join("..1")).unwrap();
    assert_eq!(hash(&next(&mut updates).await), "two");
    std::fs::write(folder.path().join("..2/config.yaml"), "servers: [").unwrap();
    let error = hash(&next(&mut updates).await);
    assert!(
        error.contains("/config.yaml:") && error.contains(": config is not valid YAML"),
        "{error}"
    );
    std::fs::write(folder.path().join("..2/config.yaml"), "servers: []").unwrap();
    assert_eq!(hash(&next(&mut updates).await), "");
    assert!(updates.try_recv().is_err(), "one update per change");
    task.abort();
}

#[test]
fn a_call_timeout_is_a_number_of_seconds_or_a_text() {
    for (text, milliseconds) in [("30", 30_000), ("30s", 30_000), ("1.5s", 1500), ("250ms", 250)] {
        let document = format!("servers:\n- {{name: a, url: 'http://x', callTimeout: {text}}}\n");
        let config = read(document.as_bytes()).unwrap();
        assert_eq!(
            config.servers[0].call_timeout,
            Some(Duration::from_millis(milliseconds)),
            "{text}"
        );
    }
    assert_eq!(
        read(b"servers:\n- {name: a, url: 'http://x', callTimeout: soon}\n")
            .unwrap()
            .errors
            .len(),
        1
    );
}

#[test]
fn what_the_operator_renders_is_read_without_a_complaint() {
    use mcp_gateway_api::config::{GatewayConfig, ServerEntry, VirtualServerEntry, render};
    let server = ServerEntry {
        name: "ns/one".into(),
        url: "http://one.ns.svc.cluster.local:8080/mcp".into(),
        hostname: "one.mcp.local".into(),
        prefix: "one_".into(),
        call_timeout: "30s".into(),
        created_at: "2026-01-01T00:00:00Z".into(),
        uid: "u".into(),
        ..ServerEntry::default()
    };
    let virtual_servers = vec![VirtualServerEntry {
        name: "ns/v".into(),
        tools: vec!["one_a".into()],
        ..Default::default()
    }];
    let rendered = render(&GatewayConfig {
        servers: vec![server],
        virtual_servers,
        ..GatewayConfig::default()
    })
    .unwrap();
    let config = read(rendered.yaml.as_bytes()).unwrap();
    assert_eq!((&config.errors, &config.warnings), (&Vec::new(), &Vec::new()));
    assert_eq!(config.hash, rendered.hash);
    assert_eq!(config.servers[0].call_timeout, Some(Duration::from_secs(30)));
}

#[test]
fn s23_a_document_has_its_size_and_its_numbers_of_items() {
    let sized = |size: usize| {
        let text = "servers: []\n#";
        read(format!("{text}{}", "x".repeat(size - text.len())).as_bytes()).map(drop)
    };
    assert!(sized(MAX_BYTES).is_ok());
    assert!(matches!(sized(MAX_BYTES + 1), Err(DocumentError::TooLarge)));
    for (kind, item) in [
        ("servers", "url: 'http://x'"),
        ("virtualServers", "tools: []"),
        ("authPolicies", "rules: []"),
    ] {
        let text = |count: usize| {
            let items = (0..count).map(|number| format!("- {{name: a/n{number}, {item}}}\n"));
            format!("{kind}:\n{}", items.collect::<String>())
        };
        let errors = |count: usize| read(text(count).as_bytes()).unwrap().errors;
        let left_out = |errors: Vec<String>| errors.iter().any(|error| error.contains("more than 1000"));
        assert!(!left_out(errors(1000)), "{kind}");
        assert!(left_out(errors(1001)), "{kind}");
        let kept = read(text(1001).as_bytes()).unwrap();
        match kind {
            "servers" => assert_eq!(kept.servers.len(), 1000),
            "virtualServers" => assert_eq!(kept.virtual_servers.len(), 1000),
            _ => {}
        }
    }
}
