//! A job is its cloud, its cluster and its id there; jobs that were started elsewhere are found by that alone.

use serde_json::{Value, json};

use super::world::{SLURM, World, how, text, warnings};

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
    assert!(
        answer.refused().contains("cluster_name"),
        "{}",
        answer.refused()
    );
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
        assert!(text(&logs, "logs").contains("hello"), "{:#}", logs.content);
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
    let world = World::new();
    let mut server = world.server();
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

#[test]
fn recreated_cluster_has_other_jobs() {
    let world = World::new();
    let mut server = world.server();
    let dev = |name: &str| json!({ "cloud": "aws", "cluster_name": "dev", "job_name": name });
    let old = server.submit("job.yaml", dev("old"));
    server.call(
        "down_cluster",
        json!({ "cloud": "aws", "cluster_name": "dev", "confirm": true, "user_confirmation": "DOWN" }),
    ).ok();
    world.age(&old, 120);
    let new = server.submit("job.yaml", dev("new"));
    assert_eq!(how(&server.poll(&new)), ("RUNNING", "RUNNING", false));
    assert_eq!(server.poll(&new)["oumi_job_id"], "1");
    assert_eq!(how(&server.poll(&old)), ("cluster_gone", "UNKNOWN", true));
    server.cancel(&old, false).refused();
    assert_eq!(world.cloud.job_status("dev", "1").unwrap(), "RUNNING");
    assert_eq!(server.list("running").0, ["new"]);
    let (ids, list) = server.list("completed");
    assert_eq!(ids, ["old"], "{:#}", list.content);
    assert!(!warnings(&list).contains("not asked"), "{:#}", list.content);
}

#[test]
fn recreated_cluster_with_the_same_job_name() {
    let world = World::new();
    world
        .home
        .write("job.yaml", "name: nightly\nrun: echo hi\n");
    let mut server = world.server();
    let dev = |name: &str| json!({ "cloud": "aws", "cluster_name": "dev", "job_name": name });
    let old = server.submit("job.yaml", dev("old"));
    world.cloud.lose_cluster("dev");
    world.age(&old, 24 * 3600);
    let new = server.submit("job.yaml", dev("new"));
    assert_eq!(how(&server.poll(&new)), ("RUNNING", "RUNNING", false));
    assert_eq!(how(&server.poll(&old)), ("cluster_gone", "UNKNOWN", true));
    assert_eq!(server.list("running").0, ["new"]);
}

#[test]
fn foreign_job_on_a_recreated_cluster() {
    let world = World::new();
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "cluster_name": "dev", "job_name": "old" });
    let old = server.submit("job.yaml", asked);
    world.cloud.lose_cluster("dev");
    world.age(&old, 120);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.add_job_now("dev", "1", "by-hand");
    assert_eq!(how(&server.poll(&old)), ("cluster_gone", "UNKNOWN", true));
    assert_eq!(server.list("running").0, ["1"]);
    assert_eq!(server.list("completed").0, ["old"]);
}

#[test]
fn unknown_job_is_not_found() {
    let world = World::new();
    let mut server = world.server();
    let answer = server.call("poll_status", json!({ "job_id": "nosuch" }));
    assert!(
        answer.refused().contains("list_jobs"),
        "{}",
        answer.refused()
    );
    assert_eq!(answer["status"], "not_found");
    let answer = server.call("poll_status", json!({ "oumi_job_id": "1", "cloud": "aws" }));
    assert!(
        answer.refused().contains("cluster_name"),
        "{}",
        answer.refused()
    );
}
