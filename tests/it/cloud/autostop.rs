//! The end of an idle cluster: who sets it, and that it is set whoever dies meanwhile.

use serde_json::json;

use super::world::{World, how, text};
use crate::support::{kill_9, wait_until};

/// The arguments of the runs of `sky autostop`.
fn set(world: &World) -> Vec<String> {
    let calls = world.cloud.calls_of(&["sky", "autostop"]);
    let arguments = calls.iter().map(|call| call.args[1..].join(" "));
    arguments.collect()
}

#[test]
fn autostop_is_set_where_oumi_does_not() {
    for (asked, there, expected) in [
        (json!({ "cloud": "lambda" }), false, "c -y -i 60 --down"),
        (json!({ "cloud": "aws" }), false, ""),
        (
            json!({ "cloud": "aws", "use_spot": true }),
            false,
            "c -y -i 60 --down",
        ),
        (
            json!({ "cloud": "aws", "autostop_minutes": 5 }),
            false,
            "c -y -i 5",
        ),
        (
            json!({ "cloud": "aws", "autostop_minutes": 0 }),
            false,
            "c -y --cancel",
        ),
        (json!({ "cloud": "lambda" }), true, ""),
        (
            json!({ "cloud": "runpod", "autostop_minutes": 5 }),
            true,
            "c -y -i 5 --down",
        ),
    ] {
        let world = World::new();
        if there {
            world.cloud.add_cluster("c", "Lambda", "UP");
        }
        let mut server = world.server();
        let mut more = asked.clone();
        more["cluster_name"] = "c".into();
        more["job_name"] = "a".into();
        server.submit("job.yaml", more);
        let epilogue = world.home.job_dir("a").join("epilogue.json");
        wait_until("the autostop is set", || !epilogue.exists());
        assert_eq!(set(&world).join("; "), expected, "{asked}");
    }
}

#[test]
fn autostop_is_set_though_its_server_and_supervisor_die() {
    for kills_supervisor in [false, true] {
        let world = World::new();
        world.cloud.set("sky-autostop.gate", "");
        let mut server = world.server();
        server.submit("job.yaml", json!({ "cloud": "lambda", "job_name": "a" }));
        wait_until("the autostop begins", || set(&world).len() == 1);
        server.kill_9();
        if kills_supervisor {
            kill_9(world.home.supervisor("a"));
            kill_9(world.cloud.calls_of(&["sky", "autostop"])[0].pid);
        }
        let mut server = world.server();
        assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
        world.cloud.set("sky-autostop.open", "");
        let epilogue = world.home.job_dir("a").join("epilogue.json");
        wait_until("the autostop is set", || !epilogue.exists());
        assert_eq!(set(&world).len(), 1 + usize::from(kills_supervisor));
        assert_eq!(
            world.cloud.read("clusters/a/autostop").as_deref(),
            Some("60")
        );
        assert_eq!(world.launches(), 1);
    }
}

#[test]
fn autostop_that_fails_is_tried_again() {
    let world = World::new();
    world.cloud.set("sky-autostop.replay", "sky/logs-nocluster");
    world.cloud.set("sky-autostop.times", "1");
    let mut server = world.server();
    // A launch that fails may have made its cluster.
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let arguments = server.launch("job.yaml", json!({ "cloud": "lambda", "job_name": "a" }));
    server.call("run_job", arguments);
    let epilogue = world.home.job_dir("a").join("epilogue.json");
    wait_until("the autostop is set", || !epilogue.exists());
    assert_eq!(set(&world).len(), 2);
    assert_eq!(how(&server.poll("a")), ("failed", "FAILED", true));
}

#[test]
fn plan_says_when_its_cluster_ends() {
    let world = World::new();
    let mut server = world.server();
    for (asked, expected) in [
        (json!({ "cloud": "aws" }), "stops itself after 60 minutes"),
        (
            json!({ "cloud": "lambda" }),
            "deletes itself after 60 minutes",
        ),
        (
            json!({ "cloud": "aws", "autostop_minutes": 0 }),
            "stays up until someone ends it",
        ),
        (
            json!({ "cloud": "sky-slurm" }),
            "stays up until someone ends it, whatever",
        ),
        (
            json!({ "cloud": "aws", "cluster_name": "c" }),
            "keeps its own setting",
        ),
    ] {
        let mut dry_run = server.launch("job.yaml", asked.clone());
        dry_run["dry_run"] = true.into();
        let plan = server.call("run_job", dry_run.clone()).ok();
        let message = text(&plan, "message");
        assert!(message.contains(expected), "{asked}: {message}");
        let mut other = server.launch("job.yaml", asked);
        other["autostop_minutes"] = 7.into();
        other["plan_id"] = plan["plan_id"].clone();
        let refused = server.call("run_job", other);
        assert!(
            refused.refused().contains("autostop"),
            "{}",
            refused.refused()
        );
    }
    assert_eq!(world.launches(), 0);
}
