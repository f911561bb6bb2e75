use super::{Check, Outcome, report};

#[test]
fn report_says_what_to_do_and_hides_secrets() {
    let checks = [
        Check::new("server", Outcome::Ok, "/usr/local/bin/oumi-mcp-server, version 0.1.0, linux x86_64"),
        Check::new("clouds", Outcome::Warning, "it failed: token hf_abcdefghijklmnopqrstuvwxyzabcdefgh was refused by the hub, and that is all it said")
            .advise("run `sky check` in a terminal"),
        Check::new("data", Outcome::Failure, "cannot use the data folder /x"),
    ]
    .map(Check::sanitized);
    let page = report(&checks, Some(80));
    assert_eq!(
        page,
        "\
ok       server    /usr/local/bin/oumi-mcp-server, version 0.1.0, linux x86_64
warning  clouds    it failed: token *** was refused by the hub, and that is all
                   it said
                   -> run `sky check` in a terminal
failure  data      cannot use the data folder /x

Failures: 1; warnings: 1."
    );
    assert!(report(&checks[..1], None).ends_with("All is well."));
}
