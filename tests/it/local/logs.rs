//! The end of a log, whatever the job wrote into it, in an answer that stays small.

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::client::{Answer, Server};

/// How much of a log an answer holds by default.
const DEFAULT_MAX_BYTES: usize = 5632;

/// A server with one job that has ended.
pub fn ended(run: &str) -> (Home, Server, String) {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job(run), json!({}));
    server.wait_done(&job_id);
    (home, server, job_id)
}

fn lines(server: &mut Server, job_id: &str, lines: Value) -> Answer {
    server
        .call("get_job_logs", json!({ "job_id": job_id, "lines": lines }))
        .ok()
}

#[test]
fn line_count_and_default() {
    let (home, mut server, job_id) = ended("seq 1 300");
    for (asked, requested, returned, first) in [
        (json!(null), 200, 200, "101"),
        (json!(3), 3, 3, "298"),
        (json!(300), 300, 300, "1"),
        (json!(5_000_000_000_i64), 5_000_000_000_u64, 300, "1"),
    ] {
        let answer = lines(&mut server, &job_id, asked);
        assert_eq!(answer["lines_requested"], requested);
        assert_eq!(answer["lines_returned"], returned);
        let logs: Vec<&str> = answer["logs"].as_str().unwrap().split('\n').collect();
        assert_eq!(
            (logs.len(), logs[0], logs[logs.len() - 1]),
            (returned, first, "300")
        );
        assert_eq!(answer["truncated"], false);
        assert_eq!(answer["log_file"], *home.log(&job_id).to_str().unwrap());
    }
}

#[test]
fn silent_job_has_an_empty_log() {
    let (_home, mut server, job_id) = ended("true");
    let answer = lines(&mut server, &job_id, json!(10));
    assert_eq!(
        (&answer["logs"], &answer["lines_returned"]),
        (&json!(""), &json!(0))
    );
    assert_eq!(answer["message"], "Nothing has been logged yet.");
}

#[test]
fn budget_cuts_at_a_line_and_says_so() {
    let (_home, mut server, job_id) = ended("seq 1000000 1100000");
    let answer = lines(&mut server, &job_id, json!(100_000));
    let logs = answer["logs"].as_str().unwrap();
    assert!(logs.len() <= DEFAULT_MAX_BYTES && logs.len() > DEFAULT_MAX_BYTES - 16);
    assert!(logs.split('\n').all(|line| line.len() == 7) && logs.ends_with("1100000"));
    let returned = logs.split('\n').count();
    assert_eq!(answer["lines_returned"], returned);
    let fits = format!("These are the newest {returned} lines, as many as fit max_bytes=5632: ");
    assert!(answer["message"].as_str().unwrap().starts_with(&fits));
    assert_eq!(answer["truncated"], true);
    assert!(answer["message"].as_str().unwrap().contains("grep"));
}

#[test]
fn missing_log_is_named() {
    let (home, mut server, job_id) = ended("echo x");
    std::fs::remove_file(home.log(&job_id)).unwrap();
    let answer = server.call("get_job_logs", json!({ "job_id": job_id }));
    assert!(answer.refused().contains("has no log: "), "{answer}");
    assert_eq!(server.poll(&job_id)["status"], "completed");
}

#[test]
fn missing_working_dir_is_refused() {
    let home = Home::new();
    home.write("job.yaml", "working_dir: nowhere\nrun: echo x\n");
    let mut server = Server::start(&home);
    for dry_run in [true, false] {
        let error = server
            .run("job.yaml", json!({ "dry_run": dry_run }))
            .refused()
            .to_owned();
        assert!(error.contains("/nowhere is not a folder"), "{error}");
    }
    assert_eq!(server.list("all").0, [""; 0]);
}
