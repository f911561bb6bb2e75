//! How a job is, in the launcher's word and in ours, whatever the programs say around it.

use std::fs;

use serde_json::json;

use super::world::{SLURM, World, how, text, warnings};
use crate::support::client::Server;
use crate::support::wait_until;

/// A world that knows job `a`, which is job 1 of cluster `dev` on AWS, in the state given.
fn with_job(status: &str) -> World {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.add_job_now("dev", "1", "a");
    world.cloud.set_job("dev", "1", status);
    world
}

fn with_slurm_job(status: &str) -> World {
    let world = World::new();
    world.know(&[("a", "slurm", SLURM, "1")]);
    world.cloud.add_job(SLURM, "1", "a", status);
    world
}

#[test]
fn skypilot_words() {
    let words = [
        ("SETTING_UP", "PENDING", false),
        ("RUNNING", "RUNNING", false),
        ("FAILED_SETUP", "FAILED", true),
        ("CANCELLED", "CANCELLED", true),
    ];
    let world = with_job("RUNNING");
    let mut server = world.server();
    for (word, state, is_done) in words {
        world.cloud.set_job("dev", "1", word);
        let status = server.poll("a");
        assert_eq!(how(&status), (word, state, is_done));
        assert!(!warnings(&status).contains("not known"), "{status}");
        let row = &server.list("all").1["jobs"][0];
        assert_eq!(
            (&row["status"], &row["is_done"]),
            (&json!(word), &json!(is_done))
        );
        let (shown, hidden) = if is_done {
            ("completed", "running")
        } else {
            ("running", "completed")
        };
        assert_eq!(server.list(shown).0, ["a"], "{word}");
        assert_eq!(server.list(hidden).0, [""; 0], "{word}");
    }
}

#[test]
fn unknown_word_is_not_done_and_warned_of() {
    for world in [with_job("HOVERING"), with_slurm_job("HOVERING")] {
        let mut server = world.server();
        let status = server.poll("a");
        assert_eq!(how(&status), ("HOVERING", "UNKNOWN", false));
        assert!(warnings(&status).contains("\"HOVERING\""), "{status}");
        let (ids, list) = server.list("running");
        assert_eq!(ids, ["a"]);
        assert!(warnings(&list).contains("\"HOVERING\""), "{list}");
    }
}

#[test]
fn poll_has_the_facts() {
    let world = with_job("RUNNING");
    let mut server = world.server();
    let status = server.poll("a");
    for (field, value) in [("cloud", "aws"), ("cluster", "dev"), ("oumi_job_id", "1")] {
        assert_eq!(status[field], value);
    }
    let metadata = &status["metadata"];
    let start = text_of(&metadata["start_at"]);
    assert!(
        chrono::DateTime::parse_from_rfc3339(start).is_ok(),
        "{start}"
    );
    assert!(text(&status, "next").contains("poll_status"));
}

/// SkyPilot's program tells no price of a cluster that was there before the launch, but the launch knew one.
#[test]
fn price_of_an_existing_cluster_is_that_of_the_launch() {
    let world = with_job("RUNNING");
    std::fs::write(world.home.job_dir("a").join("price.json"), "12.25").unwrap();
    let mut server = world.server();
    assert_eq!(server.poll("a")["hourly_price"], 12.25);
    let (_, list) = server.list("running");
    assert_eq!(list["jobs"][0]["hourly_price"], 12.25);
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let poll = server.poll("a");
    assert!(warnings(&poll).contains("still up at $12.25 an hour"));
}

fn text_of(value: &serde_json::Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn cluster_gone() {
    let world = World::new();
    let sky = world.home.root().join(".sky");
    fs::create_dir_all(&sky).unwrap();
    fs::write(sky.join("user_hash"), "fcd1e5cf").unwrap();
    let mut server = world.server();
    let job_id = server.submit("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    world.cloud.lose_cluster("a");
    for mut server in [server, world.server()] {
        let status = server.poll(&job_id);
        assert_eq!(how(&status), ("cluster_gone", "UNKNOWN", true));
        assert!(text(&status, "message").contains("cluster a is gone"));
        assert_eq!(status["next"], "Tell the user; its log is gone too.");
        assert_eq!(
            (&status["cluster"], &status["oumi_job_id"]),
            (&json!("a"), &json!("1"))
        );
        let (ids, list) = server.list("completed");
        assert_eq!(ids, ["a"]);
        assert_eq!(list["jobs"][0]["status"], "cluster_gone");
        assert_eq!(warnings(&list), "");
        let cancel = server.cancel("a", false);
        assert!(cancel.refused().contains("cluster_gone"), "{cancel}");
        // Its log went with it.
        let logs = server.call("get_job_logs", json!({ "job_id": "a" }));
        assert!(logs.refused().contains("does not exist"), "{logs}");
    }
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
    // An API server that did not launch it, or another home, says nothing of it.
    let endpoint = "SKYPILOT_API_SERVER_ENDPOINT";
    for (variable, value, place) in [
        (endpoint, "http://me:pw@localhost:9/", "asks localhost:9/"),
        ("SKYPILOT_USER_ID", "bob", "as user bob, which does not"),
    ] {
        let mut server = world.server_with(&[(variable, value)]);
        let status = server.call("poll_status", json!({ "job_id": "a" }));
        assert!(status.refused().contains(place), "{status}");
        assert!(server.cancel("a", false).refused().contains("not certain"));
    }
}

#[test]
fn stopped_is_done_init_is_not() {
    let world = with_job("RUNNING");
    let mut server = world.server();
    for (cluster, status, is_done, next) in [
        ("STOPPED", "cluster_stopped", true, "`sky start`"),
        ("INIT", "cluster_init", false, "wait_seconds"),
    ] {
        world.cloud.set_cluster("dev", cluster);
        let answer = server.poll("a");
        assert_eq!(how(&answer), (status, "UNKNOWN", is_done));
        assert!(
            text(&answer, "message").contains("cluster dev is"),
            "{answer}"
        );
        assert!(text(&answer, "next").contains(next));
        assert_eq!(answer["metadata"]["cluster_status"], cluster);
        let row = &server.list("all").1["jobs"][0];
        assert_eq!(
            (&row["job_id"], &row["status"]),
            (&json!("a"), &json!(status))
        );
    }
}

#[test]
fn text_before_json_is_ignored() {
    let world = with_job("SUCCEEDED");
    let mut server = world.server();
    // Its API server has to be started by each call, and each says so.
    for _ in 0..2 {
        world.cloud.write("api_down", "");
        assert_eq!(how(&server.poll("a")), ("SUCCEEDED", "SUCCEEDED", true));
    }
    world.cloud.write("api_down", "");
    let (ids, list) = server.list("all");
    assert_eq!(ids, ["a"], "{list}");
    // One cluster of several that does not answer is said before the others' jobs.
    world.cloud.add_cluster("other", "GCP", "INIT");
    world.cloud.add_cluster("third", "GCP", "STOPPED");
    assert_eq!(server.list("all").0, ["a"]);
}

#[test]
fn terminal_width_is_ignored() {
    let host = "a-user-of-long-name@login.a-host-of-an-even-longer-name.example.org";
    let world = World::new();
    world.know(&[("a", "slurm", host, "1"), ("b", "aws", "dev", "1")]);
    world.cloud.add_job(host, "1", "a", "CANCELLED by 0");
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "1", "b", "RUNNING");
    let mut server = world.server_with(&[("COLUMNS", "20")]);
    assert_eq!(
        how(&server.poll("a")),
        ("CANCELLED by 0", "CANCELLED", true)
    );
    assert_eq!(server.poll("b")["status"], "RUNNING");
    let asked = json!({ "cloud": "slurm", "cluster_name": host, "job_name": "c" });
    let job_id = server.submit("job.yaml", asked);
    assert_eq!(server.poll(&job_id)["oumi_job_id"], "2");
    assert!(
        world
            .cloud
            .calls()
            .iter()
            .all(|call| call.columns == "4096")
    );
}

#[test]
fn sky_logs_exit_code_is_the_jobs() {
    let world = with_job("RUNNING");
    world.cloud.set_log("dev", "1", "one\ntwo\nthree\n");
    let mut server = world.server();
    for status in ["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "PENDING"] {
        world.cloud.set_job("dev", "1", status);
        let answer = server
            .call("get_job_logs", json!({ "job_id": "a", "lines": 50 }))
            .ok();
        assert_eq!(answer["log_file"], "cloud:aws/dev");
        if status != "PENDING" {
            // Without colours and prefixes.
            assert!(
                text(&answer, "logs").contains("one\ntwo\nthree"),
                "{answer}"
            );
        }
    }
    let call = world.cloud.calls_of(&["sky", "logs"]).remove(0);
    // As many as make a position in the log be found again, however many lines are asked for.
    assert_eq!(
        call.args,
        ["logs", "dev", "1", "--no-follow", "--tail", "10000"]
    );
}

#[test]
fn log_tail() {
    let world = with_job("RUNNING");
    let log: String = (1..=500).map(|line| format!("line {line}\n")).collect();
    world.cloud.set_log("dev", "1", &log);
    let mut server = world.server();
    let answer = server
        .call("get_job_logs", json!({ "job_id": "a", "lines": 3 }))
        .ok();
    assert_eq!(answer["logs"], "line 498\nline 499\nline 500");
    assert_eq!(answer["lines_returned"], 3);
    let answer = server.call("get_job_logs", json!({ "job_id": "a" })).ok();
    assert_eq!(answer["lines_requested"], 200);
    assert!(text(&answer, "logs").ends_with("line 500"));
}

#[test]
fn log_of_a_missing_job() {
    let world = with_job("RUNNING");
    let mut server = world.server();
    for (cluster, id, said) in [
        ("dev", "77", "no job \"77\""),
        ("nosuch", "1", "does not exist"),
    ] {
        let asked = json!({ "oumi_job_id": id, "cloud": "aws", "cluster_name": cluster });
        let answer = server.call("get_job_logs", asked);
        assert!(answer.refused().contains(said), "{answer}");
    }
    let asked = json!({ "oumi_job_id": "77", "cloud": "aws", "cluster_name": "dev" });
    let answer = server.call("poll_status", asked);
    assert!(answer.refused().contains("no job \"77\""), "{answer}");
    assert_eq!(answer["status"], "not_found");
}

#[test]
fn slurm_log() {
    let world = with_slurm_job("COMPLETED");
    world.cloud.set_log(SLURM, "1", "one\ntwo\n");
    let mut server = world.server();
    let answer = server.call("get_job_logs", json!({ "job_id": "a" })).ok();
    assert_eq!(text(&answer, "logs").trim(), "one\ntwo");
    assert_eq!(answer["log_file"], format!("cloud:slurm/{SLURM}"));
    let asked = json!({ "oumi_job_id": "999", "cloud": "slurm", "cluster_name": SLURM });
    let answer = server.call("get_job_logs", asked);
    assert!(
        answer.refused().contains("before the job begins"),
        "{answer}"
    );
}

#[test]
fn second_cancel_does_nothing() {
    for (world, cluster) in [
        (with_job("RUNNING"), "dev"),
        (with_slurm_job("RUNNING"), SLURM),
    ] {
        let mut server = world.server();
        let answer = server.cancel("a", false).ok();
        assert_eq!(how(&answer), ("cancelled", "CANCELLED", true));
        assert_eq!(world.cloud.job_status(cluster, "1").unwrap(), "CANCELLED");
        let calls = world.cloud.calls().len();
        let again = server.cancel("a", false).ok();
        assert_eq!(how(&again), ("CANCELLED", "CANCELLED", true));
        // The live status was asked, and nothing was done.
        let later = &world.cloud.calls()[calls..];
        assert!(
            !later
                .iter()
                .any(|call| call.args.iter().any(|word| word == "cancel")),
            "{later:?}"
        );
    }
}

#[test]
fn unfulfilled_cancel_is_stopping() {
    for (world, knob) in [
        (with_job("RUNNING"), "sky-cancel.noop"),
        (with_slurm_job("RUNNING"), "oumi-cancel.noop"),
    ] {
        world.cloud.set(knob, "");
        let mut server = world.server();
        let answer = server.cancel("a", false).ok();
        assert_eq!(how(&answer), ("running", "RUNNING", false));
        assert!(text(&answer, "message").contains("poll_status"), "{answer}");
    }
}

#[test]
fn accepted_cancel_is_stopping_when_the_recheck_fails() {
    for (world, cancel, query) in [
        (with_job("RUNNING"), "sky-cancel", "sky-queue"),
        (with_slurm_job("RUNNING"), "oumi-cancel", "oumi-status"),
    ] {
        world.cloud.set(&format!("{cancel}.noop"), "");
        let mut server = world.server();
        server.poll("a");
        world.cloud.set(&format!("{query}.crash"), "");
        let answer = server.cancel("a", false).ok();
        assert_eq!(answer["is_done"], json!(false), "{answer}");
        assert!(text(&answer, "message").contains("poll_status"), "{answer}");
    }
}

/// Cancels the job `a`, and does `meanwhile` when the program that cancels has been started and has not cancelled yet.
fn cancel_while(
    world: &World,
    server: &mut Server,
    knob: &str,
    meanwhile: impl FnOnce(),
) -> crate::support::client::Answer {
    world.cloud.set(&format!("{knob}.gate"), "");
    let cancel = server.send("cancel_job", json!({ "job_id": "a" }));
    let begun = || {
        world
            .cloud
            .calls()
            .iter()
            .any(|call| call.args.iter().any(|word| word == "cancel"))
    };
    wait_until("the cancel has begun", begun);
    meanwhile();
    world.cloud.set(&format!("{knob}.open"), "");
    server.answer("cancel_job", cancel)
}

#[test]
fn job_ending_during_cancel() {
    for (world, knob, cluster, word) in [
        (with_job("RUNNING"), "sky-cancel", "dev", "SUCCEEDED"),
        (with_slurm_job("RUNNING"), "oumi-cancel", SLURM, "COMPLETED"),
    ] {
        let mut server = world.server();
        let answer = cancel_while(&world, &mut server, knob, || {
            world.cloud.set_job(cluster, "1", word)
        });
        assert!(answer.refused().contains("already ended"), "{answer}");
        assert_eq!(how(&answer), (word, "SUCCEEDED", true));
    }
}

#[test]
fn cancel_is_verified_not_believed() {
    let world = with_slurm_job("RUNNING");
    world
        .cloud
        .set("oumi-cancel.replay", "oumi-slurm/cancel-unknown-job");
    let mut server = world.server();
    let answer = cancel_while(&world, &mut server, "oumi-cancel", || {
        world.cloud.set_job(SLURM, "1", "CANCELLED by 0");
    });
    assert_eq!(how(&answer.ok()), ("cancelled", "CANCELLED", true));
}

#[test]
fn failed_cancel_says_the_job_may_run() {
    let world = with_slurm_job("RUNNING");
    world
        .cloud
        .set("oumi-cancel.replay", "oumi-slurm/cancel-unknown-job");
    let mut server = world.server();
    let answer = server.cancel("a", false);
    assert!(answer.refused().contains("Job 999 not found"), "{answer}");
    assert!(
        answer.refused().contains("may still be running"),
        "{answer}"
    );

    let world = with_job("RUNNING");
    world.cloud.set("sky-cancel.garbage", "text");
    let mut server = world.server();
    let answer = server.cancel("a", false);
    assert!(answer.refused().contains("Something"), "{answer}");
    assert!(answer.refused().contains("down_cluster"), "{answer}");
}

#[test]
fn forgotten_slurm_job() {
    let world = World::new();
    world.know(&[("a", "slurm", SLURM, "1")]);
    world.cloud.add_job(SLURM, "2", "foreign", "RUNNING");
    let mut server = world.server();
    let answer = server.call("poll_status", json!({ "job_id": "a" }));
    assert!(answer.refused().contains("list_jobs"), "{answer}");
    assert_eq!(answer["status"], "not_found");
    server.cancel("a", false).refused();
    let (ids, list) = server.list("all");
    assert_eq!(ids, ["2"]);
    assert!(warnings(&list).contains("job a"), "{list}");
    assert!(
        world
            .cloud
            .calls_of(&["oumi", "launch", "cancel"])
            .is_empty()
    );
}

#[test]
fn silence_is_not_gone() {
    let sky = |script: &str| {
        let world = with_job("RUNNING");
        let old = world.cloud.bin().join("sky");
        let real = world.cloud.bin().join("real-sky");
        std::fs::rename(&old, &real).unwrap();
        crate::support::executable(
            &old,
            &format!(
                "#!/bin/sh\ncase $1 in queue) {script} ;; esac\nexec {} \"$@\"\n",
                real.display()
            ),
        );
        world
    };
    for (script, is_gone) in [
        ("echo '{}'; exit 1", false),
        ("echo '{}'; kill -9 $$", false),
        ("echo '{}'; exit 0", false),
        ("echo '{\"dev\": []}'; exit 0", false),
        ("echo '{\"dev\": []}'; exit 1", false),
        ("echo '{\"dev\": null}'; exit 0", false),
        ("echo '{\"dev\": [{\"job_id\": 1.0}]}'; exit 0", false),
        (
            "echo '{\"dev\": [{\"job_id\": true, \"submitted_at\": NaN}]}'; exit 0",
            false,
        ),
        ("echo '{\"dev\": [], \"dev\": []}'; exit 0", false),
        (
            "echo \"Failed to get the job queue for cluster 'dev'.\"; echo '  cluster is gone, it seems'; echo '{}'; exit 0",
            false,
        ),
        (
            "echo \"Failed to get the job queue for cluster 'dev'.\"; echo '  ClusterDoesNotExist: Cluster \"dev\" does not exist.'; echo '{}'; exit 0",
            true,
        ),
        ("echo 'Error: No such option: -o' >&2; exit 2", false),
    ] {
        let world = sky(script);
        let mut server = world.server();
        let answer = server.call("poll_status", json!({ "job_id": "a" }));
        assert_eq!(
            answer["is_done"] == json!(true),
            is_gone,
            "{script}: {:#}",
            answer.content
        );
        assert_eq!(
            answer["status"],
            if is_gone { "cluster_gone" } else { "unknown" },
            "{script}"
        );
        if !is_gone {
            assert!(!text(&answer, "error").is_empty() && !text(&answer, "next").is_empty());
        }
        if script.contains("No such option") {
            assert!(
                text(&answer, "next").contains("pip install -U skypilot"),
                "{answer}"
            );
        }
    }
    // Gone is also a cluster that SkyPilot's whole list lacks.
    let world = sky("echo '{}'; exit 1");
    world.cloud.lose_cluster("dev");
    assert_eq!(
        how(&world.server().poll("a")),
        ("cluster_gone", "UNKNOWN", true)
    );
}
