//! A launch while it goes on, and one that fails.

use std::time::{Duration, Instant};

use serde_json::json;

use super::world::{World, how, text, warnings};
use crate::support::{alive, kill_9, wait_until};

#[test]
fn long_launch_is_pending() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let arguments = server.launch("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    let begun = Instant::now();
    let run = server.send_with_progress("run_job", arguments);
    world.cloud.wait_for("blocked-oumi-up");

    // It is known, with its cluster, before there is a job.
    let record = world.the_record();
    assert_eq!(
        (&record["cluster_name"], &record["oumi_job_id"]),
        (&json!("a"), &json!(""))
    );
    let status = server.poll("a");
    assert_eq!(how(&status), ("launching", "PENDING", false));
    assert!(
        text(&status, "message").contains("Launching on AWS"),
        "{status}"
    );
    let log = server.log("a");
    assert!(log.contains("Running on cluster: a"), "{log}");
    let (ids, list) = server.list("running");
    assert_eq!(ids, ["a"]);
    assert_eq!(
        (&list["jobs"][0]["status"], &list["jobs"][0]["cluster"]),
        (&json!("launching"), &json!("a"))
    );

    let answer = server.answer("run_job", run).ok();
    let messages = server.progress_messages().join("\n");
    assert!(messages.contains("Launching on AWS"), "{messages}");
    assert!(begun.elapsed() >= Duration::from_secs(10));
    assert_eq!(
        (
            &answer["status"],
            &answer["launch_confirmed"],
            &answer["cluster"]
        ),
        (&json!("launching"), &json!(false), &json!("a"))
    );
    assert!(
        text(&answer, "message").contains("not yet confirmed"),
        "{answer}"
    );

    world.cloud.set("oumi-up.go", "");
    wait_until("the job runs", || {
        how(&server.poll("a")) == ("RUNNING", "RUNNING", false)
    });
    assert_eq!(server.poll("a")["oumi_job_id"], "1");
    assert_eq!(server.list("all").0, ["a"]);
    assert_eq!(world.launches(), 1);
}

#[test]
fn failed_launch_has_reason_and_log() {
    let reason = "ValueError: A cluster name must be provided for Slurm.";
    for cloud in ["aws", "slurm"] {
        let world = World::new();
        world
            .cloud
            .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
        let mut server = world.server();
        let cluster = if cloud == "slurm" {
            super::world::SLURM
        } else {
            "dev"
        };
        let asked = json!({ "cloud": cloud, "job_name": "a", "cluster_name": cluster });
        let answer = server.run("job.yaml", asked);
        assert!(answer.refused().contains(reason), "{answer}");
        assert_eq!(
            (&answer["status"], &answer["job_id"]),
            (&json!("failed"), &json!("a"))
        );
        for mut server in [server, world.server()] {
            let status = server.poll("a");
            assert_eq!(how(&status), ("failed", "FAILED", true));
            assert!(text(&status, "message").contains(reason), "{status}");
            let log = server.log("a");
            assert!(log.contains("Traceback (most recent call last)"), "{log}");
            assert_eq!(server.list("completed").1["jobs"][0]["status"], "failed");
            let cancel = server.cancel("a", false);
            assert!(cancel.refused().contains("already ended"), "{cancel}");
            assert_eq!(how(&cancel), ("failed", "FAILED", true));
        }
        assert_eq!(world.launches(), 1);
        assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
    }
}

#[test]
fn failed_launch_warns_of_its_cluster() {
    let world = World::new();
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let mut server = world.server();
    for (before, is_left) in [("UP", false), ("STOPPED", true)] {
        world.cloud.add_cluster(before, "AWS", before);
        let asked = json!({ "cloud": "aws", "job_name": before, "cluster_name": before });
        server.run("job.yaml", asked).refused();
        world.cloud.set_cluster(before, "UP");
        let status = server.poll(before);
        assert_eq!(how(&status), ("failed", "FAILED", true));
        for part in [" (AWS) is still up", "down_cluster"] {
            assert_eq!(warnings(&status).contains(part), is_left, "{status}");
        }
    }
}

#[test]
fn stopped_cluster_fails_with_the_reason() {
    let world = World::new();
    world.cloud.add_cluster("dev", "AWS", "STOPPED");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "cluster_name": "dev" });
    let answer = server.run("job.yaml", asked);
    assert!(answer.refused().contains("ClusterNotUpError"), "{answer}");
}

#[test]
fn launch_without_printed_id() {
    let world = World::new();
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.set("oumi-up.garbage", "text");
    world.cloud.set("oumi-up.gate", "");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev" });
    let run = server.send_run("job.yaml", asked);
    wait_until("it is launching", || world.launches() == 1);
    world.add_job_now("dev", "7", "a");
    world.cloud.set("oumi-up.open", "");
    let answer = server.answer("run_job", run).ok();
    assert_eq!(
        (&answer["status"], &answer["oumi_job_id"]),
        (&json!("RUNNING"), &json!("7"))
    );
}

#[test]
fn unstartable_program_is_a_failed_launch() {
    let (world, mut server) = World::with_server();
    std::fs::remove_file(world.cloud.oumi()).unwrap();
    crate::support::executable(&world.cloud.oumi(), "#!/nonexistent/python\n");
    let answer = server.run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    assert!(answer.refused().contains("cannot run"), "{answer}");
    assert_eq!(how(&server.poll("a")), ("failed", "FAILED", true));
    assert!(!world.staged_path("a").exists());
}

#[test]
fn launches_run_concurrently() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let names = ["a", "b", "c", "d", "e", "f"];
    let runs =
        names.map(|name| server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": name })));
    // More than the programs that may be asked at once: launches are no questions.
    wait_until("all are launching", || world.launches() == names.len());
    world.cloud.set("oumi-up.go", "");
    for (name, run) in names.into_iter().zip(runs) {
        server.answer("run_job", run).ok();
        wait_until("it runs", || server.poll(name)["status"] == "RUNNING");
    }
    assert_eq!(server.list("running").0.len(), names.len());
}

#[test]
fn teardown_says_that_a_launch_is_under_way() {
    let world = World::new();
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.set("oumi-up.gate", "");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev" });
    server.send_run("job.yaml", asked);
    wait_until("the launch was begun", || world.launches() == 1);
    // Another server says it too.
    for server in [&mut server, &mut world.server()] {
        let dev = json!({ "cloud": "aws", "cluster_name": "dev" });
        let answer = server.call("stop_cluster", dev).ok();
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains("the launch of a onto it was under way"),
            "{message}"
        );
    }
    world.cloud.set("oumi-up.open", "");
}

#[test]
fn hung_launch_is_killed_by_force() {
    for (block, is_submitted, is_supervised) in [
        ("middle", false, true),
        ("middle", false, false),
        ("after-job", true, true),
    ] {
        let world = World::new();
        world.cloud.set("oumi-up.block", block);
        let mut server = world.server();
        let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
        world.cloud.wait_for("blocked-oumi-up");
        let launch = world.the_launch().pid;
        if !is_supervised {
            kill_9(world.home.supervisor("a"));
        }
        let waiting = server.send("cancel_job", json!({ "job_id": "a" }));
        // It has been silent for long.
        world.age("a", 3600);
        let killed = server.cancel("a", true);
        assert!(!alive(launch));
        if !is_submitted {
            let waiting = server.answer("cancel_job", waiting);
            for (answer, words) in [
                (waiting, "force=true kills it"),
                (killed, "looked for on cluster a"),
            ] {
                assert_eq!(how(&answer), ("launching", "PENDING", false));
                let message = text(&answer, "message");
                assert!(message.contains(words), "{message}");
            }
            // SkyPilot carries it on.
            world.cloud.set_cluster("a", "UP");
            world.add_job_now("a", "1", "a");
        }
        server.answer("run_job", run);
        wait_until("the job is cancelled", || {
            how(&server.poll("a")) == ("CANCELLED", "CANCELLED", true)
        });
        assert_eq!(world.cloud.job_status("a", "1").unwrap(), "CANCELLED");
    }
}
