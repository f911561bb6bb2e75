//! The end of an idle cluster: who sets it, and that it is set whoever dies meanwhile.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::world::{World, how, text};
use crate::support::client::Server;
use crate::support::{kill_9, wait_until};

/// The arguments of the runs of `sky autostop`.
fn set(world: &World) -> Vec<String> {
    let calls = world.cloud.calls_of(&["sky", "autostop"]);
    calls.iter().map(|call| call.args[1..].join(" ")).collect()
}

/// Waits until nothing is left to be done about the autostop of job `a`.
fn wait_until_done(world: &World) {
    let epilogue = world.home.job_dir("a").join("epilogue.json");
    wait_until("nothing is left to be done", || !epilogue.exists());
}

/// The arguments of a launch of job `a` onto cluster `c`.
fn launch(server: &Server, cloud: &str, minutes: Option<u32>, spot: bool) -> Value {
    let names = json!({ "cloud": cloud, "job_name": "a", "cluster_name": "c", "use_spot": spot });
    let mut launch = server.launch("job.yaml", names);
    launch["autostop_minutes"] = minutes.into();
    launch
}

/// The world after job `a` was launched and, while its autostop was being set, its server was killed, and its supervisor too.
fn killed_while_setting(kills_supervisor: bool) -> World {
    let world = World::new();
    world.cloud.set("sky-autostop.gate", "");
    let mut server = world.server();
    let launch = launch(&server, "lambda", None, false);
    server.call("run_job", launch).ok();
    wait_until("the autostop begins", || set(&world).len() == 1);
    server.kill_9();
    if kills_supervisor {
        kill_9(world.home.supervisor("a"));
        kill_9(world.cloud.calls_of(&["sky", "autostop"])[0].pid);
    }
    world
}

#[test]
fn autostop_is_set_where_oumi_does_not() {
    for (cloud, minutes, spot, there, expected) in [
        ("lambda", None, false, false, "c -y -i 60 --down"),
        ("aws", None, false, false, ""),
        ("aws", None, true, false, "c -y -i 60 --down"),
        ("nebius", None, true, false, ""),
        ("aws", Some(5), false, false, "c -y -i 5"),
        ("aws", Some(0), false, false, "c -y --cancel"),
        ("lambda", None, false, true, ""),
        ("lambda", Some(5), false, true, "c -y -i 5 --down"),
    ] {
        let world = World::new();
        if there {
            world.cloud.add_cluster("c", "Lambda", "UP");
        }
        let mut server = world.server();
        let launch = launch(&server, cloud, minutes, spot);
        server.call("run_job", launch).ok();
        wait_until_done(&world);
        assert_eq!(set(&world).join("; "), expected, "{cloud} {minutes:?}");
        let stays = server.poll("a")["warnings"]
            .to_string()
            .contains("stays up");
        assert_eq!(
            stays,
            minutes == Some(0) || expected.is_empty() && there,
            "{cloud}"
        );
    }
}

#[test]
fn autostop_is_set_though_its_server_and_supervisor_die() {
    for kills_supervisor in [false, true] {
        let world = killed_while_setting(kills_supervisor);
        let mut server = world.server();
        assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
        world.cloud.set("sky-autostop.open", "");
        wait_until_done(&world);
        assert_eq!(set(&world).len(), 1 + usize::from(kills_supervisor));
        let minutes = world.cloud.read("clusters/c/autostop");
        assert_eq!((minutes.as_deref(), world.launches()), (Some("60"), 1));
    }
}

#[test]
fn autostop_is_not_set_on_another_cluster_of_the_name() {
    let world = killed_while_setting(true);
    world.cloud.lose_cluster("c");
    world.cloud.add_cluster("c", "Lambda", "UP");
    world.add_job_now("c", "1", "theirs");
    world.cloud.set("sky-autostop.open", "");
    let mut server = world.server();
    server.poll("a");
    server.list("all");
    wait_until_done(&world);
    assert_eq!(set(&world).len(), 1);
    assert_eq!(world.cloud.read("clusters/c/autostop"), None);
}

#[test]
fn autostop_of_a_failed_launch_is_set_on_its_own_cluster_alone() {
    for is_own in [true, false] {
        let world = World::new();
        world
            .cloud
            .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
        world.cloud.set("sky-autostop.gate", "");
        let mut server = world.server();
        let launch = launch(&server, "lambda", None, false);
        server.call("run_job", launch);
        wait_until("the autostop begins", || set(&world).len() == 1);
        server.kill_9();
        kill_9(world.home.supervisor("a"));
        kill_9(world.cloud.calls_of(&["sky", "autostop"])[0].pid);
        let then = DateTime::<Utc>::from(world.age("a", 100)).timestamp();
        world.cloud.add_cluster("c", "Lambda", "UP");
        if is_own {
            world
                .cloud
                .write("clusters/c/launched_at", &then.to_string());
            // Somebody else's, of the same config.
            world.add_job_now("c", "4", "a");
        }
        world.cloud.set("sky-autostop.open", "");
        let mut server = world.server();
        server.poll("a");
        wait_until_done(&world);
        assert_eq!(set(&world).len(), 1 + usize::from(is_own));
        let minutes = world.cloud.read("clusters/c/autostop");
        assert_eq!(minutes.as_deref(), is_own.then_some("60"));
        server.list("all");
        assert_eq!(how(&server.poll("a")), ("failed", "FAILED", true));
    }
}

#[test]
fn autostop_of_a_failed_launch_is_tried_again() {
    // `sky` may exit 0 though it set none.
    for failure in ["sky/logs-nocluster", "sky/stop-unsupported"] {
        let world = World::new();
        let failing = ("oumi-up.replay", "oumi-slurm/up-no-cluster");
        let once = ("sky-autostop.times", "1");
        for (knob, says) in [failing, once, ("sky-autostop.replay", failure)] {
            world.cloud.set(knob, says);
        }
        let mut server = world.server();
        let launch = launch(&server, "lambda", None, false);
        server.call("run_job", launch);
        wait_until_done(&world);
        assert_eq!(set(&world).len(), 2, "{failure}");
        assert_eq!(how(&server.poll("a")), ("failed", "FAILED", true));
    }
}

/// A cluster whose name was made here is new.
#[test]
fn autostop_of_a_new_cluster_needs_no_list_of_clusters() {
    let world = World::new();
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    world.cloud.set("sky-status.garbage", "text");
    let mut server = world.server();
    server.run("job.yaml", json!({ "cloud": "lambda", "job_name": "a" }));
    wait_until("it is set", || set(&world).len() == 1);
}

#[test]
fn autostop_is_set_on_a_cluster_that_was_made_anew_alone() {
    for (ends_early, is_lost) in [(false, true), (false, false), (true, false)] {
        let world = World::new();
        world.cloud.add_cluster("c", "Lambda", "UP");
        world.cloud.set("oumi-up.gate", "");
        if ends_early {
            // It exits with 0, and has launched nothing.
            world.cloud.set("oumi-up.replay", "oumi/launch-which");
        }
        let mut server = world.server();
        let launch = launch(&server, "lambda", None, false);
        server.send("run_job", launch);
        wait_until("the launch has begun", || world.launches() == 1);
        if is_lost {
            world.cloud.lose_cluster("c");
        }
        world.cloud.set("oumi-up.open", "");
        if ends_early {
            let exit = world.home.job_dir("a").join("exit.json");
            wait_until("the launch has ended", || exit.exists());
            world.age("a", 3600);
        }
        wait_until_done(&world);
        assert_eq!(set(&world).len(), usize::from(is_lost));
    }
}

/// SkyPilot goes on with a launch whose client was killed: its cluster is up later than the first try.
#[test]
fn autostop_of_a_killed_launch_is_set_when_its_cluster_is_up() {
    let world = World::new();
    world.cloud.set("oumi-up.crash", "before-job");
    let mut server = world.server();
    let launch = launch(&server, "lambda", None, false);
    server.send("run_job", launch);
    wait_until("it was tried", || set(&world).len() == 1);
    world.cloud.set_cluster("c", "UP");
    world.add_job_now("c", "1", "a");
    wait_until_done(&world);
    assert_eq!(set(&world).len(), 2);
}

#[test]
fn plan_says_when_its_cluster_ends() {
    let (world, mut server) = World::with_server();
    for (cloud, minutes, expected) in [
        ("aws", None, "stops itself after 60 minutes"),
        ("lambda", None, "keeps its own setting"),
        ("lambda", Some(9), "deletes itself after 9 minutes"),
        ("aws", Some(0), "stays up until someone ends it"),
        ("sky-slurm", None, "up until someone ends it, whatever"),
    ] {
        let mut plan = launch(&server, cloud, minutes, false);
        plan["dry_run"] = true.into();
        let plan = server.call("run_job", plan).ok();
        let message = text(&plan, "message");
        assert!(message.contains(expected), "{cloud}: {message}");
        let mut other = launch(&server, cloud, Some(7), false);
        other["plan_id"] = plan["plan_id"].clone();
        let refused = server.call("run_job", other);
        assert!(refused.refused().contains("autostop"));
    }
    assert_eq!(world.launches(), 0);
}
