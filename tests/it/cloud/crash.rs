//! The server is killed in the middle of a launch. The next one completes the record, honours a cancel that was asked for,
//! and never launches again.

use std::fs;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use serde_json::{Value, json};

use super::world::{SLURM, World, how, text};
use crate::support::client::Server;
use crate::support::{kill_9, pid, wait_until};

/// When the server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeAnythingWasPrinted,
    InTheMiddle,
    AfterJobSubmitted,
}

const MOMENTS: [Moment; 3] = [
    Moment::BeforeAnythingWasPrinted,
    Moment::InTheMiddle,
    Moment::AfterJobSubmitted,
];

impl Moment {
    /// Begins the launch of job `a` on cluster `a`, and waits until it stands at this moment.
    fn reach(self, world: &World) -> Server {
        let (knob, says) = match self {
            Self::BeforeAnythingWasPrinted => ("oumi-up.gate", ""),
            Self::InTheMiddle => ("oumi-up.block", ""),
            Self::AfterJobSubmitted => ("oumi-up.block", "after-job"),
        };
        world.cloud.set(knob, says);
        let mut server = world.server();
        let asked = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "a" });
        server.send_run("job.yaml", asked);
        if self == Self::BeforeAnythingWasPrinted {
            wait_until("the launch has begun", || world.launches() == 1);
        } else {
            world.cloud.wait_for("blocked-oumi-up");
        }
        server
    }

    /// Lets the launch go on from there.
    fn go_on(self, world: &World) {
        match self {
            Self::BeforeAnythingWasPrinted => world.cloud.set("oumi-up.open", ""),
            _ => world.cloud.set("oumi-up.go", ""),
        }
    }
}

/// Job 1 of the cluster `a` runs, is recorded, and was launched once.
fn runs_and_is_known(world: &World, server: &mut Server) {
    wait_until("the record is completed", || {
        how(&server.poll("a")) == ("RUNNING", "RUNNING", false)
    });
    assert_eq!(world.the_record()["oumi_job_id"], "1");
    assert_eq!(server.list("all").0, ["a"]);
    assert_eq!(world.launches(), 1);
    assert!(!world.staged_path("a").exists());
}

fn kill_the_launch(world: &World) {
    kill_9(world.home.supervisor("a"));
    kill_9(world.the_launch().pid);
}

/// Asks for a cancel and waits until it is written down.
fn ask_to_cancel(world: &World, server: &mut Server) {
    server.send("cancel_job", json!({ "job_id": "a" }));
    let kept = world.home.job_dir("a").join("cancel-requested");
    wait_until("the cancel is kept", || kept.exists());
}

fn is_cancelled(world: &World, server: &mut Server) {
    wait_until("the job is cancelled", || {
        world.cloud.job_status("a", "1").as_deref() == Some("CANCELLED")
    });
    wait_until("the cancel is seen", || {
        how(&server.poll("a")) == ("CANCELLED", "CANCELLED", true)
    });
    assert_eq!(world.launches(), 1);
    let kept = world.home.job_dir("a").join("cancel-requested");
    wait_until("the cancel is done with", || !kept.exists());
    assert_eq!(world.cloud.calls_of(&["sky", "cancel"]).len(), 1);
}

#[test]
fn launch_continues_under_the_next_server() {
    for moment in MOMENTS {
        let world = World::new();
        moment.reach(&world).kill_9();
        let mut server = world.server();
        assert_eq!(
            how(&server.poll("a")),
            ("launching", "PENDING", false),
            "{moment:?}"
        );
        assert_eq!(server.list("running").0, ["a"]);
        moment.go_on(&world);
        runs_and_is_known(&world, &mut server);
    }
}

#[test]
fn launch_that_ended_unwatched_is_completed() {
    for moment in MOMENTS {
        let world = World::new();
        moment.reach(&world).kill_9();
        moment.go_on(&world);
        let exit = world.home.job_dir("a").join("exit.json");
        wait_until("the launch has ended", || exit.exists());
        assert_eq!(world.the_record()["oumi_job_id"], "");
        let mut server = world.server();
        runs_and_is_known(&world, &mut server);
    }
}

#[test]
fn kill_right_after_launch_keeps_the_job() {
    for after_the_answer in [false, true] {
        let (world, mut server) = World::with_server();
        let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
        if after_the_answer {
            server.answer("run_job", run).ok();
        } else {
            wait_until("the launch says the id", || {
                let log = fs::read_to_string(world.home.log("a")).unwrap_or_default();
                log.contains("Job 1 queued")
            });
        }
        server.kill_9();
        runs_and_is_known(&world, &mut world.server());
    }
}

#[test]
fn launch_that_failed_unwatched_is_failed() {
    let world = World::new();
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let moment = Moment::BeforeAnythingWasPrinted;
    moment.reach(&world).kill_9();
    moment.go_on(&world);
    let exit = world.home.job_dir("a").join("exit.json");
    wait_until("the launch has ended", || exit.exists());
    let mut server = world.server();
    let status = server.poll("a");
    assert_eq!(how(&status), ("failed", "FAILED", true));
    assert!(text(&status, "message").contains("A cluster name must be provided"));
    assert_eq!(world.launches(), 1);
}

#[test]
fn killed_supervisor_launch_is_completed() {
    for moment in MOMENTS {
        let world = World::new();
        moment.reach(&world).kill_9();
        kill_9(world.home.supervisor("a"));
        let mut server = world.server();
        // SkyPilot has said who the job is; without a supervisor nobody sees the end of the launch any more.
        if moment != Moment::AfterJobSubmitted {
            assert_eq!(
                how(&server.poll("a")),
                ("launching", "PENDING", false),
                "{moment:?}"
            );
        }
        moment.go_on(&world);
        runs_and_is_known(&world, &mut server);
    }
}

#[test]
fn printed_id_completes_a_killed_launch() {
    for with_supervisor in [false, true] {
        let world = World::new();
        Moment::AfterJobSubmitted.reach(&world).kill_9();
        if with_supervisor {
            kill_9(world.home.supervisor("a"));
        }
        kill_9(world.the_launch().pid);
        runs_and_is_known(&world, &mut world.server());
    }
}

#[test]
fn killed_launch_is_found_by_name() {
    for moment in [Moment::BeforeAnythingWasPrinted, Moment::InTheMiddle] {
        let world = World::new();
        moment.reach(&world).kill_9();
        kill_the_launch(&world);
        // SkyPilot's own server went on with it.
        world.cloud.add_cluster("a", "AWS", "UP");
        world.add_job_now("a", "1", "a");
        runs_and_is_known(&world, &mut world.server());
    }
}

#[test]
fn killed_launch_is_found_when_its_job_appears() {
    let world = World::new();
    Moment::InTheMiddle.reach(&world).kill_9();
    kill_the_launch(&world);
    let mut server = world.server();
    // The cluster is being set up, and nobody can know yet what comes of it.
    let asked = world.cloud.calls_of(&["sky", "queue"]).len();
    wait_until("the cluster was asked", || {
        world.cloud.calls_of(&["sky", "queue"]).len() > asked
    });
    let status = server.poll("a");
    assert_eq!(how(&status), ("launching", "PENDING", false));
    assert!(text(&status, "message").contains("cut off"), "{status}");
    world.cloud.set_cluster("a", "UP");
    world.add_job_now("a", "1", "a");
    runs_and_is_known(&world, &mut server);
}

#[test]
fn killed_launch_without_job_fails_in_the_end() {
    for cluster in [None, Some("UP")] {
        let world = World::new();
        Moment::BeforeAnythingWasPrinted.reach(&world).kill_9();
        kill_the_launch(&world);
        if let Some(status) = cluster {
            world.cloud.add_cluster("a", "AWS", status);
        }
        world.age("a", 3600);
        world.cloud.set("sky-queue.gate", "");
        let mut server = world.server();
        // What the killed launcher had started ends too.
        wait_until("nothing of the launch is left", || {
            how(&server.poll("a")) == ("lost", "UNKNOWN", false)
        });
        world.cloud.set("sky-queue.open", "");
        let status = server.wait_done("a");
        assert_eq!(how(&status), ("failed", "FAILED", true));
        let ended = "its launch ended before the job was on its cluster";
        assert!(text(&status, "message").contains(ended), "{status}");
        // It is settled: nobody need be asked again.
        server.kill_9();
        let asked = world.cloud.calls_of(&["sky", "queue"]).len();
        let mut server = world.server();
        assert_eq!(how(&server.poll("a")), ("failed", "FAILED", true));
        assert_eq!(world.cloud.calls_of(&["sky", "queue"]).len(), asked);
        assert_eq!(world.launches(), 1);
    }
}

#[test]
fn older_job_of_the_same_name_is_not_ours() {
    let world = World::new();
    world.cloud.add_cluster("a", "AWS", "UP");
    // The same config was run on this cluster yesterday.
    world.add_job("a", "1", "a", -24 * 3600);
    Moment::InTheMiddle.reach(&world).kill_9();
    kill_the_launch(&world);
    let mut server = world.server();
    ask_to_cancel(&world, &mut server);
    wait_until("the cluster was asked", || {
        !world.cloud.calls_of(&["sky", "queue"]).is_empty()
    });
    assert_eq!(world.cloud.job_status("a", "1").as_deref(), Some("RUNNING"));
    world.age("a", 3600);
    server.kill_9();
    let mut server = world.server();
    assert_eq!(how(&server.wait_done("a")), ("failed", "FAILED", true));
    assert_eq!(world.the_record()["oumi_job_id"], "");
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
}

#[test]
fn killed_launcher_under_a_live_server() {
    for (crash, cluster) in [("after-job", "a"), ("before-job", "b")] {
        let world = World::new();
        world.cloud.set("oumi-up.crash", crash);
        let mut server = world.server();
        let run = server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": cluster }));
        if crash == "before-job" {
            wait_until("the launcher was killed", || {
                world.home.job_dir("b").join("exit.json").exists()
            });
            world.cloud.set_cluster("b", "UP");
            world.add_job_now("b", "1", "b");
        }
        let answer = server.answer("run_job", run).ok();
        assert_eq!(
            (&answer["status"], &answer["oumi_job_id"]),
            (&json!("RUNNING"), &json!("1")),
            "{crash}"
        );
        assert_eq!(world.launches(), 1);
    }
}

#[test]
fn slurm_launch_continues() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let asked = json!({ "cloud": "slurm", "job_name": "a", "cluster_name": SLURM });
    server.send_run("job.yaml", asked);
    world.cloud.wait_for("blocked-oumi-up");
    server.kill_9();
    let mut server = world.server();
    assert_eq!(how(&server.poll("a")), ("launching", "PENDING", false));
    world.cloud.set("oumi-up.go", "");
    runs_and_is_known(&world, &mut server);
}

#[test]
fn killed_slurm_launch_is_listed() {
    let world = World::new();
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let asked = json!({ "cloud": "slurm", "job_name": "a", "cluster_name": SLURM });
    server.send_run("job.yaml", asked);
    world.cloud.wait_for("blocked-oumi-up");
    server.kill_9();
    kill_the_launch(&world);
    // It had been taken all the same.
    world.cloud.add_job(SLURM, "4711", "a", "RUNNING");
    let mut server = world.server();
    // What the killed launcher had started ends too.
    let status = server.wait_done("a");
    assert_eq!(how(&status), ("lost", "UNKNOWN", true));
    let message = text(&status, "message");
    assert!(message.contains("list_jobs"), "{message}");
    let (ids, list) = server.list("running");
    assert_eq!(ids, ["4711"], "{list}");
}

#[test]
fn cancel_before_the_crash_is_carried_out() {
    for moment in MOMENTS {
        let world = World::new();
        let mut server = moment.reach(&world);
        ask_to_cancel(&world, &mut server);
        server.kill_9();
        let mut server = world.server();
        let status = server.poll("a");
        assert_eq!(how(&status), ("launching", "PENDING", false), "{moment:?}");
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("a cancel is pending"), "{warnings}");
        moment.go_on(&world);
        is_cancelled(&world, &mut server);
    }
}

#[test]
fn cancel_before_the_crash_after_an_ended_launch() {
    for moment in MOMENTS {
        let world = World::new();
        let mut server = moment.reach(&world);
        ask_to_cancel(&world, &mut server);
        server.kill_9();
        moment.go_on(&world);
        let exit = world.home.job_dir("a").join("exit.json");
        wait_until("the launch has ended", || exit.exists());
        is_cancelled(&world, &mut world.server());
    }
}

#[test]
fn cancel_reaches_a_late_job() {
    let world = World::new();
    let mut server = Moment::InTheMiddle.reach(&world);
    ask_to_cancel(&world, &mut server);
    server.kill_9();
    kill_the_launch(&world);
    let mut server = world.server();
    let asked = world.cloud.calls_of(&["sky", "queue"]).len();
    wait_until("the cluster was asked", || {
        world.cloud.calls_of(&["sky", "queue"]).len() > asked
    });
    assert_eq!(how(&server.poll("a")), ("launching", "PENDING", false));
    world.cloud.set_cluster("a", "UP");
    world.add_job_now("a", "1", "a");
    is_cancelled(&world, &mut server);
}

#[test]
fn cancel_during_launch_is_carried_out() {
    let world = World::new();
    let mut server = Moment::InTheMiddle.reach(&world);
    let cancel = server.send("cancel_job", json!({ "job_id": "a" }));
    let kept = world.home.job_dir("a").join("cancel-requested");
    wait_until("the cancel is kept", || kept.exists());
    world.cloud.set("oumi-up.go", "");
    let answer = server.answer("cancel_job", cancel).ok();
    assert_eq!(how(&answer), ("cancelled", "CANCELLED", true));
    is_cancelled(&world, &mut server);
}

#[test]
fn two_servers_launch_once() {
    let world = World::new();
    let mut first = Moment::InTheMiddle.reach(&world);
    let mut second = world.server();
    assert_eq!(how(&second.poll("a")), ("launching", "PENDING", false));
    let arguments = second.launch("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
    assert!(second.call("run_job", arguments).refused().contains("a"));
    world.cloud.set("oumi-up.go", "");
    runs_and_is_known(&world, &mut second);
    runs_and_is_known(&world, &mut first);
}

#[test]
fn kill_at_any_instant() {
    for at in 0..8 {
        let (world, mut server) = World::with_server();
        server.send_run("job.yaml", json!({ "cloud": "aws", "job_name": "a" }));
        // Any instant will do; what is checked holds at each.
        std::thread::sleep(Duration::from_millis(at * 60));
        // As a client that ends a server does: whoever is in its process group dies.
        kill_process_group(pid(server.id()).unwrap(), Signal::KILL).unwrap();
        drop(server);
        let mut server = world.server();
        if server.list("all").0.is_empty() {
            assert_eq!(world.launches(), 0, "at {at}");
            continue;
        }
        let mut status = Value::Null;
        wait_until("it is known what became of the job", || {
            status = server.poll("a")["status"].clone();
            status == "RUNNING" || status == "failed" || status == "cancelled"
        });
        if status == "RUNNING" {
            assert_eq!(world.launches(), 1, "at {at}");
            assert_eq!(world.the_record()["oumi_job_id"], "1", "at {at}");
        } else {
            assert_eq!(world.launches(), 0, "at {at}: {status}");
        }
    }
}
