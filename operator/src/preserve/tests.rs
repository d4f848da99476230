use proptest::prelude::*;

use super::*;

fn ours() -> Vec<Flag> {
    vec![
        Flag::new("--mcp-gateway-config", "/config/config.yaml"),
        Flag::new("--mcp-gateway-public-host", "mcp.example.com"),
        Flag::switch("--enable-url-elicitation"),
    ]
}

fn tokens(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn merged(live: &str, recorded: Option<&str>) -> Vec<String> {
    merge("./mcp_gateway", &ours(), Some(&tokens(live)), recorded).command
}

const OURS: &str = "./mcp_gateway --mcp-gateway-config=/config/config.yaml --mcp-gateway-public-host=mcp.example.com --enable-url-elicitation";

fn expect(users: &str) -> Vec<String> {
    tokens(&format!("{OURS} {users}"))
}

#[test]
fn a_fresh_deployment_gets_our_flags_only() {
    let merged = merge("./mcp_gateway", &ours(), None, None);
    assert_eq!(merged.command, expect(""));
    assert_eq!(
        merged.owned_flags,
        "--enable-url-elicitation,--mcp-gateway-config,--mcp-gateway-public-host"
    );
}

#[test]
fn t18_flags_that_only_begin_with_an_owned_name_survive() {
    let users = "--mcp-gateway-config-extra=x --log-level-file=x --mcp-gateway-public-host-2 y";
    assert_eq!(
        merged(&format!("old {users}"), Some("--log-level,--mcp-gateway-config")),
        expect(users)
    );
}

#[test]
fn t19_two_token_user_flags_stay_together_and_owned_ones_leave_no_value() {
    assert_eq!(
        merged(
            "p --foo bar --mcp-gateway-config /old --baz --log-level -4 --enable-url-elicitation stays",
            Some("--log-level")
        ),
        expect("--foo bar --baz stays")
    );
}

#[test]
fn t19_an_owned_flag_before_another_flag_takes_nothing_with_it() {
    assert_eq!(
        merged("p --mcp-gateway-config --users=1", None),
        expect("--users=1")
    );
}

#[test]
fn t21_the_guides_ca_flag_survives() {
    let users = "--gateway-ca-cert=/certs/gateway-ca.crt";
    assert_eq!(merged(&format!("{OURS} {users}"), None), expect(users));
}

#[test]
fn t22_a_flag_of_an_older_operator_goes_once_and_a_users_later_one_stays() {
    let first = merge(
        "./mcp_gateway",
        &ours(),
        Some(&tokens("./mcp_gateway --retired=1 --mine=2")),
        Some("--retired"),
    );
    assert_eq!(first.command, expect("--mine=2"));
    let again = format!("{OURS} --mine=2 --retired=3");
    assert_eq!(
        merged(&again, Some(&first.owned_flags)),
        expect("--mine=2 --retired=3")
    );
}

#[test]
fn t22_without_annotation_only_the_first_flags_and_the_router_key_are_ours() {
    assert_eq!(
        merged(
            "./mcp_gateway --mcp-router-key=x --mcp-check-interval 9 --log-level=4",
            None
        ),
        expect("--log-level=4")
    );
}

#[test]
fn t23_a_users_log_level_gives_way_while_ours_is_set_and_ours_goes_when_unset() {
    let mut with_level = ours();
    with_level.push(Flag::new("--log-level", "0"));
    let set = merge(
        "./mcp_gateway",
        &with_level,
        Some(&tokens("./mcp_gateway --log-level=8 --mine")),
        Some("--mcp-gateway-config"),
    );
    assert_eq!(set.command, expect("--log-level=0 --mine"));
    let unset = merge(
        "./mcp_gateway",
        &ours(),
        Some(&set.command),
        Some(&set.owned_flags),
    );
    assert_eq!(unset.command, expect("--mine"));
}

#[test]
fn single_dash_forms_are_the_same_flag() {
    assert_eq!(
        merged("p -mcp-gateway-config=/x -mine=1", None),
        expect("-mine=1")
    );
}

#[test]
fn flags_repeated_in_args_are_found_by_exact_name() {
    assert_eq!(
        repeated_in_args(
            &ours(),
            &tokens("--mcp-gateway-config /x --mcp-gateway-configs=1")
        ),
        vec!["--mcp-gateway-config".to_owned()]
    );
}

#[test]
fn the_last_value_of_a_users_flag_counts() {
    let command = tokens("p --max-request-body-size 7 --max-request-body-size=9");
    assert_eq!(value_of(&command, "--max-request-body-size"), Some("9"));
    assert_eq!(value_of(&command, "--max-request-body"), None);
}

fn users_flag() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        "--[a-z][a-z-]{0,12}",
        Just("--mcp-gateway-config-extra".to_owned()),
        Just("--mcp-gateway-confi".to_owned()),
        Just("--gateway-ca-cert".to_owned()),
    ];
    (name, "[a-z0-9/=.]{0,8}", any::<bool>()).prop_map(|(name, value, joined)| {
        if joined || value.is_empty() {
            vec![format!("{name}={value}")]
        } else {
            vec![name, value]
        }
    })
}

proptest! {
    #[test]
    fn t18_t19_every_users_token_survives_in_order_and_merging_twice_changes_nothing(
        users in prop::collection::vec(users_flag(), 0..8),
        owned_at in prop::collection::vec(0usize..9, 0..4),
    ) {
        let users: Vec<Vec<String>> = users
            .into_iter()
            .filter(|flag| !ours().iter().any(|own| flag.first().is_some_and(|token| flag_name(token) == Some(bare(own.name)))))
            .collect();
        let mut groups = users.clone();
        for (n, at) in owned_at.iter().enumerate() {
            let owned = if n % 2 == 0 {
                tokens("--mcp-gateway-config=/stale")
            } else {
                tokens("--mcp-gateway-public-host stale.example.com")
            };
            groups.insert((*at).min(groups.len()), owned);
        }
        let live: Vec<String> = std::iter::once("p".to_owned()).chain(groups.concat()).collect();
        let once = merge("./mcp_gateway", &ours(), Some(&live), Some(""));
        let mut expected = expect("");
        expected.extend(users.concat());
        prop_assert_eq!(&once.command, &expected);
        let twice = merge("./mcp_gateway", &ours(), Some(&once.command), Some(&once.owned_flags));
        prop_assert_eq!(twice, once);
    }
}
