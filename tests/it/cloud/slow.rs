//! Programs that are slow, hang, die, or say what nobody can read.

use serde_json::json;

use super::world::{SLURM, World, how, text, warnings};
use crate::support::wait_until;

/// A world with jobs 1 to 3 of cluster `dev`, and job 1 on a Slurm, under the names `a` to `c` and `s`.
fn with_jobs() -> World {
    let world = World::new();
    world.know(&[
        ("a", "aws", "dev", "1"),
        ("b", "aws", "dev", "2"),
        ("c", "aws", "dev", "3"),
        ("s", "slurm", SLURM, "1"),
    ]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    for (id, name) in [("1", "a"), ("2", "b"), ("3", "c")] {
        world.cloud.add_job("dev", id, name, "RUNNING");
    }
    world.cloud.add_job(SLURM, "1", "s", "RUNNING");
    world
}

#[test]
fn ten_polls_are_one_sky_call() {
    let world = with_jobs();
    world.cloud.set("sky-queue.gate", "");
    let mut server = world.server();
    let jobs = ["a", "b", "c"].iter().cycle().take(10);
    let polls: Vec<u64> = jobs
        .map(|job| server.send("poll_status", json!({ "job_id": job })))
        .collect();
    // All ten are being answered when some calls that came after them are, one after the other.
    for _ in 0..20 {
        server
            .call("poll_status", json!({ "job_id": "nosuch" }))
            .refused();
    }
    wait_until("sky is asked", || {
        world.cloud.calls_of(&["sky", "queue"]).len() == 1
    });
    world.cloud.set("sky-queue.open", "");
    for poll in polls {
        assert_eq!(server.answer("poll_status", poll).ok()["status"], "RUNNING");
    }
    let asked = world.cloud.calls_of(&["sky", "queue"]);
    assert_eq!(asked[0].args, ["queue", "dev", "-o", "json"]);
    // How far they are is asked once a job, and whose log it is.
    let logs = world.cloud.calls_of(&["sky", "logs"]);
    assert!(
        asked.len() <= 1 + logs.len() && logs.len() == 3,
        "{asked:?}"
    );
}

#[test]
fn slow_programs_do_not_delay_local_jobs() {
    let world = World::new();
    let names: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    let jobs: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "aws", name.as_str(), "1"))
        .collect();
    world.know(&jobs);
    for name in &names {
        world.cloud.add_cluster(name, "AWS", "UP");
        world.cloud.add_job(name, "1", name, "RUNNING");
    }
    world.cloud.set("sky-queue.gate", "");
    let mut server = world.server();
    let polls: Vec<u64> = names
        .iter()
        .map(|name| server.send("poll_status", json!({ "job_id": name })))
        .collect();
    let running = || world.cloud.calls_of(&["sky", "queue"]).len();
    wait_until("as many run as may", || running() == 4);
    let here = server.submit("job.yaml", json!({}));
    assert_eq!(server.wait_done(&here)["status"], "completed");
    assert_eq!(server.log(&here), "hi");
    assert_eq!(running(), 4);
    world.cloud.set("sky-queue.open", "");
    for poll in polls {
        assert_eq!(server.answer("poll_status", poll).ok()["status"], "RUNNING");
    }
    assert!(running() <= 12);
}

#[test]
fn hanging_program_costs_its_part() {
    let world = with_jobs();
    world.cloud.set("sky-queue.hang", "");
    let mut server = world.server();
    let here = server.submit("job.yaml", json!({}));
    server.wait_done(&here);
    let list = server.send("list_jobs", json!({}));
    let poll = server.send("poll_status", json!({ "job_id": "a" }));
    // Slurm and this machine are answered meanwhile.
    assert_eq!(how(&server.poll("s")), ("RUNNING", "RUNNING", false));
    assert_eq!(server.poll(&here)["status"], "completed");

    let list = server.answer("list_jobs", list).ok();
    let ids: Vec<&str> = list["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["job_id"].as_str().unwrap())
        .collect();
    assert!(
        ids.len() == 2 && ids.contains(&"s") && ids.contains(&here.as_str()),
        "{ids:?}"
    );
    let said = warnings(&list);
    assert!(
        said.contains("not asked about: a, b, c") && said.contains("still runs"),
        "{said}"
    );
    let answer = server.answer("poll_status", poll);
    assert!(answer.refused().contains("still runs"), "{answer}");
    assert_eq!(
        (&answer["status"], &answer["cluster"]),
        (&json!("unknown"), &json!("dev"))
    );
}

#[test]
fn unreadable_output_fails_only_the_call() {
    for (knob, says, said) in [
        ("garbage", "huge", "printed more than"),
        ("garbage", "half", "without a whole JSON"),
        ("garbage", "text", "without a whole JSON"),
        ("garbage", "empty", "without a whole JSON"),
        ("garbage", "bytes", "without a whole JSON"),
        ("crash", "", "without a whole JSON"),
        ("replay", "sky/launch-badinfra", "`sky queue` failed: "),
    ] {
        let world = with_jobs();
        world.cloud.set(&format!("sky-queue.{knob}"), says);
        world.cloud.set("sky-queue.times", "1");
        let mut server = world.server();
        let answer = server.call("poll_status", json!({ "job_id": "a" }));
        assert!(
            answer.refused().contains(said),
            "{knob} {says}: {}",
            answer.refused()
        );
        assert!(
            answer.refused().contains("terminal"),
            "{knob} {says}: {}",
            answer.refused()
        );
        assert_eq!(
            (&answer["status"], &answer["is_done"]),
            (&json!("unknown"), &json!(false))
        );
        // The next is answered.
        assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
        // A list gives the rest.
        world.cloud.set("sky-queue.times", "1");
        let (ids, list) = server.list("all");
        assert_eq!(ids, ["s"], "{knob} {says}");
        assert!(
            warnings(&list).contains("not asked about: a, b, c"),
            "{list}"
        );
        assert!(
            warnings(&list).contains(said),
            "{knob} {says}: {:#}",
            list.content
        );
    }
}

#[test]
fn unreadable_status_costs_its_facts() {
    let world = with_jobs();
    world.cloud.set("sky-status.garbage", "half");
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let mut server = world.server();
    assert_eq!(how(&server.poll("a")), ("SUCCEEDED", "SUCCEEDED", true));
    let (ids, list) = server.list("all");
    assert_eq!(ids.len(), 4, "{list}");
    assert!(warnings(&list).contains("clusters cost"), "{list}");
    world.cloud.lose_cluster("dev");
    assert_eq!(how(&server.poll("a")), ("cluster_gone", "UNKNOWN", true));
}

#[test]
fn unreadable_oumi_costs_its_jobs() {
    for (knob, says) in [
        ("garbage", "huge"),
        ("garbage", "bytes"),
        ("garbage", "empty"),
        ("crash", ""),
        ("replay", "oumi/cancel-local-other-process"),
    ] {
        let world = with_jobs();
        world.cloud.set(&format!("oumi-status.{knob}"), says);
        let mut server = world.server();
        let poll = server.call("poll_status", json!({ "job_id": "s" }));
        let is_silent = poll.refused().contains("said nothing");
        assert_eq!(text(&poll, "next").contains("SSH"), is_silent, "{poll}");
        assert_eq!(poll["status"], "unknown", "{knob} {says}");
        let (mut ids, list) = server.list("all");
        ids.sort();
        assert_eq!(ids, ["a", "b", "c"], "{knob} {says}");
        assert!(warnings(&list).contains('s'), "{list}");
        assert!(
            warnings(&list).contains("Slurm")
                || warnings(&list).contains("oumi")
                || warnings(&list).contains("slurm")
        );
    }
}

#[test]
fn long_and_broken_logs() {
    let world = with_jobs();
    world.cloud.set("sky-logs.garbage", "huge");
    let mut server = world.server();
    let answer = server.call("get_job_logs", json!({ "job_id": "a" })).ok();
    assert!(
        text(&answer, "logs").contains("{\"x\": [1, 2, 3"),
        "{answer}"
    );
    assert!(answer["lines_returned"].as_u64().unwrap() <= 200);

    world.cloud.unset("sky-logs.garbage");
    world.cloud.set("sky-logs.crash", "");
    let answer = server.call("get_job_logs", json!({ "job_id": "a" }));
    assert!(
        answer.is_error || !text(&answer, "logs").is_empty(),
        "{answer}"
    );
}

#[test]
fn dying_change_fails_only_the_call() {
    let world = with_jobs();
    for knob in ["sky-cancel.crash", "sky-stop.crash"] {
        world.cloud.set(knob, "");
    }
    world.cloud.set("sky-cancel.replay", "sky/launch-badinfra");
    let mut server = world.server();
    let answer = server.cancel("a", false);
    assert!(
        answer.refused().contains("may still be running"),
        "{answer}"
    );
    assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
}
