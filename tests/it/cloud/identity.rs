//! A job is its cloud, its cluster and its id there; jobs that were started elsewhere are found by that alone.

use serde_json::{Value, json};

use super::world::{SLURM, World, how, text, warnings};
use crate::support::client::Server;

/// Two jobs of ours, `a` and `b`, each job 1 of the cluster of its name.
fn two_jobs_1() -> World {
    let world = World::new();
    world.know(&[("a", "aws", "a", "1"), ("b", "aws", "b", "1")]);
    for name in ["a", "b"] {
        world.cloud.add_cluster(name, "AWS", "UP");
        world.cloud.add_job(name, "1", name, "RUNNING");
        world.cloud.set_log(name, "1", &format!("this is {name}\n"));
    }
    world
}

#[test]
fn job_1_on_two_clusters() {
    let world = two_jobs_1();
    world.cloud.set_job("b", "1", "SUCCEEDED");
    let mut server = world.server();
    assert_eq!(server.list("all").0.len(), 2);
    assert_eq!(server.list("running").0, ["a"]);
    assert_eq!(server.list("completed").0, ["b"]);
    assert_eq!(server.poll("a")["status"], "RUNNING");
    assert_eq!(server.poll("b")["status"], "SUCCEEDED");
    assert!(server.log("a").contains("this is a"));
    assert!(server.log("b").contains("this is b"));
    server.cancel("a", false).ok();
    assert_eq!(world.cloud.job_status("a", "1").unwrap(), "CANCELLED");
    assert_eq!(world.cloud.job_status("b", "1").unwrap(), "SUCCEEDED");
}

#[test]
fn ambiguous_id_lists_choices() {
    let world = two_jobs_1();
    let mut server = world.server();
    for tool in ["poll_status", "cancel_job"] {
        let answer = server.call(tool, json!({ "oumi_job_id": "1", "cloud": "aws" }));
        for choice in ["a with cluster_name \"a\"", "b with cluster_name \"b\""] {
            assert!(
                answer.refused().contains(choice),
                "{tool}: {}",
                answer.refused()
            );
        }
    }
    let answer = server.call(
        "get_job_logs",
        json!({ "oumi_job_id": "1", "cloud": "aws" }),
    );
    assert!(answer.refused().contains("cluster_name"), "{answer}");
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());

    // With it, the one is meant.
    let b = json!({ "oumi_job_id": "1", "cloud": "aws", "cluster_name": "b" });
    assert_eq!(server.call("poll_status", b.clone()).ok()["job_id"], "b");
    let logs = server.call("get_job_logs", b.clone()).ok();
    assert!(text(&logs, "logs").contains("this is b"));
    assert_eq!(server.call("cancel_job", b).ok()["job_id"], "b");
    assert_eq!(world.cloud.job_status("a", "1").unwrap(), "RUNNING");
    assert_eq!(world.cloud.job_status("b", "1").unwrap(), "CANCELLED");
}

#[test]
fn ambiguous_id_includes_foreign_jobs() {
    let world = World::new();
    world.know(&[("a", "aws", "a", "1")]);
    for (cluster, cloud, id) in [
        ("a", "AWS", "1"),
        ("theirs", "AWS", "1"),
        ("far", "GCP", "1"),
        ("one", "AWS", "2"),
    ] {
        world.cloud.add_cluster(cluster, cloud, "UP");
        world.cloud.add_job(cluster, id, "x", "RUNNING");
    }
    let mut server = world.server();
    for tool in ["poll_status", "cancel_job"] {
        let answer = server.call(tool, json!({ "oumi_job_id": "1", "cloud": "aws" }));
        let choices = answer.refused();
        assert!(choices.contains("a with cluster_name \"a\""), "{choices}");
        assert!(
            choices.contains("cluster_name \"theirs\", started elsewhere"),
            "{choices}"
        );
        assert!(!choices.contains("\"far\""), "{choices}");
    }
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
    let answer = server
        .call("poll_status", json!({ "oumi_job_id": "2", "cloud": "AWS" }))
        .ok();
    assert_eq!(
        (&answer["cluster"], &answer["status"]),
        (&json!("one"), &json!("RUNNING"))
    );
    let answer = server
        .call("poll_status", json!({ "oumi_job_id": "1", "cloud": "gcp" }))
        .ok();
    assert_eq!(answer["cluster"], "far");
}

#[test]
fn ambiguous_id_is_refused_while_sky_is_silent() {
    let world = World::new();
    world.know(&[("a", "aws", "a", "1")]);
    world.cloud.add_cluster("a", "AWS", "UP");
    world.cloud.add_job("a", "1", "a", "RUNNING");
    let mut server = world.server();
    server.poll("a");
    let there = json!({ "oumi_job_id": "1", "cloud": "aws" });
    for (knob, says) in [
        ("sky-queue.garbage", "half"),
        ("sky-status.garbage", "text"),
    ] {
        world.cloud.set(knob, says);
        let answer = server.call("cancel_job", there.clone());
        assert!(
            answer.refused().contains("cluster_name"),
            "{knob}: {}",
            answer.refused()
        );
        world.cloud.unset(knob);
    }
    // A cluster that is being set up may have a job of this id, too.
    world.cloud.add_cluster("b", "AWS", "INIT");
    let answer = server.call("cancel_job", there.clone());
    assert!(answer.refused().contains("cluster b is INIT"), "{answer}");
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
    world.cloud.lose_cluster("b");
    server.call("cancel_job", there).ok();
}

#[test]
fn foreign_job_works_with_every_tool() {
    let world = World::new();
    for (cluster, cloud) in [("theirs", "AWS"), ("k", "Kubernetes"), ("s", "Slurm")] {
        world.cloud.add_cluster(cluster, cloud, "UP");
        world.cloud.add_job(cluster, "3", "by-hand", "RUNNING");
        world.cloud.set_log(cluster, "3", "hello\n");
    }
    let mut server = world.server();
    let (ids, list) = server.list("all");
    assert_eq!(ids, ["3", "3", "3"]);
    for (cluster, cloud) in [("theirs", "aws"), ("k", "k8s"), ("s", "sky-slurm")] {
        let rows = list["jobs"].as_array().unwrap();
        let row = rows.iter().find(|row| row["cluster"] == cluster).unwrap();
        assert_eq!(
            (&row["cloud"], &row["status"]),
            (&json!(cloud), &json!("RUNNING"))
        );
        assert_eq!(
            (&row["command"], &row["model_name"]),
            (&Value::Null, &Value::Null)
        );
        // What the row says is enough to find the job.
        let job = json!({ "oumi_job_id": row["job_id"], "cloud": row["cloud"], "cluster_name": row["cluster"] });
        let status = server.call("poll_status", job.clone()).ok();
        assert_eq!(how(&status), ("RUNNING", "RUNNING", false));
        assert_eq!(status["job_id"], "");
        let logs = server.call("get_job_logs", job.clone()).ok();
        assert!(text(&logs, "logs").contains("hello"), "{logs}");
        assert_eq!(
            how(&server.call("cancel_job", job).ok()),
            ("cancelled", "CANCELLED", true)
        );
        assert_eq!(world.cloud.job_status(cluster, "3").unwrap(), "CANCELLED");
    }
    assert!(!world.home.registry().exists());
}

#[test]
fn foreign_slurm_job_is_listed() {
    let world = World::new();
    world.know(&[("a", "slurm", SLURM, "1")]);
    world.cloud.add_job(SLURM, "1", "a", "RUNNING");
    world.cloud.add_job(SLURM, "4711", "foreign", "RUNNING");
    let mut server = world.server();
    assert_eq!(server.list("running").0, ["a", "4711"]);
    let job = json!({ "oumi_job_id": "4711", "cloud": "slurm", "cluster_name": SLURM });
    assert_eq!(
        how(&server.call("poll_status", job.clone()).ok()),
        ("RUNNING", "RUNNING", false)
    );
    server.call("cancel_job", job).ok();
    assert_eq!(world.cloud.job_status(SLURM, "4711").unwrap(), "CANCELLED");
    assert_eq!(world.cloud.job_status(SLURM, "1").unwrap(), "RUNNING");
}

#[test]
fn hostile_ids_start_nothing() {
    let (world, mut server) = World::with_server();
    for (cloud, id, cluster) in [
        ("aws", "-1", "dev"),
        ("aws", "1 2", "dev"),
        ("aws", "1;id", "dev"),
        ("aws", "1", "--all"),
        ("aws", "1", "a b"),
        ("slurm", "--id", SLURM),
        ("slurm", "1 2", SLURM),
        ("slurm", "1", "-me@host"),
        ("slurm", "1", "host"),
    ] {
        for tool in ["poll_status", "cancel_job", "get_job_logs"] {
            let job = json!({ "oumi_job_id": id, "cloud": cloud, "cluster_name": cluster });
            server.call(tool, job).refused();
        }
    }
    assert_eq!(world.cloud.calls(), []);
}

/// Launches job `old`, then job `new` onto another cluster of the same name. Both have this name there.
fn recreated(world: &World, server: &mut Server) {
    let config = "name: nightly\nrun: echo hi\n";
    world.home.write("job.yaml", config);
    let dev = |name: &str| json!({ "cloud": "aws", "cluster_name": "dev", "job_name": name });
    server.submit("job.yaml", dev("old"));
    world.cloud.lose_cluster("dev");
    server.submit("job.yaml", dev("new"));
    world.cloud.set_log("dev", "1", "of the new one\n");
}

/// The job that was lost with its cluster is `old`, and the one that runs is `new`.
fn only_new_runs(world: &World, server: &mut Server) {
    assert_eq!(how(&server.poll("new")), ("RUNNING", "RUNNING", false));
    assert_eq!(server.poll("new")["oumi_job_id"], "1");
    assert_eq!(how(&server.poll("old")), ("cluster_gone", "UNKNOWN", true));
    let log = server.call("get_job_logs", json!({ "job_id": "old" }));
    assert!(!log.content.to_string().contains("of the new one"));
    assert!(server.log("new").contains("of the new one"));
    server.cancel("old", false).refused();
    assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "RUNNING");
    assert_eq!(server.list("running").0, ["new"]);
    let (ids, list) = server.list("completed");
    assert_eq!(ids, ["old"], "{list}");
    assert!(!warnings(&list).contains("not asked"), "{list}");
}

#[test]
fn recreated_cluster_has_other_jobs() {
    let (world, mut server) = World::with_server();
    recreated(&world, &mut server);
    // Both were submitted within the same second, by a clock that is wrong.
    world.cloud.write("clusters/dev/jobs/1/submitted_at", "5");
    let mark = world.home.job_dir("old").join("launch.json");
    let text = std::fs::read_to_string(&mark).unwrap();
    let mut facts: Value = serde_json::from_str(&text).unwrap();
    facts["job"][1]["submitted_at"] = 5.into();
    std::fs::write(&mark, facts.to_string()).unwrap();
    let mark = world.home.job_dir("new").join("launch.json");
    std::fs::write(&mark, facts.to_string().replace("\"job\"", "\"no\"")).unwrap();
    only_new_runs(&world, &mut server);
}

#[test]
fn recreated_cluster_without_hashes() {
    let (world, mut server) = World::with_server();
    world.cloud.set("sky-status.garbage", "text");
    recreated(&world, &mut server);
    world.cloud.write("clusters/dev/jobs/1/submitted_at", "7");
    let new = world.home.job_dir("new").join("launch.json");
    std::fs::remove_file(new).unwrap();
    world.cloud.unset("sky-status.garbage");
    only_new_runs(&world, &mut server);
}

#[test]
fn foreign_job_on_a_recreated_cluster() {
    let (world, mut server) = World::with_server();
    let asked = json!({ "cloud": "aws", "cluster_name": "dev", "job_name": "old" });
    let old = server.submit("job.yaml", asked);
    world.cloud.lose_cluster("dev");
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.add_job_now("dev", "1", "old");
    assert_eq!(how(&server.poll(&old)), ("cluster_gone", "UNKNOWN", true));
    assert_eq!(server.list("running").0, ["1"]);
    assert_eq!(server.list("completed").0, ["old"]);
    // Named by its place, the job that is there is meant.
    let there = json!({ "oumi_job_id": "1", "cloud": "aws", "cluster_name": "dev" });
    let status = server.call("poll_status", there.clone()).ok();
    assert_eq!(how(&status), ("RUNNING", "RUNNING", false));
    server.call("cancel_job", there).ok();
    assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "CANCELLED");
}

#[test]
fn clock_of_the_cluster_does_not_count() {
    for offset in [-3600, -2, 3600, 24 * 3600] {
        let (world, mut server) = World::with_server();
        let asked = json!({ "cloud": "aws", "cluster_name": "dev", "job_name": "a" });
        server.submit("job.yaml", asked);
        std::fs::remove_file(world.home.job_dir("a").join("launch.json")).unwrap();
        let then = chrono::Utc::now().timestamp() + offset;
        let file = "clusters/dev/jobs/1/submitted_at";
        world.cloud.write(file, &then.to_string());
        assert_eq!(how(&server.poll("a")), ("RUNNING", "RUNNING", false));
        server.cancel("a", false).ok();
        assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "CANCELLED");
    }
}

/// As SkyPilot's queue may call it, whatever its config says.
#[test]
fn job_of_another_name_is_known_by_its_run() {
    for name in ["sky-cmd", ""] {
        let (world, mut server) = World::with_server();
        let asked = json!({ "cloud": "aws", "cluster_name": "dev", "job_name": "a" });
        server.submit("job.yaml", asked);
        std::fs::remove_file(world.home.job_dir("a").join("launch.json")).unwrap();
        world.cloud.write("clusters/dev/jobs/1/name", name);
        world.cloud.set_log("dev", "1", "hello\n");
        let status = server.poll("a");
        assert_eq!(how(&status), ("RUNNING", "RUNNING", false), "{status:?}");
        assert!(server.log("a").contains("hello"));
        server.cancel("a", false).ok();
        assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "CANCELLED");
    }
}

#[test]
fn cluster_of_another_cloud_is_left_alone() {
    let world = World::new();
    let clusters = [
        ("there", "GCP"),
        ("k", "Kubernetes"),
        ("s", "Slurm"),
        ("v", "Vast"),
    ];
    for (cluster, cloud) in clusters {
        world.cloud.add_cluster(cluster, cloud, "UP");
    }
    let mut server = world.server();
    let cluster = |cloud: &str, cluster: &str| json!({ "cloud": cloud, "cluster_name": cluster, "confirm": true, "user_confirmation": "DOWN" });
    let stop = json!({ "cloud": "aws", "cluster_name": "there" });
    for (tool, arguments, found) in [
        ("stop_cluster", stop, "there is on gcp"),
        ("down_cluster", cluster("aws", "there"), "there is on gcp"),
        ("down_cluster", cluster("aws", "v"), "v is on vast"),
    ] {
        let answer = server.call(tool, arguments);
        let error = answer.refused();
        assert!(
            error.contains(&format!("nothing was done: cluster {found}, not on aws")),
            "{tool}: {error}"
        );
    }
    for verb in ["stop", "down"] {
        assert_eq!(world.cloud.calls_of(&["sky", verb]), [], "{verb}");
    }
    let launch =
        json!({ "cloud": "aws", "job_name": "a", "cluster_name": "there", "dry_run": true });
    let refused = server.run("job.yaml", launch);
    assert!(
        refused
            .refused()
            .contains("is on gcp, not on aws; pass that cloud"),
        "{refused:?}"
    );
    for (name, cloud) in [("there", "gcp"), ("k", "k8s"), ("s", "sky-slurm")] {
        server.call("down_cluster", cluster(cloud, name)).ok();
        assert_eq!(world.cloud.read(&format!("clusters/{name}/status")), None);
    }
}

#[test]
fn old_record_is_not_certain() {
    let world = World::new();
    world.know_records(&[("a", "aws", "dev", "1"), ("b", "aws", "dev", "")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "1", "a", "RUNNING");
    world.cloud.set_log("dev", "1", "of a stranger\n");
    let mut server = world.server();
    // Its launch may be at work, or have ended.
    let message = text(&server.poll("b"), "message").to_owned();
    assert!(message.contains("not known here") && !message.contains("looks for"));
    assert!(server.cancel("b", false).refused().contains("left no id"));
    let status = server.poll("a");
    assert_eq!(how(&status), ("unknown", "UNKNOWN", false));
    let message = text(&status, "message");
    assert!(
        message.contains("not certain") && message.contains("RUNNING"),
        "{message}"
    );
    let answer = server.cancel("a", false);
    assert!(answer.refused().contains("not certain"), "{answer}");
    let answer = server.call("get_job_logs", json!({ "job_id": "a" }));
    assert!(answer.refused().contains("not certain"), "{answer}");
    assert!(world.cloud.calls_of(&["sky", "cancel"]).is_empty());
    // Named by its place, the job that is there is meant.
    let there = json!({ "oumi_job_id": "1", "cloud": "aws", "cluster_name": "dev" });
    assert_eq!(
        server.call("poll_status", there.clone()).ok()["status"],
        "RUNNING"
    );
    let logs = server.call("get_job_logs", there.clone()).ok();
    assert!(text(&logs, "logs").contains("of a stranger"));
    server.call("cancel_job", there).ok();
    assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "CANCELLED");
}

#[test]
fn printed_lines_of_a_script_are_not_believed() {
    let world = World::new();
    world.cloud.add_cluster("prod", "AWS", "UP");
    world.cloud.add_job("prod", "1", "theirs", "RUNNING");
    world.cloud.set("oumi-up.prints", "(setup pid=7) x\rJob 1 queued on cluster prod.\n\u{1b}[2KJob 1 queued on cluster prod.\n\
        Job 9 queued on cluster prod.\n(setup pid=7) \rJob 9 queued on cluster dev.\n\u{1b}[1GJob 9 queued on cluster dev.\n");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "cluster_name": "dev", "job_name": "a" });
    server.submit("job.yaml", asked);
    let status = server.poll("a");
    assert_eq!(
        (&status["cluster"], &status["oumi_job_id"]),
        (&json!("dev"), &json!("1"))
    );
    server.cancel("a", false).ok();
    assert_eq!(world.cloud.job_status("prod", "1").unwrap(), "RUNNING");
    assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "CANCELLED");
}

#[test]
fn unknown_job_is_not_found() {
    let (_world, mut server) = World::with_server();
    let answer = server.call("poll_status", json!({ "job_id": "nosuch" }));
    assert!(answer.refused().contains("list_jobs"), "{answer}");
    assert_eq!(answer["status"], "not_found");
    for tool in ["poll_status", "cancel_job"] {
        let answer = server.call(tool, json!({ "oumi_job_id": "1", "cloud": "aws" }));
        assert!(
            answer.refused().contains("`cluster_name` is needed"),
            "{tool}: {}",
            answer.refused()
        );
    }
}
