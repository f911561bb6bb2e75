//! What is new in a log since an earlier answer, and what in it matches: in order, nothing twice, nothing skipped.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::{Answer, Server};
use crate::support::{Home, wait_until};

/// A home, a server, and a job that has ended with this log.
fn ended(log: impl AsRef<[u8]>) -> (Home, Server, String) {
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("true"), json!({}));
    server.wait_done(&job_id);
    fs::write(home.log(&job_id), log).unwrap();
    (home, server, job_id)
}

fn append(log: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(log).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Asks for a part of the log.
fn logs(server: &mut Server, job_id: &str, mut asked: Value) -> Answer {
    asked["job_id"] = job_id.into();
    server.call("get_job_logs", asked).ok()
}

fn since(server: &mut Server, job_id: &str, last: &Answer) -> Answer {
    logs(server, job_id, json!({ "cursor": last["cursor"] }))
}

fn text(answer: &Answer) -> &str {
    answer["logs"].as_str().unwrap()
}

#[test]
fn cursor_survives_the_server() {
    let home = Home::new();
    // It writes at each go, and stops in the middle of a line.
    let run = "for go in 1 2 3 4; do\n\
               while [ ! -e go$go ]; do sleep 0.02; done\n\
               echo; seq ${go}01 ${go}05; printf ${go}0\n\
               done\n";
    let mut server = Server::start(&home);
    let job_id = server.submit(home.job(run), json!({}));
    let mut last = logs(&mut server, &job_id, json!({}));
    assert_eq!((text(&last), last["unfinished"].as_str()), ("", None));
    let mut read = String::new();
    for go in 1..=4 {
        home.write(&format!("go{go}"), "");
        wait_until("it has written", || {
            let log = fs::read_to_string(home.log(&job_id)).unwrap();
            log.ends_with(&format!("{go}05\n{go}0"))
        });
        if go < 4 {
            last = since(&mut server, &job_id, &last);
            assert_eq!(last["unfinished"], format!("{go}0"));
            assert_eq!(last["truncated"], false);
            read += &format!("{}\n", text(&last));
            // The same cursor gives nothing new.
            let again = since(&mut server, &job_id, &last);
            assert_eq!((text(&again), &again["lines_returned"]), ("", &json!(0)));
            assert_eq!(again["cursor"], last["cursor"]);
        }
        server.kill_9();
        server = Server::start(&home);
    }
    server.wait_done(&job_id);
    last = since(&mut server, &job_id, &last);
    read += text(&last);
    // Nothing will end the last line any more: it is text.
    assert_eq!(last["unfinished"].as_str(), None);
    let written = fs::read_to_string(home.log(&job_id)).unwrap();
    assert_eq!(read, written);
    assert_eq!(text(&since(&mut server, &job_id, &last)), "");
}

#[test]
fn parts_of_a_log() {
    let log: String = (1..=1000).map(|line| format!("line {line}\n")).collect();
    let (home, mut server, job_id) = ended(log);
    let asked = json!({ "grep": "line 9+0$", "context": 1 });
    let found = logs(&mut server, &job_id, asked);
    assert_eq!(
        text(&found),
        "  line 89\n> line 90\n  line 91\n--\n  line 989\n> line 990\n  line 991"
    );
    let counts = ["matches", "lines_returned", "truncated"].map(|name| &found[name]);
    assert_eq!(counts, [&json!(2), &json!(7), &json!(false)]);
    let found = logs(&mut server, &job_id, json!({ "grep": "0$", "lines": 3 }));
    assert_eq!(text(&found), "line 980\nline 990\nline 1000");
    let note = found["message"].as_str().unwrap();
    assert!(note.contains("as many matches as requested"), "{note}");
    let found = logs(&mut server, &job_id, json!({ "grep": "no such line" }));
    assert_eq!((text(&found), &found["matches"]), ("", &json!(0)));
    assert_eq!(found["message"], "No line of the log matches.");
    // Its cursor is where the log ended, and so is that of no lines.
    let now = logs(&mut server, &job_id, json!({ "lines": 0 }));
    append(&home.log(&job_id), "\x1b[31mnew\x1b[0m\n1%\r2%\n");
    for last in [found, now] {
        assert_eq!(text(&since(&mut server, &job_id, &last)), "new\n2%");
    }
    let raw = logs(&mut server, &job_id, json!({ "raw": true, "lines": 2 }));
    assert_eq!(text(&raw), "\u{fffd}[31mnew\u{fffd}[0m\n1%\r2%");
    // A log that was replaced is read from its beginning.
    fs::write(home.log(&job_id), "other\n").unwrap();
    let other = since(&mut server, &job_id, &raw);
    assert_eq!(text(&other), "other");
    assert_ne!(other["message"], "");
}

#[test]
fn bad_arguments_are_refused() {
    let (_home, mut server, job_id) = ended("one\n");
    let cursor = logs(&mut server, &job_id, json!({}))["cursor"].clone();
    for (asked, said) in [
        (json!({ "grep": "(x" }), "is not a regular expression"),
        (
            json!({ "cursor": "yesterday" }),
            "leave it out to get the end of the log",
        ),
        (json!({ "cursor": cursor, "grep": "x" }), "not both"),
        (json!({ "max_bytes": -1 }), "`max_bytes` must be"),
        (json!({ "context": -1 }), "`context` must be"),
    ] {
        let mut asked = asked;
        asked["job_id"] = job_id.as_str().into();
        let answer = server.call("get_job_logs", asked);
        assert!(answer.refused().contains(said), "{answer}");
    }
}

#[test]
fn default_answer_fits_every_client() {
    let (home, mut server, job_id) = ended("");
    for line in [
        "\"\\\"\\",
        "鍵🔑é",
        "\u{1}\u{2}",
        "{\"loss\": \"0.51\", \"epoch\": \"1.0\"}",
    ] {
        let log: String = (0..3_000)
            .map(|n| format!("{n} {}\n", line.repeat(20)))
            .collect();
        fs::write(home.log(&job_id), log).unwrap();
        for raw in [false, true] {
            let answer = logs(&mut server, &job_id, json!({ "lines": 3_000, "raw": raw }));
            assert!(text(&answer).len() <= 5632);
            // Escapes double it at most; beside the log there is little.
            let size = answer.content.to_string().len();
            assert!(size < 2 * 5632 + 1024, "{size} bytes of {line:?}");
        }
    }
}

#[test]
fn secret_is_hidden_in_every_part() {
    const SECRET: &str = "s3cr3t-value-123";
    let (home, mut server) = Server::in_new_home();
    let job_id = server.submit(home.job("true"), json!({ "envs": { "GIVEN": SECRET } }));
    server.wait_done(&job_id);
    let log = format!("a {SECRET} b\n1%\r{SECRET}\rlast {SECRET}\n");
    fs::write(home.log(&job_id), log).unwrap();
    for (asked, visible) in [
        (json!({}), "a *** b\nlast ***"),
        (json!({ "raw": true }), "a *** b\n1%\r***\rlast ***"),
        (json!({ "grep": "last" }), "last ***"),
        (
            json!({ "grep": "last", "context": 2 }),
            "  a *** b\n> last ***",
        ),
        (json!({ "cursor": "log2..0.0" }), "a *** b\nlast ***"),
        // A pattern cannot probe it.
        (json!({ "grep": "s3c" }), ""),
    ] {
        let answer = logs(&mut server, &job_id, asked);
        assert_eq!(text(&answer), visible);
        assert!(!answer.content.to_string().contains("s3cr3t"), "{answer}");
    }
}
