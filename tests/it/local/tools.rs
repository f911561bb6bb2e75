//! What a client is offered before it has called anything.

use std::process::Stdio;

use serde_json::{Value, json};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::support::client::{PROTOCOL, Server, command};
use crate::support::{Home, wait_until};

fn properties(tool: &Value) -> Vec<&str> {
    let properties = tool["inputSchema"]["properties"].as_object().unwrap();
    properties.keys().map(String::as_str).collect()
}

#[test]
fn memory_is_a_few_megabytes() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = sysinfo::Pid::from_u32(server.id());
    let mut system = System::new().unwrap();
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), true, kind);
    let resident = system.process(id).unwrap().memory();
    assert!((1..64 << 20).contains(&resident), "{resident} bytes");
}

#[test]
fn server_info_and_instructions() {
    let home = Home::new();
    let server = Server::start(&home);
    let hello = server.hello();
    assert_eq!(hello["protocolVersion"], PROTOCOL);
    assert_eq!(hello["serverInfo"]["name"], "oumi-mcp-server");
    assert_eq!(hello["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    let instructions = hello["instructions"].as_str().unwrap();
    for tool in [
        "run_job",
        "poll_status",
        "get_job_logs",
        "cancel_job",
        "list_jobs",
        "stop_cluster",
        "down_cluster",
    ] {
        assert!(instructions.contains(tool), "{tool}");
    }
    // Claude Code cuts them there.
    assert!(instructions.len() <= 2048);
}

#[test]
fn parameters_of_the_reference() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let listed = server.request("tools/list", json!({}));
    let mut names: Vec<&str> = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "cancel_job",
            "down_cluster",
            "get_job_logs",
            "list_jobs",
            "poll_status",
            "run_job",
            "stop_cluster"
        ]
    );
    assert_eq!(
        properties(server.tool("run_job")),
        [
            "config_path",
            "command",
            "client_cwd",
            "dry_run",
            "confirm",
            "user_confirmation",
            "plan_id",
            "job_name",
            "cloud",
            "cluster_name",
            "accelerators",
            "num_nodes",
            "use_spot",
            "disk_size",
            "autostop_minutes",
            "max_hours",
            "envs",
            "file_mounts",
            "setup_script",
            "run_script",
            "allow_shared_output",
        ]
    );
    let identity = ["job_id", "oumi_job_id", "cloud", "cluster_name"];
    for (tool, own) in [
        ("poll_status", &["wait_seconds", "until"][..]),
        (
            "get_job_logs",
            &[
                "lines",
                "cursor",
                "grep",
                "context",
                "max_bytes",
                "raw",
                "plot",
            ],
        ),
        ("cancel_job", &["force"]),
    ] {
        let mut found = properties(server.tool(tool));
        assert!(own.iter().all(|name| found.contains(name)), "{tool}");
        found.retain(|name| !own.contains(name));
        assert_eq!(found, identity, "{tool}");
    }
    assert_eq!(properties(server.tool("list_jobs")), ["status", "limit"]);
}

#[test]
fn schemas_have_defaults_and_required() {
    let home = Home::new();
    let server = Server::start(&home);
    let run = &server.tool("run_job")["inputSchema"];
    assert_eq!(run["required"], json!(["config_path", "command"]));
    for (name, default) in [
        ("dry_run", json!(true)),
        ("confirm", json!(false)),
        ("num_nodes", json!(1)),
        ("use_spot", json!(false)),
    ] {
        assert_eq!(run["properties"][name]["default"], default, "{name}");
    }
    let log = &server.tool("get_job_logs")["inputSchema"]["properties"];
    assert_eq!(
        (&log["lines"]["default"], &log["max_bytes"]["default"]),
        (&json!(200), &json!(5632))
    );
    let force = &server.tool("cancel_job")["inputSchema"]["properties"]["force"];
    assert_eq!(force["default"], false);
    // A tool that only reads passes over fields that it does not know.
    for (tool, refuses_unknown) in [
        ("run_job", true),
        ("poll_status", false),
        ("get_job_logs", false),
        ("cancel_job", true),
        ("list_jobs", false),
    ] {
        let tool = server.tool(tool);
        let refuses = tool["inputSchema"]["additionalProperties"] == json!(false);
        assert_eq!(refuses, refuses_unknown, "{tool:#}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool:#}");
        // Strict clients flag a choice of types in arguments.
        for property in tool["inputSchema"]["properties"]
            .as_object()
            .unwrap()
            .values()
        {
            assert!(!property["type"].is_array(), "{property}");
        }
    }
}

#[test]
fn list_is_small() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let listed = server.request("tools/list", json!({})).to_string();
    assert!(listed.len() < 12 * 1024, "{} bytes", listed.len());
}

#[test]
fn client_gone_before_initialize() {
    let home = Home::new();
    let mut child = command(&home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the end of the server", || {
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
