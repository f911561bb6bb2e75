//! A cloud job beside its status: how far it is and why it failed, at the cost of few runs of `sky logs`.

use serde_json::{Value, json};

use super::world::{SLURM, World, how, text};
use crate::support::{executable, wait_until};

const TRAINED: &str = "{'loss': 2.5, 'learning_rate': 0.0001, 'epoch': 0.25, 'step': 10}\n";

fn with_job(status: &str) -> World {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "1", "a", status);
    world
}

impl World {
    fn log_runs(&self) -> usize {
        self.cloud.calls_of(&["sky", "logs"]).len()
    }
}

#[test]
fn progress_from_the_log_once_a_minute() {
    let world = with_job("RUNNING");
    world.cloud.set_log("dev", "1", TRAINED);
    let mut server = world.server();
    let answer = server.poll("a");
    let progress = &answer["progress"];
    assert_eq!(
        (&progress["step"], &progress["loss"]),
        (&json!(10), &json!(2.5)),
        "{answer}"
    );
    // When that was printed nobody says.
    assert_eq!(progress.get("age_seconds"), None);
    assert_eq!(
        text(&answer, "message"),
        "the job is running, at step 10, loss 2.5"
    );
    for _ in 0..5 {
        assert_eq!(server.poll("a")["progress"]["step"], 10);
    }
    assert_eq!(world.log_runs(), 1);
    // Once a poll, and once to see whose log it is.
    assert_eq!(world.cloud.calls_of(&["sky", "queue"]).len(), 7);
}

#[test]
fn no_log_before_the_start() {
    let world = with_job("PENDING");
    let mut server = world.server();
    for _ in 0..3 {
        let answer = server.poll("a");
        assert_eq!(answer["progress"], Value::Null);
        assert!(text(&answer, "next").contains("wait_seconds=55"));
    }
    assert_eq!(world.log_runs(), 0);
    world.cloud.set_log("dev", "1", TRAINED);
    world.cloud.set_job("dev", "1", "RUNNING");
    assert_eq!(server.poll("a")["progress"]["step"], 10);
}

#[test]
fn late_log_is_used_by_a_later_poll() {
    let world = with_job("RUNNING");
    world.cloud.set_log("dev", "1", TRAINED);
    world.cloud.set("sky-logs.gate", "");
    let mut server = world.server();
    let answer = server.poll("a");
    assert_eq!(how(&answer), ("RUNNING", "RUNNING", false));
    assert_eq!(answer["progress"], Value::Null);
    world.cloud.set("sky-logs.open", "");
    wait_until("the log came", || {
        server.poll("a")["progress"]["step"] == 10
    });
    assert_eq!(world.log_runs(), 1);
}

#[test]
fn unreadable_log_fails_no_poll() {
    for knob in ["garbage", "crash"] {
        let world = with_job("RUNNING");
        world.cloud.set(&format!("sky-logs.{knob}"), "bytes");
        let mut server = world.server();
        let answer = server.poll("a");
        assert_eq!(how(&answer), ("RUNNING", "RUNNING", false));
        assert_eq!(answer["progress"], Value::Null);
    }
}

#[test]
fn failure_is_read_once() {
    let world = with_job("RUNNING");
    let mut server = world.server();
    server.poll("a");
    world.cloud.set_log(
        "dev",
        "1",
        "Traceback (most recent call last):\n  File \"train.py\", line 3, in <module>\n    loss.backward()\n\
         torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB\n",
    );
    world.cloud.set_job("dev", "1", "FAILED");
    let answer = server.poll("a");
    assert_eq!(how(&answer), ("FAILED", "FAILED", true));
    let failure = answer["failure"].clone();
    assert_eq!(failure["cause"], "cuda_out_of_memory", "{failure:#}");
    assert!(
        failure["traceback_end"]
            .as_str()
            .unwrap()
            .contains("OutOfMemoryError: CUDA out of memory")
    );
    let asked = world.log_runs();
    for _ in 0..3 {
        assert_eq!(server.poll("a")["failure"], failure);
    }
    assert_eq!(world.log_runs(), asked);
}

#[test]
fn failure_is_redacted() {
    let (world, mut server) = World::with_server();
    let secret = "s3cr3t-value-123";
    let asked = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev", "envs": { "KEY": secret } });
    server.run("job.yaml", asked).ok();
    wait_until("the job runs", || server.poll("a")["state"] == "RUNNING");
    world
        .cloud
        .set_log("dev", "1", &format!("Error: bad token {secret}\n"));
    world.cloud.set_job("dev", "1", "FAILED");
    let answer = server.poll("a");
    let failure = &answer["failure"];
    let end = failure["traceback_end"].as_str().unwrap();
    assert!(end.starts_with("Error: bad token ***\n"), "{end}");
    assert_eq!(failure["exit"], "exit code 3");
    assert!(!answer.content.to_string().contains(secret));
}

#[test]
fn refused_launch_has_advice() {
    let world = World::new();
    let said = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/logs/failures/capacity.txt"
    );
    let oumi = executable(
        &world.home.root().join("own/oumi"),
        &format!("#!/bin/sh\ncat '{said}' >&2\nexit 1\n"),
    );
    let mut server = world.server_with(&[("OUMI_MCP_OUMI", oumi.to_str().unwrap())]);
    let asked = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev" });
    server.run("job.yaml", asked).refused();
    let answer = server.poll("a");
    assert_eq!(how(&answer), ("failed", "FAILED", true));
    let failure = &answer["failure"];
    assert_eq!(failure["cause"], "capacity", "{failure:#}");
    assert!(failure["advice"].is_string());
    assert_eq!(world.log_runs(), 0, "there is no job to ask for its log");
}

#[test]
fn progress_of_an_oumi_cloud() {
    let world = World::new();
    world.know(&[("s", "slurm", SLURM, "1")]);
    world.cloud.add_job(SLURM, "1", "s", "RUNNING");
    world.cloud.set_log(SLURM, "1", TRAINED);
    let mut server = world.server();
    wait_until("its log was read", || {
        server.poll("s")["progress"]["step"] == 10
    });
    assert_eq!(world.cloud.calls_of(&["oumi", "launch", "logs"]).len(), 1);
}

#[test]
fn wait_ends_with_the_job() {
    let world = with_job("RUNNING");
    let mut server = world.server();
    let arguments = json!({ "job_id": "a", "wait_seconds": 55 });
    let waiting = server.send("poll_status", arguments);
    wait_until("it was asked twice", || {
        world.cloud.calls_of(&["sky", "queue"]).len() >= 2
    });
    world.cloud.set_job("dev", "1", "SUCCEEDED");
    let answer = server.answer("poll_status", waiting).ok();
    assert_eq!(how(&answer), ("SUCCEEDED", "SUCCEEDED", true));
}

#[test]
fn doctor_checks_programs_clouds_and_settings() {
    let world = with_job("RUNNING");
    let report = |variable: &str, value: &str| -> (Value, Option<i32>) {
        let mut doctor = world.command();
        doctor.env(variable, value).args(["doctor", "--json"]);
        let output = doctor.output().unwrap();
        let report = serde_json::from_slice(&output.stdout).unwrap();
        (report, output.status.code())
    };
    let (found, code) = report("OUMI_MCP_READONLY", "1");
    assert_eq!((code, &found["ok"]), (Some(0), &json!(true)), "{found:#}");
    for (name, outcome, message) in [
        ("settings", "warning", "OUMI_MCP_READONLY is set"),
        ("oumi", "ok", "answered in"),
        ("desktop", "warning", "where a project has no .venv"),
        ("sky api", "ok", "each query runs `sky`"),
        ("clouds", "ok", "Slurm"),
        ("clusters", "ok", "dev"),
        ("data", "ok", "oumi-jobs.json"),
        ("jobs", "ok", "1 not ended (a)"),
    ] {
        let mut checks = found["checks"].as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == name).unwrap();
        assert_eq!(check["outcome"], outcome, "{check:#}");
        assert!(
            check["message"].as_str().unwrap().contains(message),
            "{check:#}"
        );
    }
    for (variable, value) in [("OUMI_MCP_CLOUDS", "gpc"), ("OUMI_MCP_OUMI", "/nowhere")] {
        assert_eq!(report(variable, value).1, Some(1), "{variable}");
    }
}
