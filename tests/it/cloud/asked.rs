//! Which clouds are asked, and how often.

use serde_json::json;

use super::world::{SLURM, World, how, how_to_get, text, warnings};
use crate::support::wait_until;

#[test]
fn without_sky_local_jobs_work_silently() {
    let world = World::new();
    let mut server = world.server_without(&["sky"]);
    let job_id = server.submit("job.yaml", json!({}));
    assert_eq!(server.wait_done(&job_id)["status"], "completed");
    assert_eq!(server.log(&job_id), "hi");
    let (ids, list) = server.list("all");
    assert_eq!(ids, [job_id]);
    assert_eq!(warnings(&list), "");
    assert_eq!(world.cloud.calls(), []);
}

#[test]
fn without_sky_cloud_calls_say_how_to_install() {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1")]);
    let mut server = world.server_without(&["sky"]);
    let here = server.submit("job.yaml", json!({}));
    server.wait_done(&here);
    let install = how_to_get("sky");
    let (ids, list) = server.list("all");
    assert_eq!(ids, [here], "the rest is given");
    assert!(
        warnings(&list).contains("not asked about: a") && warnings(&list).contains(install),
        "{list}"
    );
    let agreed = json!({ "cloud": "aws", "cluster_name": "dev", "confirm": true, "user_confirmation": "DOWN" });
    for (tool, arguments) in [
        ("poll_status", json!({ "job_id": "a" })),
        ("get_job_logs", json!({ "job_id": "a" })),
        ("cancel_job", json!({ "job_id": "a" })),
        (
            "poll_status",
            json!({ "oumi_job_id": "1", "cloud": "gcp", "cluster_name": "x" }),
        ),
        (
            "stop_cluster",
            json!({ "cloud": "aws", "cluster_name": "dev" }),
        ),
        ("down_cluster", agreed),
    ] {
        let answer = server.call(tool, arguments);
        assert!(
            answer.refused().contains(install),
            "{tool}: {}",
            answer.refused()
        );
    }
}

#[test]
fn without_oumi_skypilot_jobs_answer() {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1"), ("b", "slurm", SLURM, "1")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "1", "a", "RUNNING");
    let mut server = world.server_without(&["oumi"]);
    assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
    let answer = server.call("poll_status", json!({ "job_id": "b" }));
    let next = text(&answer, "next");
    assert!(next.contains(how_to_get("oumi")), "{next}");
    let (ids, list) = server.list("all");
    assert_eq!(ids, ["a"]);
    assert!(warnings(&list).contains("not asked about: b"), "{list}");
}

#[test]
fn empty_registry_asks_only_skypilot() {
    let (world, mut server) = World::with_server();
    let (ids, list) = server.list("all");
    assert_eq!((ids.len(), warnings(&list)), (0, String::new()));
    assert_eq!(world.cloud.calls_of(&["oumi"]).len(), 0);
    assert_eq!(world.cloud.calls_of(&["sky"]).len(), 2);
}

#[test]
fn list_is_one_sky_call_beside_the_others() {
    let world = World::new();
    let mut jobs = vec![("s", "slurm", SLURM, "1"), ("t", "slurm", "you@other", "1")];
    jobs.extend(["u", "v"].map(|id| (id, "slurm", "me@down", "1")));
    let down = "oumi-status@me@down.replay";
    world.cloud.set(down, "oumi-slurm/up-unreachable");
    let names: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
    for name in &names {
        world.cloud.add_cluster(name, "AWS", "UP");
        world.cloud.add_job(name, "1", name, "RUNNING");
        jobs.push((name, "aws", name, "1"));
    }
    world.know(&jobs);
    for host in [SLURM, "you@other"] {
        world.cloud.add_job(host, "1", "x", "RUNNING");
    }
    for program in ["sky-queue", "sky-status", "oumi-status"] {
        world.cloud.set(&format!("{program}.gate"), "");
    }
    let mut server = world.server();
    let list = server.send("list_jobs", json!({}));
    // None waits for another.
    wait_until("all are asked", || world.cloud.calls().len() == 4);
    for program in ["sky-queue", "sky-status", "oumi-status"] {
        world.cloud.set(&format!("{program}.open"), "");
    }
    let list = server.answer("list_jobs", list).ok();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 14, "{list}");
    // A host that is down costs its own rows.
    let silent =
        "job u, v: the queue of cluster me@down could not be read: `oumi launch status` failed: ";
    assert!(warnings(&list).starts_with(silent), "{}", warnings(&list));
    assert_eq!(world.cloud.calls().len(), 5);
    assert_eq!(
        world.cloud.calls_of(&["sky", "queue"])[0].args,
        ["queue", "-o", "json"]
    );
    assert_eq!(
        world.cloud.calls_of(&["sky", "status"])[0].args,
        ["status", "-o", "json"]
    );
    for oumi in world.cloud.calls_of(&["oumi"]) {
        // Without a cloud Oumi asks all of them.
        let named = ["launch", "status", "--cloud", "slurm", "--cluster"];
        assert_eq!(oumi.args[..5], named);
        assert_eq!(oumi.args[5], oumi.connections);
    }
}

#[test]
fn local_poll_asks_no_cloud() {
    let (world, mut server) = World::with_server();
    let job_id = server.submit("job.yaml", json!({}));
    server.wait_done(&job_id);
    server.log(&job_id);
    server.cancel(&job_id, false).refused();
    assert_eq!(world.cloud.calls(), []);
}
