//! A cancel, a stop and a down that the server does not live to see.

use std::fs;

use serde_json::{Value, json};

use super::world::{World, how, warnings};
use crate::support::client::Server;
use crate::support::{executable, wait_until};

/// Job 1 of cluster `dev` is our job `a`, and runs.
fn running() -> World {
    let (world, mut server) = World::with_server();
    let more = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev" });
    server.submit("job.yaml", more);
    wait_until("the job runs", || {
        how(&server.poll("a")) == ("RUNNING", "RUNNING", false)
    });
    world
}

fn agreed() -> Value {
    json!({ "cloud": "aws", "cluster_name": "dev", "confirm": true, "user_confirmation": "DOWN" })
}

/// Asks for a change, and ends the server while `sky` works on it.
fn ask_and_end(world: &World, tool: &str, arguments: Value, end: fn(Server)) {
    let verb = tool.split('_').next().unwrap();
    world.cloud.set(&format!("sky-{verb}.gate"), "");
    let mut server = world.server();
    server.send(tool, arguments);
    wait_until("sky works on it", || {
        world.cloud.calls_of(&["sky", verb]).len() == 1
    });
    end(server);
}

fn leave(mut server: Server) {
    server.close_stdin();
    server.wait_exit();
}

#[test]
fn down_outlives_the_server() {
    for end in [Server::kill_9, leave] {
        let world = running();
        ask_and_end(&world, "down_cluster", agreed(), end);
        let mut server = world.server();
        let (_, list) = server.list("all");
        assert!(
            warnings(&list).contains("the down of cluster dev"),
            "{}",
            warnings(&list)
        );
        assert!(warnings(&list).contains("is under way"));
        world.cloud.set("sky-down.open", "");
        wait_until("the cluster is gone", || {
            world.cloud.read("clusters/dev/status").is_none()
        });
        wait_until("nothing is left of it", || {
            !warnings(&server.list("all").1).contains("the down of")
        });
        assert_eq!(world.cloud.calls_of(&["sky", "down"]).len(), 1);
        wait_until("its folder is removed", || {
            server.list("all");
            let left = fs::read_dir(world.home.data().join("changes")).unwrap();
            left.count() == 0
        });
    }
}

#[test]
fn down_that_failed_unwatched_is_listed() {
    let world = running();
    // It says that it is done, and is not.
    world.cloud.set("sky-down.replay", "sky/down");
    ask_and_end(&world, "down_cluster", agreed(), Server::kill_9);
    world.cloud.set("sky-down.open", "");
    let mut server = world.server();
    wait_until("the failure is listed", || {
        warnings(&server.list("all").1)
            .contains("may not have been carried out: `sky down` ended and cluster dev is UP")
    });
}

#[test]
fn same_change_is_not_run_twice() {
    let world = running();
    ask_and_end(&world, "down_cluster", agreed(), Server::kill_9);
    let mut server = world.server();
    let again = server.send("down_cluster", agreed());
    // It has joined the first once a longer call that came after it is answered; the first shares its look at the clusters.
    for _ in 0..3 {
        server.list("all");
    }
    world.cloud.set("sky-down.open", "");
    server.answer("down_cluster", again).ok();
    assert_eq!(world.cloud.calls_of(&["sky", "down"]).len(), 1);
}

#[test]
fn cancel_outlives_the_server() {
    for end in [Server::kill_9, leave] {
        let world = running();
        ask_and_end(&world, "cancel_job", json!({ "job_id": "a" }), end);
        world.cloud.set("sky-cancel.open", "");
        wait_until("the job is cancelled", || {
            world.cloud.job_status("dev", "1").as_deref() == Some("CANCELLED")
        });
        let mut server = world.server();
        assert_eq!(how(&server.poll("a")), ("CANCELLED", "CANCELLED", true));
        let kept = world.home.job_dir("a").join("cancel-requested");
        wait_until("the cancel is done with", || {
            server.poll("a");
            !kept.exists()
        });
    }
}

/// `sky` and its supervisor are killed with the server: the next look cancels the job.
#[test]
fn cancel_that_died_is_repeated() {
    let world = running();
    ask_and_end(
        &world,
        "cancel_job",
        json!({ "job_id": "a" }),
        Server::kill_9,
    );
    let sky = world.cloud.calls_of(&["sky", "cancel"]).remove(0).pid;
    for folder in fs::read_dir(world.home.data().join("changes")).unwrap() {
        let pid = fs::read_to_string(folder.unwrap().path().join("supervisor.pid")).unwrap();
        crate::support::kill_9(pid.trim().parse().unwrap());
    }
    crate::support::kill_9(sky);
    world.cloud.unset("sky-cancel.gate");
    let mut server = world.server();
    wait_until("the job is cancelled", || {
        server.poll("a");
        world.cloud.job_status("dev", "1").as_deref() == Some("CANCELLED")
    });
}

/// `sky down` says that it is done and did nothing, and the row of the cluster cannot be read.
#[test]
fn unreadable_cluster_is_not_called_deleted() {
    let world = running();
    world.cloud.set("sky-down.replay", "sky/down");
    let sky = world.cloud.bin().join("sky");
    let real = world.cloud.bin().join("real-sky");
    fs::rename(&sky, &real).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $1 in status) echo '[{{\"name\": true}}]'; exit 0 ;; esac\nexec {} \"$@\"\n",
        real.display()
    );
    executable(&sky, &script);
    let answer = world.server().call("down_cluster", agreed());
    assert!(!answer.refused().contains("deleted"), "{answer}");
}
