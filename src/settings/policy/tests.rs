use super::*;

fn policy_of(variables: &[(&str, &str)]) -> Result<Policy, String> {
    let value_of = |wanted: &str| {
        let mut variables = variables.iter();
        let found = variables.find(|(name, _)| *name == wanted);
        found.map(|(_, value)| (*value).to_owned())
    };
    Policy::parse(&["local", "gcp"], &value_of).map_err(|error| error.to_string())
}

#[test]
fn unset_variables_allow_all() {
    for empty in [
        &[][..],
        &[
            ("OUMI_MCP_CONSENT", ""),
            ("OUMI_MCP_CLOUDS", ""),
            ("OUMI_MCP_READ_ONLY", ""),
        ],
    ] {
        assert_eq!(policy_of(empty), Ok(Policy::default()));
    }
    Policy::default().check("gcp").unwrap();
}

#[test]
fn values_are_read_in_any_case_and_with_blanks() {
    let policy = policy_of(&[
        ("OUMI_MCP_CONSENT", "Always "),
        ("OUMI_MCP_CLOUDS", " GCP ,local,"),
        ("OUMI_MCP_READ_ONLY", "true"),
    ])
    .unwrap();
    assert_eq!((policy.ask, policy.read_only), (AskUser::Always, true));
    policy.check("gcp").unwrap();
    let error = policy.check("aws").unwrap_err().to_string();
    assert!(error.contains("OUMI_MCP_CLOUDS"), "{error}");
    let policy = policy_of(&[("OUMI_MCP_CONSENT", "flags"), ("OUMI_MCP_READ_ONLY", "0")]);
    assert_eq!(policy.unwrap().ask, AskUser::Never);
}

#[test]
fn unknown_values_are_refused_with_the_known_ones() {
    for (name, value, meant) in [
        ("OUMI_MCP_CONSENT", "never", "`always` or `flags`"),
        ("OUMI_MCP_CONSENT", " ", "`always` or `flags`"),
        ("OUMI_MCP_CLOUDS", "local,gpc", "local, gcp"),
        ("OUMI_MCP_CLOUDS", ",", "local, gcp"),
        ("OUMI_MCP_READ_ONLY", "yes please", "1 or 0"),
    ] {
        let error = policy_of(&[(name, value)]).unwrap_err();
        assert!(error.contains(name) && error.contains(meant), "{error}");
    }
}

#[test]
fn jobs_are_kept_for_the_days_that_are_set() {
    let days = |days: u64| Duration::from_hours(24 * days);
    assert_eq!(Policy::default().kept(), days(7));
    let policy = policy_of(&[("OUMI_MCP_KEEP_DAYS", " 30")]).unwrap();
    assert_eq!(policy.kept(), days(30));
    for value in ["0", "-1", "a week"] {
        let error = policy_of(&[("OUMI_MCP_KEEP_DAYS", value)]).unwrap_err();
        assert!(error.contains("a whole number of days"), "{error}");
    }
}

#[test]
fn wait_is_as_long_as_the_client_bears() {
    let policy = Policy::default();
    assert_eq!((policy.max_wait(false), policy.max_wait(true)), (55, 3600));
    let policy = policy_of(&[("OUMI_MCP_MAX_WAIT", "300")]).unwrap();
    assert_eq!((policy.max_wait(false), policy.max_wait(true)), (300, 300));
}
