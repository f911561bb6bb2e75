//! The values of `envs` reach the launcher, and stand nowhere else: in no file once the launch has ended, in no answer and in
//! no log, even when the launcher prints them.

use std::fs;

use serde_json::json;

use super::world::{World, holding, how};
use crate::support::client::Answer;
use crate::support::{kill_9, wait_until};

const SECRET: &str = "s3cr3t-value-123";

fn is_silent(answer: &Answer) {
    assert!(!answer.content.to_string().contains(SECRET), "{answer}");
}

fn with_secret(config: &str) -> World {
    let world = World::new();
    world.home.write(
        config,
        &format!("envs: {{API_TOKEN: {SECRET}-of-the-config}}\nrun: echo hi\n"),
    );
    world
}

#[test]
fn secret_is_only_in_the_staged_config() {
    let world = with_secret("job.yaml");
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server_with(&[("OUMI_MCP_LOG", "trace")]);
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    let run = server.send_run("job.yaml", asked);
    world.cloud.wait_for("blocked-oumi-up");
    assert_eq!(holding(&world.home.data(), SECRET), ["job.yaml"]);
    is_silent(&server.poll("a"));
    world.cloud.set("oumi-up.go", "");
    is_silent(&server.answer("run_job", run).ok());
    assert_eq!(holding(&world.home.data(), SECRET), [""; 0]);
    // It was there to be found.
    let staged = world.cloud.staged(1).unwrap();
    assert_eq!(staged.matches(SECRET).count(), 2, "{staged}");
    is_silent(&server.list("all").1);
    is_silent(&server.cancel("a", false));
    let stderr = server.stderr();
    assert!(
        stderr.contains("running") && !stderr.contains(SECRET),
        "{stderr}"
    );
}

#[test]
fn failed_launch_keeps_no_secret() {
    let world = with_secret("job.yaml");
    world
        .cloud
        .set("oumi-up.replay", "oumi-slurm/up-no-cluster");
    let mut server = world.server();
    server
        .run(
            "job.yaml",
            json!({ "cloud": "aws", "envs": { "GIVEN": SECRET } }),
        )
        .refused();
    assert_eq!(holding(&world.home.data(), SECRET), [""; 0]);

    let world = with_secret("job.yaml");
    world.cloud.set("oumi-up.block", "");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    server.send_run("job.yaml", asked);
    world.cloud.wait_for("blocked-oumi-up");
    let supervisor = world.home.supervisor("a");
    server.kill_9();
    kill_9(supervisor);
    kill_9(world.the_launch().pid);
    let _server = world.server();
    wait_until("nothing holds it", || {
        holding(&world.home.data(), SECRET).is_empty()
    });
}

/// A launcher that prints what it was given and then does what it does.
fn talkative(world: &World, end: &str) {
    let real = world.cloud.bin().join("real-oumi");
    fs::rename(world.cloud.oumi(), &real).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$2\" = up ]; then cat \"$4\"; echo; echo 'ValueError: bad {SECRET}, said the cloud'; {end}; fi\n\
         exec '{}' \"$@\"\n",
        real.display()
    );
    crate::support::executable(&world.cloud.oumi(), &script);
}

#[test]
fn launcher_output_is_redacted() {
    let world = with_secret("job.yaml");
    talkative(&world, "exit 1");
    let mut server = world.server_with(&[("OUMI_MCP_LOG", "trace")]);
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    let answer = server.run("job.yaml", asked);
    assert!(
        answer.refused().contains("bad ***, said the cloud"),
        "{answer}"
    );
    is_silent(&answer);
    let status = server.poll("a");
    assert!(
        status["message"].as_str().unwrap().contains("bad ***"),
        "{status}"
    );
    is_silent(&status);
    let log = server.call("get_job_logs", json!({ "job_id": "a" })).ok();
    assert!(log["logs"].as_str().unwrap().contains("bad ***"), "{log}");
    is_silent(&log);
    is_silent(&server.cancel("a", false));
    is_silent(&server.list("all").1);
    assert!(!server.stderr().contains(SECRET));
    // What the launcher itself wrote is its log, for this user alone.
    assert_eq!(holding(&world.home.data(), SECRET), ["output.log"]);
}

#[test]
fn cancel_answer_is_redacted() {
    let world = with_secret("job.yaml");
    talkative(&world, "while ! [ -e ../go ]; do sleep 0.05; done; exit 1");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    let run = server.send_run("job.yaml", asked);
    wait_until("the launcher has said it", || {
        holding(&world.home.data(), SECRET).contains(&"output.log".to_owned())
    });
    let cancel = server.send("cancel_job", json!({ "job_id": "a" }));
    let kept = world.home.job_dir("a").join("cancel-requested");
    wait_until("the cancel is kept", || kept.exists());
    let status = server.poll("a");
    assert!(
        status["message"].as_str().unwrap().contains("***"),
        "{status}"
    );
    is_silent(&status);
    fs::write(world.home.root().join("go"), "").unwrap();
    let answer = server.answer("cancel_job", cancel);
    assert!(answer.refused().contains("bad ***"), "{answer}");
    is_silent(&answer);
    is_silent(&server.answer("run_job", run));
}

#[test]
fn job_log_is_redacted() {
    let world = with_secret("job.yaml");
    world.cloud.set(
        "first_log",
        &format!("token is {SECRET} and {SECRET}-of-the-config\n"),
    );
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    server.submit("job.yaml", asked);
    for mut server in [server, world.server()] {
        let by_id = json!({ "job_id": "a" });
        let by_identity = json!({ "oumi_job_id": "1", "cloud": "aws", "cluster_name": "a" });
        let raw = json!({ "job_id": "a", "raw": true });
        let new = json!({ "job_id": "a", "cursor": "log2..0.0" });
        let found = json!({ "job_id": "a", "grep": "token" });
        for asked in [by_id, by_identity, raw, new, found] {
            let log = server.call("get_job_logs", asked).ok();
            assert!(
                log["logs"]
                    .as_str()
                    .unwrap()
                    .contains("token is *** and ***"),
                "{log}"
            );
            is_silent(&log);
        }
        let asked = json!({ "job_id": "a", "grep": &SECRET[..6] });
        let log = server.call("get_job_logs", asked).ok();
        assert_eq!(log["matches"], 0);
    }
    assert_eq!(holding(&world.home.data(), SECRET), [""; 0]);
}

#[test]
fn tool_failure_is_redacted() {
    let world = with_secret("job.yaml");
    let mut server = world.server();
    let asked = json!({ "cloud": "aws", "job_name": "a", "envs": { "GIVEN": SECRET } });
    server.submit("job.yaml", asked);
    fs::remove_file(world.cloud.sky()).unwrap();
    let script = format!("#!/bin/sh\necho 'ValueError: no {SECRET} here' >&2; exit 1\n");
    crate::support::executable(&world.cloud.sky(), &script);
    for tool in ["poll_status", "cancel_job", "get_job_logs"] {
        let answer = server.call(tool, json!({ "job_id": "a" }));
        is_silent(&answer);
    }
    is_silent(&server.list("all").1);
    assert_eq!(
        how(&server.call("poll_status", json!({ "job_id": "a" }))).0,
        "unknown"
    );
    let stderr = server.stderr();
    assert!(stderr.contains("a cancel failed"), "{stderr}");
    assert!(!stderr.contains(SECRET), "{stderr}");
}

#[test]
fn log_hides_tokens() {
    let world = World::new();
    let mut server = world.server_with(&[("OUMI_MCP_LOG", "info")]);
    let token = "hf_abcdefghijklmnopqrstuvwxyzabcdefgh";
    let job = json!({ "oumi_job_id": "1", "cloud": "aws", "cluster_name": token });
    server.call("poll_status", job);
    let stderr = server.stderr();
    assert!(stderr.contains("sky queue ***"), "{stderr}");
    assert!(!stderr.contains(token), "{stderr}");
}
