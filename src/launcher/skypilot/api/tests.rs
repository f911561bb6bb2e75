use super::super::http::Reply;
use super::{Output, Unusable, output, request_id};
use crate::parse::sky::{self, Queue, QueueFailure};

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
    let mut reply = Reply::new(false);
    reply.status = status;
    let _ = reply.body.push(body.as_bytes());
    reply
}

fn read(reply: &Reply) -> Result<Output, String> {
    output(reply).map_err(|problem| problem.to_string())
}

#[test]
fn captured_answers() {
    let status = read(&captured(capture!("status"))).unwrap();
    let clusters = sky::clusters(&status.stdout).unwrap().clusters;
    assert_eq!(
        (clusters[0].name.as_str(), clusters[0].status.as_str()),
        ("h1", "UP")
    );
    let queue = read(&captured(capture!("queue"))).unwrap();
    let queue = sky::cluster_queue("h1", &queue.stdout).unwrap();
    let jobs: Vec<_> = queue.jobs["h1"]
        .iter()
        .map(|job| (&*job.job_id, &*job.status))
        .collect();
    assert_eq!(jobs, [("2", "PENDING"), ("1", "RUNNING")]);
    let unknown = read(&captured(capture!("queue-unknown"))).unwrap();
    assert_eq!(unknown.code, Some(1));
    let queue = Queue::of_failure("nope", &unknown.stderr);
    assert_eq!(queue.unanswered["nope"], QueueFailure::ClusterGone);
    let cancelled = read(&captured(capture!("cancel"))).unwrap();
    assert_eq!(
        (cancelled.stdout.as_str(), cancelled.code),
        ("null", Some(0))
    );
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
        let problem = read(&reply(status, body)).unwrap_err();
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[test]
fn id_of_a_request_is_a_plain_text() {
    let id = |status: u16, id: &str| {
        let mut reply = reply(status, "null");
        reply
            .headers
            .insert("x-skypilot-request-id", id.parse().unwrap());
        request_id(&reply).map(str::to_owned).ok()
    };
    assert_eq!(id(200, "e64d8ec4-75c7").as_deref(), Some("e64d8ec4-75c7"));
    assert_eq!(id(200, "../health"), None);
    assert_eq!(id(200, "a&b=c"), None);
    assert_eq!(id(400, "e64d8ec4-75c7"), None);
    assert!(matches!(
        request_id(&reply(200, "")),
        Err(Unusable::Unreadable)
    ));
}
