//! What is new in a log since an earlier answer, and what in it matches: in order, nothing twice, nothing skipped.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::{Answer, Server};
use crate::support::{Home, wait_until};

/// A home, a server, and a job that has ended with this log.
fn ended(log: impl AsRef<[u8]>) -> (Home, Server, String) {
    let home = Home::new();
    let mut server = Server::start(&home);
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

fn message(answer: &Answer) -> &str {
    answer["message"].as_str().unwrap()
}

fn numbers(answer: &Answer) -> Vec<u32> {
    text(answer)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
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
fn cursor_gives_each_line_once() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let run = "for block in 1 2 3 4 5 6 7 8 9; do seq ${block}000 ${block}999; sleep 0.02; done";
    let job_id = server.submit(home.job(run), json!({}));
    let mut last = logs(
        &mut server,
        &job_id,
        json!({ "lines": 100_000, "max_bytes": 262_144 }),
    );
    let mut read = numbers(&last);
    loop {
        // Whether it is done, before the rest is read.
        let done = server.poll(&job_id)["is_done"] == true;
        loop {
            let asked = json!({ "cursor": last["cursor"], "max_bytes": 4096 });
            last = logs(&mut server, &job_id, asked);
            read.extend(numbers(&last));
            if last["remaining_bytes"].is_null() {
                break;
            }
            assert_eq!(last["truncated"], true);
        }
        if done {
            break;
        }
    }
    assert!(read == (1000..=9999).collect::<Vec<_>>(), "{read:?}");
}

#[test]
fn zero_lines_give_a_cursor() {
    let (home, mut server, job_id) = ended("old\n");
    let now = logs(&mut server, &job_id, json!({ "lines": 0 }));
    assert_eq!((text(&now), &now["lines_returned"]), ("", &json!(0)));
    append(&home.log(&job_id), "new\n");
    assert_eq!(text(&since(&mut server, &job_id, &now)), "new");
}

#[test]
fn overflow_is_oldest_first_with_remaining_bytes() {
    let (home, mut server, job_id) = ended("");
    let begun = logs(&mut server, &job_id, json!({ "lines": 0 }));
    let all: Vec<u32> = (1_000_000..1_010_000).collect();
    let written: String = all.iter().map(|number| format!("{number}\n")).collect();
    append(&home.log(&job_id), &written);
    let first = since(&mut server, &job_id, &begun);
    assert!(text(&first).len() <= 5632 && text(&first).len() > 5632 - 16);
    assert!(text(&first).starts_with("1000000\n"));
    let remains = written.len() - text(&first).len() - 1;
    assert_eq!(
        (&first["remaining_bytes"], &first["truncated"]),
        (&json!(remains), &json!(true))
    );
    assert!(message(&first).contains("call again with this cursor"));
    let mut read = numbers(&first);
    let mut last = first;
    while !last["remaining_bytes"].is_null() {
        last = since(&mut server, &job_id, &last);
        read.extend(numbers(&last));
    }
    assert!(read == all);
    assert_eq!((last["truncated"] == false, message(&last)), (true, ""));
}

#[test]
fn truncated_log_restarts_and_says_so() {
    let (home, mut server, job_id) = ended("one\ntwo\nthree\n");
    let first = logs(&mut server, &job_id, json!({}));
    assert_eq!(text(&first), "one\ntwo\nthree");
    File::create(home.log(&job_id)).unwrap();
    append(&home.log(&job_id), "new\n");
    let second = since(&mut server, &job_id, &first);
    assert_eq!(text(&second), "new");
    assert!(
        message(&second).contains("truncated"),
        "{}",
        message(&second)
    );
    let other = home.log(&job_id).with_extension("other");
    fs::write(&other, "new\nand more\n").unwrap();
    fs::rename(other, home.log(&job_id)).unwrap();
    let third = since(&mut server, &job_id, &second);
    assert_eq!(text(&third), "new\nand more");
    assert!(message(&third).contains("replaced"), "{}", message(&third));
    assert_eq!(message(&since(&mut server, &job_id, &third)), "");
}

#[test]
fn grep_gives_newest_matches_with_context() {
    let log: String = (1..=1000).map(|line| format!("line {line}\n")).collect();
    let (home, mut server, job_id) = ended(log);
    let found = logs(
        &mut server,
        &job_id,
        json!({ "grep": "line 9+0$", "context": 1 }),
    );
    assert_eq!(
        text(&found),
        "  line 89\n> line 90\n  line 91\n--\n  line 989\n> line 990\n  line 991"
    );
    assert_eq!(
        (
            &found["matches"],
            &found["lines_returned"],
            &found["truncated"]
        ),
        (&json!(2), &json!(7), &json!(false))
    );
    let found = logs(&mut server, &job_id, json!({ "grep": "0$", "lines": 3 }));
    assert_eq!(text(&found), "line 980\nline 990\nline 1000");
    assert_eq!(
        (&found["matches"], &found["truncated"]),
        (&json!(3), &json!(true))
    );
    assert!(
        message(&found).contains("as many matches as requested"),
        "{}",
        message(&found)
    );
    let found = logs(&mut server, &job_id, json!({ "grep": "no such line" }));
    assert_eq!((text(&found), &found["matches"]), ("", &json!(0)));
    assert_eq!(message(&found), "No line of the log matches.");
    // Its cursor is where the log ended.
    append(&home.log(&job_id), "line 1001\n");
    assert_eq!(text(&since(&mut server, &job_id, &found)), "line 1001");
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
        (json!({ "cursor": cursor, "grep": "x" }), "leave cursor out"),
        (json!({ "raw": true, "grep": "x" }), "leave raw out"),
        (json!({ "max_bytes": 1023 }), "give 1024 to 262144"),
        (json!({ "max_bytes": 262_145 }), "give 1024 to 262144"),
        (json!({ "max_bytes": -1 }), "`max_bytes` does not fit"),
        (json!({ "context": -1 }), "`context` does not fit"),
    ] {
        let mut asked = asked;
        asked["job_id"] = job_id.as_str().into();
        let answer = server.call("get_job_logs", asked);
        assert!(answer.refused().contains(said), "{}", answer.refused());
    }
}

#[test]
fn folded_and_raw() {
    let (_home, mut server, job_id) = ended(
        b" 10%| 1/10\r 20%| 2/10\r\x1b[31mdone\x1b[0m\nagain\nagain\nagain\n\x1b]0;title\x07\n",
    );
    assert_eq!(
        text(&logs(&mut server, &job_id, json!({}))),
        "done\nagain\n… repeated 2 times"
    );
    let raw = logs(&mut server, &job_id, json!({ "raw": true }));
    assert_eq!(
        text(&raw),
        " 10%| 1/10\r 20%| 2/10\r\u{fffd}[31mdone\u{fffd}[0m\nagain\nagain\nagain\n\u{fffd}]0;title\u{fffd}"
    );
    assert_eq!(raw["lines_returned"], 5);
    // On from there, raw too.
    let raw = logs(
        &mut server,
        &job_id,
        json!({ "raw": true, "cursor": "log1..0.cbf29ce484222325" }),
    );
    assert_eq!(raw["lines_returned"], 5);
}

#[test]
fn day_long_bar_is_a_few_lines() {
    let (home, mut server, job_id) = ended("");
    let mut log = std::io::BufWriter::new(File::create(home.log(&job_id)).unwrap());
    writeln!(log, "Starting training...").unwrap();
    // 24 hours at 10 Hz.
    for state in 0..864_000 {
        let percent = state / 8_640;
        write!(
            log,
            "\r{percent:3}%|████▋     | {state}/864000 [2:03:04<21:03:04,  9.98it/s]"
        )
        .unwrap();
    }
    writeln!(log, "\nTraceback (most recent call last):\nKeyError: 'x'").unwrap();
    log.into_inner().unwrap();
    assert!(fs::metadata(home.log(&job_id)).unwrap().len() > 40_000_000);
    let answer = logs(&mut server, &job_id, json!({ "lines": 3 }));
    assert_eq!(
        text(&answer),
        " 99%|████▋     | 863999/864000 [2:03:04<21:03:04,  9.98it/s]\n\
         Traceback (most recent call last):\nKeyError: 'x'"
    );
    let all = logs(&mut server, &job_id, json!({}));
    assert_eq!(all["lines_returned"], 4, "{:#}", all.content);
    let found = logs(&mut server, &job_id, json!({ "grep": "Starting|Error" }));
    assert_eq!(text(&found), "Starting training...\nKeyError: 'x'");
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

mod secrets {
    //! Secrets stay hidden however the log is read.

    use super::*;

    const SECRET: &str = "s3cr3t-value-123";

    /// A home, a server, and a job that was given the secret and ended with this log.
    fn with_secret(secret: &str, log: impl AsRef<[u8]>) -> (Home, Server, String) {
        let home = Home::new();
        let mut server = Server::start(&home);
        let job_id = server.submit(home.job("true"), json!({ "envs": { "GIVEN": secret } }));
        server.wait_done(&job_id);
        fs::write(home.log(&job_id), log).unwrap();
        (home, server, job_id)
    }

    #[track_caller]
    fn is_silent(answer: &Answer, of: &str) {
        let content = answer.content.to_string();
        assert!(!content.contains(of), "{of}: {:#}", answer.content);
    }

    #[test]
    fn secret_is_hidden_in_every_mode() {
        let (_home, mut server, job_id) = with_secret(
            SECRET,
            format!("a {SECRET} b\n1%\r{SECRET}\rlast {SECRET}\n"),
        );
        for (asked, shown) in [
            (json!({}), "a *** b\nlast ***"),
            (json!({ "raw": true }), "a *** b\n1%\r***\rlast ***"),
            (json!({ "grep": "last" }), "last ***"),
            (
                json!({ "grep": "last", "context": 2 }),
                "  a *** b\n> last ***",
            ),
            (
                json!({ "cursor": "log1..0.cbf29ce484222325" }),
                "a *** b\nlast ***",
            ),
        ] {
            let answer = logs(&mut server, &job_id, asked);
            assert_eq!(text(&answer), shown);
            is_silent(&answer, "s3cr3t");
        }
    }

    #[test]
    fn grep_cannot_probe_a_secret() {
        let (_home, mut server, job_id) = with_secret(SECRET, format!("key {SECRET}\n"));
        for pattern in [
            "s3c",
            "key s",
            r"key [a-z]",
            r"(s3|\w{2})cr",
            "123$",
            r"key .{16}$",
        ] {
            let found = logs(&mut server, &job_id, json!({ "grep": pattern }));
            assert_eq!(
                (text(&found), &found["matches"]),
                ("", &json!(0)),
                "{pattern}"
            );
        }
    }

    #[test]
    fn cut_line_shows_no_half_secret() {
        // The cut moves through the secret from one length to the next: by the length of a line that is kept whole, and by
        // the budget.
        let fill = |length: usize| "x".repeat(length);
        for (kept, asked) in [
            (16 * 1024, json!({})),
            (1024, json!({ "max_bytes": 1024 })),
            (1024, json!({ "max_bytes": 1024, "raw": true })),
        ] {
            let (home, mut server, job_id) = with_secret(SECRET, "");
            for hidden in 1..SECRET.len() {
                let after = fill(kept - hidden);
                fs::write(
                    home.log(&job_id),
                    format!("{}{SECRET}{after}\n", fill(40_000)),
                )
                .unwrap();
                let answer = logs(&mut server, &job_id, asked.clone());
                for half in [&SECRET[..4], &SECRET[12..]] {
                    is_silent(&answer, half);
                }
                assert!(text(&answer).len() > 400, "{:#}", answer.content);
                // And by a search.
                let asked = json!({ "grep": "x$", "max_bytes": 2048 });
                let answer = logs(&mut server, &job_id, asked);
                assert_eq!(answer["matches"], 1);
                is_silent(&answer, &SECRET[12..]);
            }
        }
    }

    #[test]
    fn multiline_secret_is_hidden() {
        let secret = "{\n  \"first\": \"of the secret\",\n  \"second\": \"of the secret\"\n}";
        let (_home, mut server, job_id) = with_secret(secret, format!("begin\n{secret}\nend\n"));
        for asked in [
            json!({}),
            json!({ "lines": 3 }),
            json!({ "raw": true, "lines": 4 }),
            json!({ "grep": "." }),
            json!({ "grep": "end", "context": 3 }),
        ] {
            let answer = logs(&mut server, &job_id, asked);
            is_silent(&answer, "of the secret");
            assert!(text(&answer).contains("***"), "{:#}", answer.content);
        }
        let found = logs(&mut server, &job_id, json!({ "grep": "second" }));
        assert_eq!(found["matches"], 0);
    }

    #[test]
    fn unfinished_last_word_is_withheld() {
        let home = Home::new();
        let run = format!(
            "printf 'the key is {}'; while [ ! -e go ]; do sleep 0.02; done; echo {}",
            &SECRET[..10],
            &SECRET[10..]
        );
        let mut server = Server::start(&home);
        let job_id = server.submit(home.job(&run), json!({ "envs": { "GIVEN": SECRET } }));
        wait_until("it has written", || {
            fs::read_to_string(home.log(&job_id)).is_ok_and(|log| log.ends_with(&SECRET[..10]))
        });
        let first = logs(&mut server, &job_id, json!({}));
        assert_eq!(first["unfinished"], "the key is ***");
        is_silent(&first, &SECRET[..6]);
        let found = logs(&mut server, &job_id, json!({ "grep": "s3cr" }));
        is_silent(&found, &SECRET[..6]);
        home.write("go", "");
        server.wait_done(&job_id);
        assert_eq!(text(&since(&mut server, &job_id, &first)), "the key is ***");
    }
}
