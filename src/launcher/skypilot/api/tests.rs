use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{CliCall, Endpoint, Output, Reply, Request};
use crate::parse::sky;

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!(
            "../../../../tests/support/captures-http/",
            $name,
            ".http"
        ))
    };
}

/// The last answer of a capture.
fn captured(capture: &str) -> Reply {
    let lines: Vec<&str> = capture.lines().filter(|line| !line.is_empty()).collect();
    let status = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("< ")?.get(..3)?.parse().ok());
    reply(status.unwrap(), lines.last().unwrap())
}

fn reply(status: u16, body: &str) -> Reply {
    let mut reply = Reply {
        status,
        ..Reply::default()
    };
    reply.body.push(body.as_bytes());
    reply
}

/// What `sky` puts out for a captured answer.
fn output(arguments: &[&str], capture: &str) -> Output {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let request = Request::of(&arguments).unwrap();
    request.output(captured(capture).result().unwrap(), String::new())
}

#[test]
fn captured_answers() {
    let status = output(&["status", "-o", "json"], capture!("status"));
    let clusters = sky::clusters(&status.stdout).unwrap();
    assert_eq!(
        (clusters[0].name.as_str(), clusters[0].status.as_str()),
        ("h1", "UP")
    );
    let queue = output(&["queue", "h1", "-u", "-o", "json"], capture!("queue"));
    let queue = sky::queue(&queue.stdout).unwrap();
    let jobs: Vec<_> = queue["h1"]
        .iter()
        .flatten()
        .map(|job| (&*job.job_id, &*job.status))
        .collect();
    assert_eq!(jobs, [("2", "PENDING"), ("1", "RUNNING")]);
    let unknown = output(
        &["queue", "nope", "-u", "-o", "json"],
        capture!("queue-unknown"),
    );
    let queue = sky::queue(&unknown.stdout).unwrap();
    assert!(queue["nope"].as_ref().unwrap_err().is_not_found());
    let cancelled = output(&["cancel", "-y", "h1", "1"], capture!("cancel"));
    assert_eq!((cancelled.stdout.as_str(), cancelled.code), ("", Some(0)));
}

#[test]
fn runs_of_sky_are_requests() {
    for (run, path, body) in [
        ("status -o json", "/status", r#""refresh":"NONE""#),
        ("status c -o json", "/status", r#""cluster_names":["c"]"#),
        ("cancel -y c 7", "/cancel", r#""job_ids":[7]"#),
        (
            "logs c 7 --no-follow --tail 9",
            "/logs",
            r#""job_id":7,"tail":9"#,
        ),
        (
            "autostop c -y --cancel",
            "/autostop",
            r#""idle_minutes":-1"#,
        ),
        ("autostop c -y -i 5 --down", "/autostop", r#""down":true"#),
        (
            "gpus list A100:8 --infra aws -o json --all-regions",
            "/list_accelerators",
            r#""name_filter":"A100","#,
        ),
        (
            "gpus list A100:8 --infra aws -o json",
            "/list_accelerators",
            r#""quantity_filter":8"#,
        ),
        (
            "gpus list A100 --infra aws -o json",
            "/list_accelerators",
            r#""quantity_filter":null"#,
        ),
        ("down -y sky-serve-controller-1", "", ""),
        (
            "cancel -y sky-serve-controller-1 2",
            "/cancel",
            r#""job_ids":[2]"#,
        ),
        ("logs c latest --no-follow --tail 9", "", ""),
        ("queue a b -o json", "", ""),
        ("queue c -o", "", ""),
    ] {
        let arguments: Vec<String> = run.split(' ').map(ToOwned::to_owned).collect();
        let request = Request::of(&arguments);
        let request = request.map(|request| (request.path, request.body.to_string()));
        let (found, sent) = request.unwrap_or_default();
        assert!(
            found == path && sent.contains(body),
            "{run}: {found} {sent}"
        );
    }
}

#[test]
fn program_answers_what_cannot_be_read() {
    let cancelled = r#"{"status": "CANCELLED", "return_value": "null", "error": "null"}"#;
    for (status, body) in [
        (200, ""),
        (200, "null"),
        (200, "[]"),
        (200, r#"{"status": "SUCCEEDED", "return_value": null}"#),
        (
            200,
            r#"{"status": "SUCCEEDED", "return_value": ["secret"]}"#,
        ),
        (200, cancelled),
        (200, r#"{"detail": "secret"}"#),
        (404, r#"{"detail": "Request 'x' not found"}"#),
        (500, "Internal Server Error"),
        (500, r#"{"detail": {"status": "FAILED", "error": "null"}}"#),
        (
            500,
            r#"{"detail": {"status": "FAILED", "error": "{\"type\": \"KeyError\", \"message\": \"secret\"}"}}"#,
        ),
        (503, ""),
        (302, ""),
    ] {
        let problem = reply(status, body).result().unwrap_err().to_string();
        assert!(!problem.contains("secret"), "{problem}");
    }
}

/// Takes requests on this machine, and never answers how one ended. Returns its address and what it is sent.
async fn silent_server() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let taken = Arc::clone(&sent);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let taken = Arc::clone(&taken);
            tokio::spawn(async move {
                let mut block = vec![0; 64 * 1024];
                let length = stream.read(&mut block).await.unwrap();
                let request = String::from_utf8_lossy(&block[..length]).into_owned();
                let is_get = request.starts_with("GET");
                taken.lock().unwrap().push(request);
                if is_get {
                    std::future::pending::<()>().await;
                }
                let answer = b"HTTP/1.1 200 OK\r\nx-skypilot-request-id: e64d-1\r\ncontent-length: 4\r\n\r\nnull";
                stream.write_all(answer).await.unwrap();
            });
        }
    });
    (address, sent)
}

#[tokio::test]
async fn request_that_is_given_up_is_cancelled() {
    let (address, sent) = silent_server().await;
    let server = Arc::new(Endpoint {
        address,
        env_vars: Default::default(),
    });
    let arguments = ["queue", "c", "-u", "-o", "json"];
    let call = CliCall::new(Path::new("sky"), &arguments, Duration::from_secs(3));
    let request = Request::of(&call.arguments).unwrap();
    assert!(server.answer(call, request).await.timed_out);
    let sent = sent.lock().unwrap().join("\n");
    let cancel = sent.split("POST ").last().unwrap();
    assert!(
        cancel.starts_with("/api/cancel") && cancel.contains(r#""request_ids":["e64d-1"]"#),
        "{sent}"
    );
}
