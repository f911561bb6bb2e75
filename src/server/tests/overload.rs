//! Calls that wait, are long or hang: pings, cancellations and the answers of the person are read all the same.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Client;
use super::consent::cloud_launch;
use crate::server::transport::Stdio;
use crate::service::tests::test_service::test_service_with;
use crate::settings::policy::Policy;

#[tokio::test(start_paused = true)]
async fn large_calls_that_wait_for_a_person_hold_nothing_up() {
    let test = test_service_with(&[&["local"], &["gcp"]], Policy::default());
    let mut client = Client::of(&test.service).await;
    let mut questions = Vec::new();
    for job in ["a", "b", "c"] {
        let mut launch = cloud_launch(&test, job);
        launch["setup_script"] = json!("# much\n".repeat(130_000));
        client.call(job, "run_job", launch).await;
        let asked = client.next().await;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        questions.push(asked["id"].clone());
    }
    client.request("ping", "ping", json!({})).await;
    assert_eq!(client.next().await["id"], "ping");
    client
        .send(json!({ "jsonrpc": "2.0", "id": questions[1], "result": { "action": "decline" } }))
        .await;
    assert_eq!(client.next().await["id"], "b");
    client.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "a" } })).await;
    let withdrawn = client.next().await;
    assert_eq!(
        withdrawn["params"]["requestId"], questions[0],
        "{withdrawn}"
    );
    client.end().await;
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_are_taken_are_refused_and_pings_answered() {
    let test = test_service_with(&[&["local"], &["gcp"]], Policy::default());
    let mut client = Client::of(&test.service).await;
    let mut launch = cloud_launch(&test, "job");
    launch["run_script"] = json!("#".repeat(1_000_000));
    let mut questions = Vec::new();
    for id in 0..16 {
        launch["job_name"] = json!(format!("job-{id}"));
        client
            .call(&format!("{id}"), "run_job", launch.clone())
            .await;
        questions.push(client.next().await["id"].clone());
    }
    // Each counts as some sixty calls: there is room for a short one only.
    for (length, is_refused) in [(1_000_000, true), (10, false)] {
        let poll = json!({ "job_id": "a".repeat(length) });
        client.call("poll", "poll_status", poll).await;
        let answer = client.next().await;
        let error = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(error.contains("are under way"), is_refused, "{answer}");
        client.request("ping", "ping", json!({})).await;
        assert_eq!(client.next().await["result"], json!({}));
    }
    client
        .send(json!({ "jsonrpc": "2.0", "id": questions[0], "result": { "action": "decline" } }))
        .await;
    assert_eq!(client.next().await["id"], "0");
    client.end().await;
}

#[tokio::test(start_paused = true)]
async fn reading_ends_once_the_last_ping_is_answered() {
    let (client, output) = tokio::io::duplex(8);
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let input = std::io::Cursor::new(format!("{ping}\n"));
    let (_stdio, mut ended) = Stdio::new(input, output, std::future::pending());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut ended).await;
    assert!(early.is_err(), "its answer is not taken yet");
    let pong = BufReader::new(client).lines().next_line().await.unwrap();
    assert!(pong.unwrap().contains("\"result\""));
    ended.await.unwrap();
}

#[test]
fn calls_that_hang_on_files_hold_up_no_message() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let test =
        runtime.block_on(async { test_service_with(&[&["local"], &["gcp"]], Policy::default()) });
    let (release, hung) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || hung.recv());
    runtime.block_on(async {
        let mut client = Client::of(&test.service).await;
        client.call("hangs", "list_jobs", json!({})).await;
        client.request("ping", "ping", json!({})).await;
        assert_eq!(client.next().await["id"], "ping");
        client.request("tools", "tools/list", json!({})).await;
        assert_eq!(client.next().await["id"], "tools");
        drop(release);
        assert_eq!(client.next().await["id"], "hangs");
        client.end().await;
    });
}
