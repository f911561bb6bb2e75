//! The log of a cloud job, which a program fetches: read on, searched and folded like one of this machine.

use serde_json::{Value, json};

use super::world::{SLURM, World, text};
use crate::support::client::{Answer, Server};
use crate::support::executable;

/// How many lines are fetched of SkyPilot's logs.
const FETCHED: usize = 10_000;

/// A job `a` that runs on SkyPilot's cluster `dev`.
fn world() -> World {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.add_job_now("dev", "1", "a");
    world
}

fn lines(from: usize, to: usize) -> String {
    (from..=to).map(|line| format!("line {line}\n")).collect()
}

fn logs(server: &mut Server, mut asked: Value) -> Answer {
    asked["job_id"] = "a".into();
    server.call("get_job_logs", asked).ok()
}

fn since(server: &mut Server, last: &Answer) -> Answer {
    logs(
        server,
        json!({ "cursor": last["cursor"], "max_bytes": 262_144 }),
    )
}

#[test]
fn cursor_in_a_whole_log() {
    let world = world();
    world.cloud.set_log("dev", "1", &lines(1, 20));
    let mut server = world.server();
    let first = logs(&mut server, json!({ "lines": 2 }));
    assert_eq!(text(&first, "logs"), "line 19\nline 20");
    assert_eq!(first["truncated"], false);
    let nothing = since(&mut server, &first);
    assert_eq!(
        (text(&nothing, "logs"), text(&nothing, "message")),
        ("", "")
    );
    // Lines that say the same again are told apart by where they are.
    let log = lines(1, 20) + &lines(1, 20);
    world.cloud.set_log("dev", "1", &log);
    let mut server = world.server();
    let second = since(&mut server, &nothing);
    assert_eq!(text(&second, "logs"), lines(1, 20).trim_end());
    // The end of the job is a line, too.
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let end = since(&mut server, &second);
    assert_eq!(text(&end, "logs"), "✓ Job finished (status: SUCCEEDED).");
    assert_eq!(text(&since(&mut server, &end), "logs"), "");
}

#[test]
fn cursor_in_the_end_of_a_long_log() {
    let world = world();
    world.cloud.set_log("dev", "1", &lines(1, 12_000));
    let mut server = world.server();
    let first = logs(&mut server, json!({ "lines": 2 }));
    assert_eq!(text(&first, "logs"), "line 11999\nline 12000");
    world.cloud.set_log("dev", "1", &lines(1, 12_030));
    let mut server = world.server();
    let second = since(&mut server, &first);
    assert_eq!(text(&second, "logs"), lines(12_001, 12_030).trim_end());
    assert_eq!(text(&second, "message"), "");
    world.cloud.set_log("dev", "1", &lines(1, 30_000));
    let third = since(&mut server, &second);
    let from = 30_000 - FETCHED + 1;
    assert_eq!(text(&third, "logs"), lines(from, 30_000).trim_end());
    assert!(
        text(&third, "message").contains("lines may be missing before these"),
        "{third}"
    );
    assert_eq!(text(&since(&mut server, &third), "logs"), "");
}

#[test]
fn cursor_in_a_growing_log() {
    let world = world();
    world.cloud.set_log("dev", "1", &lines(1, 9_900));
    let mut server = world.server();
    let first = logs(&mut server, json!({ "lines": 0 }));
    world.cloud.set_log("dev", "1", &lines(1, 10_300));
    let second = since(&mut server, &first);
    assert_eq!(text(&second, "logs"), lines(9_901, 10_300).trim_end());
    assert_eq!(text(&second, "message"), "");
}

#[test]
fn grep_says_when_the_log_is_longer() {
    let world = world();
    world.cloud.set_log("dev", "1", &lines(1, 500));
    let mut server = world.server();
    let found = logs(
        &mut server,
        json!({ "grep": "line 4.0$", "lines": 2, "context": 1 }),
    );
    assert_eq!(
        text(&found, "logs"),
        "  line 479\n> line 480\n  line 481\n--\n  line 489\n> line 490\n  line 491"
    );
    let found = logs(&mut server, json!({ "grep": "nothing" }));
    assert_eq!(text(&found, "message"), "No line of the log matches.");
    world.cloud.set_log("dev", "1", &lines(1, 12_000));
    let found = logs(&mut server, json!({ "grep": "line 7$" }));
    assert_eq!(
        (&found["matches"], &found["truncated"]),
        (&json!(0), &json!(true))
    );
    assert!(
        text(&found, "message").contains("Only the end of this log is fetched"),
        "{found}"
    );
    let all = logs(
        &mut server,
        json!({ "lines": 11_000, "max_bytes": 262_144 }),
    );
    assert_eq!(
        (&all["lines_returned"], &all["truncated"]),
        (&json!(FETCHED), &json!(true))
    );
}

#[test]
fn bar_is_one_line() {
    let states: String = (0..5_000)
        .map(|state| {
            let percent = state / 50;
            format!("{percent:3}%|██▌  | {state}/5000 [00:01<00:07,  9.51it/s]\r")
        })
        .collect();
    let world = world();
    let log = format!("begin\n{states}100%|█████| 5000/5000 [00:08<00:00,  9.51it/s]\nend\n");
    world.cloud.set_log("dev", "1", &log);
    let mut server = world.server();
    let answer = logs(&mut server, json!({ "lines": 3 }));
    assert_eq!(
        text(&answer, "logs"),
        "begin\n100%|█████| 5000/5000 [00:08<00:00,  9.51it/s]\nend"
    );
}

#[test]
fn cursor_in_an_oumi_log() {
    let world = World::new();
    world.know(&[
        ("a", "slurm", SLURM, "1"),
        ("b", "perlmutter", "debug.jane", "1"),
    ]);
    world.cloud.add_job(SLURM, "1", "a", "COMPLETED");
    world.cloud.set_log(SLURM, "1", "one\ntwo\n");
    let mut server = world.server();
    let first = logs(&mut server, json!({ "lines": 1 }));
    assert_eq!(text(&first, "logs"), "two");
    world.cloud.set_log(SLURM, "1", "one\ntwo\nthree\nfour");
    let second = since(&mut server, &first);
    assert_eq!(text(&second, "logs"), "three\nfour");
    assert_eq!(second["unfinished"], Value::Null);
    let host = world.cloud.folder().join("hosts").join(SLURM);
    std::fs::write(host.join("connected"), "").unwrap();
    world
        .cloud
        .set_log(SLURM, "1", "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(text(&since(&mut server, &second), "logs").trim(), "five");
    assert_eq!(world.cloud.calls_of(&["oumi", "launch", "logs"]).len(), 2);
    // What it printed before it was killed is not the end.
    world.cloud.set("ssh-tail.crash", "");
    logs(&mut server, json!({}));
    assert_eq!(world.cloud.calls_of(&["oumi", "launch", "logs"]).len(), 3);
    world.cloud.unset("ssh-tail.crash");
    std::fs::remove_dir_all(host.join("jobs")).unwrap();
    let refusing = "#!/bin/sh\necho 'Error: not found'; exit 1\n";
    executable(&world.cloud.bin().join("oumi"), refusing);
    // Of a supercomputer Oumi reads none.
    for (job, hint) in [("a", "~/oumi_slurm_logs"), ("b", "sign in there")] {
        let answer = server.call("get_job_logs", json!({ "job_id": job }));
        assert!(answer.refused().contains(hint), "{answer}");
    }
}

#[test]
fn cursor_waits_for_late_text() {
    let world = World::new();
    world.know(&[("a", "slurm", SLURM, "1")]);
    world.cloud.add_job(SLURM, "1", "a", "COMPLETED");
    world.cloud.set_log(SLURM, "1", "one\ntwo\nthree\n");
    let mut server = world.server();
    let first = logs(&mut server, json!({}));
    // While it runs it is followed, for some seconds only.
    world.cloud.set_job(SLURM, "1", "RUNNING");
    world.cloud.set_log(SLURM, "1", "one\n");
    let second = since(&mut server, &first);
    assert_eq!(
        (
            text(&second, "logs"),
            &second["cursor"],
            &second["truncated"]
        ),
        ("", &first["cursor"], &json!(true))
    );
    assert!(
        text(&second, "message").contains("Less of the log was fetched"),
        "{second}"
    );
    world.cloud.set_job(SLURM, "1", "COMPLETED");
    world.cloud.set_log(SLURM, "1", "one\ntwo\nthree\nfour\n");
    assert_eq!(text(&since(&mut server, &second), "logs"), "four");
}

#[test]
fn launch_log_then_job_log() {
    let world = World::new();
    world.cloud.set("first_log", "it trains\n");
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    world.cloud.wait_for("blocked-oumi-up");
    let first = logs(&mut server, json!({}));
    assert!(text(&first, "logs").contains("Running on cluster: a"));
    assert_eq!(text(&since(&mut server, &first), "logs"), "");
    world.cloud.set("oumi-up.go", "");
    server.answer("run_job", run).ok();
    let second = since(&mut server, &first);
    assert!(text(&second, "logs").contains("it trains"), "{second}");
    assert!(
        text(&second, "message").contains("replaced or rewritten"),
        "{second}"
    );
    assert_eq!(text(&since(&mut server, &second), "message"), "");
}
