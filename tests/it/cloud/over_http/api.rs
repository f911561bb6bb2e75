//! Where SkyPilot's API server is asked, and where the program is.

use std::fs;

use serde_json::json;

use super::world::{World, how, text, warnings};
use crate::support::client::Answer;
use crate::support::wait_until;

fn world() -> World {
    let world = World::new();
    world.cloud.add_cluster("c1", "Slurm", "UP");
    world.cloud.add_job("c1", "1", "job", "RUNNING");
    world.know(&[("job", "sky-slurm", "c1", "1")]);
    world
}

fn poll(world: &World, envs: &[(&str, &str)]) -> (Answer, String) {
    let mut server = world.server_with(envs);
    let polled = server.call("poll_status", json!({ "job_id": "job" }));
    assert_eq!(how(&polled), ("RUNNING", "RUNNING", false));
    (polled, server.stderr())
}

#[test]
fn poll_runs_no_program() {
    let world = world();
    // A newer server is asked in the version that is known here.
    let health = json!({ "status": "healthy", "api_version": "62", "basic_auth_enabled": false });
    world.cloud.set("api.health", &health.to_string());
    let (_, log) = poll(
        &world,
        &[
            ("OUMI_MCP_LOG", "trace"),
            ("AWS_SECRET_ACCESS_KEY", "sesame"),
        ],
    );
    let mut posted = world.cloud.api_calls("POST");
    posted.retain(|call| !call.contains("/cost_report"));
    // The fake runs a program for each; the log is read for the job's progress.
    assert_eq!(world.cloud.calls().len(), posted.len(), "{posted:?}");
    let sent = |call: &String| call.contains("SKYPILOT_USER_ID") && call.contains(" 50 ");
    assert!(posted.iter().all(sent), "{posted:?}");
    // This is no server that `sky` started: it gets no keys.
    assert!(
        !posted.iter().any(|call| call.contains("AWS")),
        "{posted:?}"
    );
    assert!(
        !log.contains("secret-of-a-body") && !log.contains("sesame"),
        "{log}"
    );
}

#[test]
fn each_fault_has_the_program_asked_once() {
    for (knob, text, asked) in [
        (
            "health",
            "{\"status\": \"unhealthy\", \"api_version\": \"50\"}",
            false,
        ),
        (
            "health",
            "{\"status\": \"needs_auth\", \"api_version\": \"50\"}",
            false,
        ),
        (
            "health",
            "{\"status\": \"healthy\", \"api_version\": \"63\"}",
            false,
        ),
        (
            "health",
            "{\"status\": \"healthy\", \"api_version\": \"49\"}",
            false,
        ),
        ("health", "secret-of-a-body", false),
        ("mute", "", false),
        ("status", "503", true),
        ("nonsense", "secret-of-a-body", true),
        (
            "nonsense",
            "{\"return_value\": \"secret-of-a-body\", \"status\": \"SUCCEEDED\"}",
            true,
        ),
        ("die", "", true),
    ] {
        let world = world();
        world.cloud.set(&format!("api.{knob}"), text);
        let (_, log) = poll(&world, &[]);
        let posted = world.cloud.api_calls("POST");
        // No program is run for costs.
        let is_run = |call: &&String| !call.contains("/cost_report");
        let posted = posted.iter().filter(is_run).count();
        // One line for each question that the program is asked instead.
        let is_of_program =
            |line: &&str| line.contains("cannot answer") && !line.contains("cost-report");
        let lines = log.lines().filter(is_of_program).count();
        assert_eq!(lines, posted, "{knob} {text}: {log}");
        assert!(log.contains("SkyPilot's API server"), "{knob}: {log}");
        assert_eq!(posted > 0, asked, "{knob} {text}");
        let run = world.cloud.calls().len() - posted;
        assert!(
            if asked { run == posted } else { run > 0 },
            "{knob} {text}: {run} of {posted}"
        );
        assert!(!log.contains("secret-of-a-body"), "{knob}: {log}");
    }
}

#[test]
fn queues_without_an_answer_are_listed_in_one_run() {
    let world = world();
    world.cloud.add_cluster("c2", "Slurm", "UP");
    world.cloud.set("api.nonsense", "secret-of-a-body");
    world.server().list("all");
    let asked = world.cloud.api_calls("POST /queue").len();
    // The fake runs a program for each that it is asked.
    let runs = world.cloud.calls_of(&["sky", "queue"]).len();
    assert_eq!((asked, runs), (2, 3));
}

/// The answer is lost, and `sky`, which is asked then, finds no such cluster any more.
#[test]
fn down_that_was_accepted_and_done_is_no_failure() {
    let world = world();
    world.cloud.set("api.die", "");
    let mut server = world.server();
    let down = |cluster: &str| json!({ "cloud": "sky-slurm", "cluster_name": cluster, "confirm": true, "user_confirmation": "DOWN" });
    let answer = server.call("down_cluster", down("c1")).ok();
    assert_eq!(text(&answer, "message"), "cluster c1 is gone");
    assert_eq!(world.cloud.api_calls("POST /down").len(), 1);
    assert_eq!(world.cloud.calls_of(&["sky", "down"]).len(), 2);
    // Of one that the API server did not accept the program's word is the answer.
    world.cloud.unset("api.die");
    world.cloud.set("api.mute", "");
    let answer = world.server().call("down_cluster", down("c1"));
    assert!(answer.refused().contains("knows no cluster"), "{answer:?}");
}

#[test]
fn server_elsewhere_and_off_leave_it_to_the_program() {
    let config = |world: &World, text| fs::write(world.home.root().join(".sky/config.yaml"), text);
    for (envs, text) in [
        (("OUMI_MCP_SKY_API", "off"), ""),
        (
            ("SKYPILOT_API_SERVER_ENDPOINT", "https://sky.example.org"),
            "",
        ),
        (("SKYPILOT_PROJECT_CONFIG", "/somewhere.yaml"), ""),
        (
            ("OUMI_MCP_LOG", "warn"),
            "api_server: {service_account_token: sky_x}",
        ),
    ] {
        let world = world();
        config(&world, text).unwrap();
        poll(&world, &[envs]);
        assert!(world.cloud.api_calls("").is_empty(), "{envs:?}");
    }
}

#[test]
fn unreadable_cluster_costs_its_rows() {
    let world = world();
    world.cloud.add_cluster("c2", "Slurm", "UP");
    world.cloud.add_job("c2", "1", "other", "RUNNING");
    world.cloud.set("sky-queue@c2.garbage", "text");
    let listed = world.server().call("list_jobs", json!({}));
    let jobs = listed["jobs"].as_array().unwrap();
    assert_eq!(
        (jobs.len(), &jobs[0]["cluster"]),
        (1, &json!("c1")),
        "{listed:?}"
    );
    assert!(warnings(&listed).contains("c2"), "{listed:?}");
}

#[test]
fn log_of_no_number_is_not_that_of_the_latest_job() {
    let world = world();
    world.cloud.set_log("c1", "1", "a line of job 1\n");
    let job = json!({ "cloud": "sky-slurm", "cluster_name": "c1", "oumi_job_id": "abc" });
    let read = world.server().call("get_job_logs", job);
    assert!(
        !read.content.to_string().contains("a line of job 1"),
        "{read:?}"
    );
    assert!(world.cloud.api_calls("POST /logs").is_empty());
}

#[test]
fn prices_are_those_of_the_catalog() {
    let (world, mut server) = World::with_server();
    let mut shown = |cloud: &str| {
        let more =
            json!({ "cloud": cloud, "accelerators": "a100:8", "num_nodes": 2, "use_spot": true });
        let mut dry_run = server.launch("job.yaml", more);
        dry_run["dry_run"] = true.into();
        server.call("run_job", dry_run).ok()
    };
    let answer = shown("aws");
    assert_eq!(answer["hourly_price"], 21.8);
    assert!(text(&answer, "price_note").contains("a100:8, spot, in us-west-2;"));
    // Its catalog cannot be fetched, and `sky` says why.
    assert!(text(&shown("gcp"), "price_note").contains("Failed to fetch Azure catalog"));
    let asked = world.cloud.api_calls("POST /list_accelerators");
    assert_eq!(asked.len(), 2, "{asked:?}");
}

#[test]
fn spent_is_that_of_the_cost_report() {
    let (world, mut server) = World::with_server();
    let more = json!({ "cloud": "aws", "job_name": "a", "cluster_name": "dev" });
    server.submit("job.yaml", more);
    let hash = world.cloud.read("clusters/dev/hash").unwrap();
    world.cloud.add_cluster("idle", "AWS", "UP");
    let idle = world.cloud.read("clusters/idle/hash").unwrap();
    // Two clusters of one name.
    let report = json!([
        { "name": "idle", "cluster_hash": idle, "total_cost": 3.0, "duration": 3600 },
        { "name": "dev", "cluster_hash": "another", "total_cost": 99.0 },
        { "name": "dev", "cluster_hash": hash, "total_cost": 12.5, "duration": 18000 },
    ]);
    world.cloud.write("costs", &report.to_string());
    let spent = "$12.50 (cost report)";
    let poll = server.poll("a");
    assert_eq!(
        (&poll["spent"], &poll["hourly_price"]),
        (&json!(spent), &json!(2.5))
    );
    // What is there already has no accelerators, by which the catalog lists prices.
    let mut onto = server.launch("job.yaml", json!({ "cloud": "aws", "cluster_name": "dev" }));
    onto["dry_run"] = true.into();
    assert_eq!(server.call("run_job", onto).ok()["hourly_price"], 2.5);
    let list = server.list("all").1;
    assert_eq!(list["jobs"][0]["spent"], spent);
    let warned = warnings(&list);
    assert!(
        warned.contains("cluster idle (AWS) is still up at $3.00 an hour"),
        "{warned}"
    );
    world.cloud.lose_cluster("dev");
    let last = server.poll("a");
    assert_eq!(how(&last), ("cluster_gone", "UNKNOWN", true));
    assert!(text(&last, "message").contains("$12.50"), "{last:?}");
}

#[test]
fn autostop_is_set() {
    let (world, mut server) = World::with_server();
    let more = json!({ "cloud": "lambda", "job_name": "a", "cluster_name": "dev" });
    server.submit("job.yaml", more);
    let epilogue = world.home.job_dir("a").join("epilogue.json");
    wait_until("the autostop is set", || !epilogue.exists());
    let asked = world.cloud.api_calls("POST /autostop");
    assert!(
        asked.len() == 1 && asked[0].contains("\"idle_minutes\": 60"),
        "{asked:?}"
    );
    assert_eq!(
        world.cloud.read("clusters/dev/to_down").as_deref(),
        Some("True")
    );
}
