use super::{Check, JobError, Outcome, report};

#[test]
fn report_says_what_to_do_and_hides_secrets() {
    let error = JobError::failed("it failed: token hf_abcdefghijklmnopqrstuvwxyzabcdefgh");
    let unusable = JobError::failed("cannot use the data folder /x");
    let checks = [
        Check::new(
            "server",
            Ok("/bin/oumi-mcp-server".to_owned()),
            Outcome::Failure,
        ),
        Check::new(
            "clouds",
            Err(error.with_hint("run `sky check` in a terminal")),
            Outcome::Warning,
        ),
        Check::new("data", Err(unusable), Outcome::Failure),
    ];
    assert_eq!(
        report(&checks),
        "\
ok       server    /bin/oumi-mcp-server
warning  clouds    it failed: token ***
                   -> run `sky check` in a terminal
failure  data      cannot use the data folder /x

Need attention: 2."
    );
    assert!(report(&checks[..1]).ends_with("All is well."));
}
