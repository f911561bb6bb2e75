//! What a client is offered before it has called anything.

use std::process::Stdio;

use serde_json::json;

use crate::support::client::{PROTOCOL, Server, command};
use crate::support::{Home, wait_until};

#[test]
fn server_info_and_instructions() {
    let home = Home::new();
    let server = Server::start(&home);
    let hello = server.hello();
    assert_eq!(hello["protocolVersion"], PROTOCOL);
    assert_eq!(hello["serverInfo"]["name"], "oumi-mcp-server");
    assert_eq!(hello["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
    let instructions = hello["instructions"].as_str().unwrap();
    let tools = "run_job poll_status get_job_logs cancel_job list_jobs stop_cluster down_cluster";
    for tool in tools.split(' ') {
        assert!(instructions.contains(tool), "{tool}");
    }
    // Claude Code cuts them there.
    assert!(instructions.len() <= 2048);
}

#[test]
fn list_is_small() {
    let (_home, mut server) = Server::in_new_home();
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
