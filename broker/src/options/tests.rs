use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn parse_words(words: &[&str], env: &[(&str, &str)]) -> Result<Options, FlagError> {
    let lookup = |name: &str| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    match parse(words.iter().map(|word| (*word).to_owned()), &lookup)? {
        Command::Run(options) => Ok(*options),
        Command::Print(text) => panic!("printed {text}"),
        Command::Example(_) | Command::Child(..) => panic!("another program"),
    }
}

fn envoy(words: &[&str]) -> Result<Options, FlagError> {
    let mut all = vec!["--mcp-gateway-public-host=Mcp.Example.com:8443"];
    all.extend(words);
    parse_words(&all, &[("GATEWAY_SIGNING_KEY", KEY)])
}

fn line(result: Result<Options, FlagError>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn all_four_forms_of_a_flag_are_one_flag() {
    for words in [
        ["-page-size", "7"].as_slice(),
        &["-page-size=7"],
        &["--page-size", "7"],
        &["--page-size=7"],
    ] {
        assert_eq!(envoy(words).unwrap().page_size, 7);
    }
}

#[test]
fn d1_log_level_4_is_warn_and_anything_else_than_a_level_refuses_the_start() {
    for (text, level) in [
        ("-4", LogLevel::Debug),
        ("0", LogLevel::Info),
        ("3", LogLevel::Info),
        ("4", LogLevel::Warn),
        ("8", LogLevel::Error),
        ("warn", LogLevel::Warn),
    ] {
        assert_eq!(envoy(&["--log-level", text]).unwrap().log_level, level, "{text}");
    }
    assert!(line(envoy(&["--log-level=loud"])).contains("--log-level"));
}

#[test]
fn d2_a_removed_or_unknown_flag_names_itself_and_its_replacement() {
    assert!(
        line(envoy(&["--mcp-router-key=x"]))
            .contains("--mcp-router-key was removed; router and broker share GATEWAY_SIGNING_KEY")
    );
    assert!(line(envoy(&["--controller"])).contains("mcp-gateway-operator"));
    assert!(line(envoy(&["--enforce-tool-filtering=true"])).contains("--enforce-capability-filtering"));
    assert!(line(envoy(&["--nonsense"])).contains("--nonsense"));
    assert!(!line(envoy(&["--mcp-router-key=x"])).contains('\n'));
}

#[test]
fn the_public_host_loses_its_port_and_case() {
    assert_eq!(envoy(&[]).unwrap().public_host, "mcp.example.com");
}

#[test]
fn the_private_host_takes_schemes_in_any_case() {
    let options = envoy(&["--mcp-gateway-private-host=HTTPS://Gw.svc:8443"]).unwrap();
    assert_eq!(
        options.private_host,
        PrivateHost {
            tls: true,
            host: "gw.svc".into(),
            port: 8443
        }
    );
    assert!(!envoy(&[]).unwrap().private_host.tls);
    assert!(envoy(&["--mcp-gateway-private-host=ftp://x"]).is_err());
}

#[test]
fn envoy_mode_without_a_key_or_with_a_short_one_does_not_start() {
    let words = ["--mcp-gateway-public-host=mcp.example.com"];
    assert!(line(parse_words(&words, &[])).contains("32 bytes"));
    assert!(line(parse_words(&words, &[("GATEWAY_SIGNING_KEY", "short")])).contains("32 bytes"));
    assert!(parse_words(&words, &[("JWT_SESSION_SIGNING_KEY", KEY)]).is_ok());
}

#[test]
fn a_flag_wins_over_its_variable() {
    let other = "ffffffffffffffffffffffffffffffff";
    let options = envoy(&["--session-signing-key", other]).unwrap();
    assert_eq!(options.keys.signing.unwrap().expose(), other);
}

#[test]
fn no_public_host_means_standalone_and_a_router_address_alone_is_refused() {
    let options = parse_words(&["run", "--config", "x.yaml"], &[]).unwrap();
    assert!(options.standalone && options.router_address.is_none());
    assert_eq!(options.broker_address, "127.0.0.1:8080");
    assert_eq!(options.config_files, [PathBuf::from("x.yaml")]);
    assert!(line(parse_words(&["--mcp-router-address=0.0.0.0:50051"], &[])).contains("--mcp-router-address"));
}

#[test]
fn numbers_and_durations_have_their_defaults_and_bounds() {
    let options = envoy(&[]).unwrap();
    assert_eq!(options.session_length, Duration::from_secs(86_400));
    assert_eq!(options.check_interval, Duration::from_secs(60));
    assert_eq!(options.max_request_body, 5_242_880);
    assert_eq!(
        envoy(&["--session-length=0"]).unwrap().session_length,
        Duration::from_secs(86_400)
    );
    assert_eq!(
        envoy(&["--mcp-check-interval=90s"]).unwrap().check_interval,
        Duration::from_secs(90)
    );
    assert_eq!(
        envoy(&["--max-request-body-size=-1"]).unwrap().max_request_body,
        64 * 1024 * 1024
    );
    assert!(line(envoy(&["--mcp-check-interval=0"])).contains("--mcp-check-interval"));
    assert!(line(envoy(&["--page-size=many"])).contains("--page-size"));
    assert!(line(envoy(&["--data-path=both"])).contains("ext-proc, direct"));
}

#[test]
fn a_bad_secret_value_is_not_repeated() {
    let text = line(envoy(&["--cache-connection-string=http://user:hunter2@host"]));
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn flags_without_a_feature_are_named_only_when_given() {
    assert!(envoy(&[]).unwrap().not_built.is_empty());
    assert_eq!(envoy(&["--enable-pprof"]).unwrap().not_built, ["enable-pprof"]);
    assert!(envoy(&["--enable-pprof=false"]).unwrap().not_built.is_empty());
}

#[test]
fn offline_access_is_no_scope_of_the_metadata() {
    let env = [
        ("GATEWAY_SIGNING_KEY", KEY),
        ("OAUTH_SCOPES_SUPPORTED", "basic, offline_access,,read"),
    ];
    let options = parse_words(&["--mcp-gateway-public-host=h"], &env).unwrap();
    assert_eq!(options.oauth.scopes, ["basic", "read"]);
}
