//! What whoever set the server up allows: clouds, and tools.

use std::process::Stdio;

use oumi_mcp_server::env_vars;
use serde_json::{Value, json};

use super::world::{SLURM, World, warnings};

fn down(cloud: &str, cluster: &str) -> Value {
    json!({ "cloud": cloud, "cluster_name": cluster, "confirm": true, "user_confirmation": "DOWN" })
}

#[test]
fn forbidden_cloud_is_refused_by_every_tool() {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1"), ("s", "slurm", SLURM, "1")]);
    let mut server = world.server_with(&[(env_vars::CLOUDS, "local, modal")]);
    for (tool, arguments) in [
        (
            "run_job",
            server.launch("job.yaml", json!({ "cloud": "AWS" })),
        ),
        (
            "run_job",
            server.launch("job.yaml", json!({ "cloud": "aws", "dry_run": true })),
        ),
        ("poll_status", json!({ "job_id": "a" })),
        ("get_job_logs", json!({ "job_id": "a" })),
        ("cancel_job", json!({ "job_id": "a" })),
        ("cancel_job", json!({ "job_id": "s" })),
        (
            "cancel_job",
            json!({ "oumi_job_id": "9", "cloud": "aws", "cluster_name": "dev" }),
        ),
        ("cancel_job", json!({ "oumi_job_id": "9", "cloud": "aws" })),
        (
            "stop_cluster",
            json!({ "cloud": "aws", "cluster_name": "dev" }),
        ),
        ("down_cluster", down("aws", "dev")),
    ] {
        let answer = server.call(tool, arguments);
        let error = answer.refused();
        assert!(error.contains(env_vars::CLOUDS), "{tool}: {error}");
        assert!(error.contains("only local, modal"), "{tool}: {error}");
    }
    let (ids, list) = server.list("all");
    assert_eq!(ids.len(), 0);
    let said = warnings(&list);
    assert!(
        said.contains("not asked about: a; cloud \"aws\" may not be used"),
        "{said}"
    );
    assert!(
        said.contains("not asked about: s; cloud \"slurm\""),
        "{said}"
    );
    assert_eq!(world.cloud.calls().len(), 0, "nothing was asked");
    let here = server.submit("job.yaml", json!({}));
    assert_eq!(server.wait_done(&here)["state"], "SUCCEEDED");
    assert_eq!(world.home.records().len(), 3, "no record is lost");
}

#[test]
fn local_can_be_forbidden() {
    let world = World::new();
    let mut server = world.server_with(&[(env_vars::CLOUDS, "gcp")]);
    let launch = server.launch("job.yaml", json!({}));
    assert!(
        server
            .call("run_job", launch)
            .refused()
            .contains("\"local\" may not")
    );
    server.run("job.yaml", json!({ "cloud": "gcp" })).ok();
}

#[test]
fn list_hides_forbidden_clouds() {
    let world = World::new();
    for (cluster, cloud) in [("mine", "GCP"), ("theirs", "AWS")] {
        world.cloud.add_cluster(cluster, cloud, "UP");
        world.cloud.add_job(cluster, "1", cluster, "RUNNING");
    }
    let mut server = world.server_with(&[(env_vars::CLOUDS, "gcp")]);
    let list = server.list("all").1;
    let rows = list["jobs"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{list}");
    assert_eq!(rows[0]["cluster"], "mine");
}

#[test]
fn cluster_on_another_cloud_is_untouched() {
    let world = World::new();
    world.cloud.add_cluster("theirs", "AWS", "UP");
    world.cloud.add_job("theirs", "1", "x", "RUNNING");
    world.cloud.add_cluster("mine", "GCP", "UP");
    let mut server = world.server_with(&[(env_vars::CLOUDS, "gcp")]);
    let theirs = json!({ "cloud": "gcp", "cluster_name": "theirs" });
    let job = json!({ "oumi_job_id": "1", "cloud": "gcp", "cluster_name": "theirs" });
    for (tool, arguments) in [
        ("stop_cluster", theirs),
        ("down_cluster", down("gcp", "theirs")),
        ("cancel_job", job),
    ] {
        let answer = server.call(tool, arguments);
        assert!(
            answer.refused().contains("\"aws\" may not be used"),
            "{answer}"
        );
    }
    // A launch lands where the cluster is, whatever cloud the call names: in a dry run, and with the flags alone.
    for dry_run in [true, false] {
        let asked = json!({ "cloud": "gcp", "cluster_name": "theirs", "dry_run": dry_run });
        let answer = server.run("job.yaml", asked);
        assert!(
            answer.refused().contains("\"aws\" may not be used"),
            "{answer}"
        );
    }
    assert_eq!(world.launches(), 0);
    // Where that cannot be found out, it is not tried.
    world.cloud.set("sky-status.garbage", "text");
    let answer = server.call("down_cluster", down("gcp", "mine"));
    assert!(answer.refused().contains("nothing was done"), "{answer}");
    for verb in ["stop", "down", "cancel"] {
        assert_eq!(world.cloud.calls_of(&["sky", verb]).len(), 0, "{verb}");
    }
    world.cloud.unset("sky-status.garbage");
    server.call("down_cluster", down("gcp", "mine")).ok();
}

#[test]
fn launch_on_a_now_forbidden_cloud_is_left() {
    let world = World::new();
    world.cloud.set("oumi-up.gate", "");
    let mut server = world.server();
    server.send_run("job.yaml", json!({ "cloud": "gcp", "job_name": "a" }));
    crate::support::wait_until("the launch was begun", || world.launches() == 1);
    server.kill_9();
    let mut limited = world.server_with(&[(env_vars::CLOUDS, "local")]);
    assert!(
        limited
            .call("poll_status", json!({ "job_id": "a" }))
            .refused()
            .contains("may not")
    );
    assert_eq!(limited.list("all").0.len(), 0);
    drop(limited);
    world.cloud.set("oumi-up.open", "");
    let mut free = world.server();
    crate::support::wait_until("the job is found again", || {
        free.poll("a")["status"] == "RUNNING"
    });
}

#[test]
fn read_only_has_no_changing_tool() {
    let world = World::new();
    world.know(&[("a", "aws", "dev", "1")]);
    world.cloud.add_cluster("dev", "AWS", "UP");
    world.cloud.add_job("dev", "1", "a", "RUNNING");
    let mut server = world.server_with(&[(env_vars::READ_ONLY, "1")]);
    let listed = server.request("tools/list", json!({}));
    let tools = listed["tools"].as_array().unwrap();
    let mut names: Vec<&str> = tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["get_job_logs", "list_jobs", "poll_status"]);
    for tool in tools {
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
    }
    let instructions = server.hello()["instructions"].as_str().unwrap().to_owned();
    for gone in ["run_job", "cancel_job", "stop_cluster", "down_cluster"] {
        let id = server.send(gone, json!({}));
        let error = server.error(id);
        assert_eq!(error["code"], -32602);
        assert_eq!(error["message"], format!("Unknown tool: {gone}"));
        assert!(!instructions.contains(gone), "{instructions}");
    }
    let prompts = server.request("prompts/list", json!({}))["prompts"].to_string();
    assert!(prompts.contains("watch_job"), "{prompts}");
    assert!(!prompts.contains("config_path"), "{prompts}");
    for there in &names {
        assert!(instructions.contains(there), "{instructions}");
    }
    assert_eq!(server.poll("a")["status"], "RUNNING");
    // The other way to end a job.
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {
            "extensions": { "io.modelcontextprotocol/tasks": {} },
        },
    });
    let id = server.send_request("tasks/cancel", json!({ "taskId": "a", "_meta": meta }));
    assert_eq!(server.error(id)["code"], -32601);
    assert_eq!(world.cloud.calls_of(&["sky", "cancel"]).len(), 0);
}

#[test]
fn invalid_limits_stop_the_server() {
    let world = World::new();
    for (variable, value) in [
        (env_vars::CLOUDS, "local,gpc"),
        (env_vars::CLOUDS, "all"),
        (env_vars::CONSENT, "never"),
        (env_vars::READ_ONLY, "on"),
    ] {
        let mut command = world.command();
        command.env(variable, value).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{value}");
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains(variable) && stderr.contains(value),
            "{stderr}"
        );
    }
}
