use super::*;
use proptest::prelude::*;

fn full() -> GatewayConfig {
    GatewayConfig {
        servers: vec![ServerEntry {
            name: "mcp-test/weather".into(),
            url: "http://weather.mcp-test.svc.cluster.local:8080/mcp".into(),
            hostname: "weather.mcp.local".into(),
            prefix: "weather_".into(),
            credential: Credential::new("Bearer yes"),
            token_url_elicitation: Some(TokenUrlElicitation::default()),
            created_at: "2026-07-28T10:00:00Z".into(),
            uid: "0123".into(),
            ..ServerEntry::default()
        }],
        virtual_servers: vec![VirtualServerEntry {
            name: "mcp-test/few".into(),
            tools: vec!["weather_now".into()],
            prompts: Some(Vec::new()),
            resources: None,
        }],
        ..GatewayConfig::default()
    }
}

#[test]
fn the_empty_form_has_both_lists_and_nothing_else_but_its_hash() {
    let rendered = render(&GatewayConfig::default()).unwrap();
    let lines: Vec<&str> = rendered.yaml.lines().collect();
    assert_eq!(lines.len(), 3, "{}", rendered.yaml);
    assert!(lines[0].starts_with("hash: "));
    assert_eq!(lines[1..], ["servers: []", "virtualServers: []"]);
}

#[test]
fn absent_and_empty_prompts_stay_different() {
    let back = parse(&render(&full()).unwrap().yaml).unwrap();
    assert_eq!(back.virtual_servers[0].prompts, Some(Vec::new()));
    assert_eq!(back.virtual_servers[0].resources, None);
    assert_eq!(
        back.servers[0].token_url_elicitation,
        Some(TokenUrlElicitation::default())
    );
}

#[test]
fn the_hash_is_that_of_the_document_without_it() {
    let rendered = render(&full()).unwrap();
    let without: String = rendered
        .yaml
        .lines()
        .filter(|line| !line.starts_with("hash:"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(rendered.hash, hash_of(without.as_bytes()));
    assert_eq!(rendered.hash.len(), 16);
    assert_eq!(parse(&rendered.yaml).unwrap().hash, rendered.hash);
}

#[test]
fn a_stale_hash_member_does_not_change_the_bytes() {
    let mut stale = full();
    stale.hash = "ffffffffffffffff".into();
    assert!(render(&stale).unwrap() == render(&full()).unwrap());
}

#[test]
fn a_parse_error_names_the_place_and_not_the_text() {
    let error = parse("servers:\n  - {name: a, credential: [hunter2}\n")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("line"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

fn awkward() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "yes", "no", "on", "~", "null", "0123", "0x1f", "1e5", "1_000", "12:30", "\"", "'", "- a", "a: b", "#x", " lead", "trail ", "a\nb", "\n", "\n\n",
            "a\n", "a\n\n\n", "  a\n b\n", "\ta", "a\r\nb", "", "{}", "[]", "&a", "*a", "!t", "%", "@", "`", "|", ">", "---", "...", "2026-07-28",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "\u{feff}x", "\u{85}", "\u{2028}", "\u{0}", "\u{7f}", "é", "1.0", ".inf", "=", "<<",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  aaaaaaaaaa",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
        "[ -~\n]{0,120}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn any_text_survives_the_round_trip(name in awkward(), credential in awkward(), pem in awkward(), list in proptest::collection::vec(awkward(), 0..4)) {
        let config = GatewayConfig {
            servers: vec![ServerEntry { name: name.clone(), credential: Credential::new(credential), ca_cert: pem.clone(), category: list.clone(), hint: name.clone(), ..ServerEntry::default() }],
            virtual_servers: vec![VirtualServerEntry { name, tools: list.clone(), prompts: Some(list.clone()), resources: None }],
            gateway_ca_cert_pem: pem,
            allowed_origins: list,
            ..GatewayConfig::default()
        };
        let rendered = render(&config).unwrap();
        let mut back = parse(&rendered.yaml).unwrap();
        prop_assert_eq!(&back.hash, &rendered.hash);
        back.hash = String::new();
        prop_assert!(back == config, "{}", rendered.yaml);
        prop_assert!(render(&config).unwrap() == rendered);
    }
}
