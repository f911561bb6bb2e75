//! The course of the loss, drawn on demand beside a log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::logs::ended;
use crate::support::client::Server;

fn asked(server: &mut Server, job_id: &str) -> Value {
    let arguments = json!({ "job_id": job_id, "plot": true, "lines": 1 });
    server.request(
        "tools/call",
        json!({ "name": "get_job_logs", "arguments": arguments }),
    )
}

#[test]
fn loss_as_picture_and_sparkline() {
    let (_home, mut server, job_id) =
        ended("for n in 1 2 3 4; do echo \"{'loss': $n.5, 'epoch': 0.$n}\"; done; echo the end");
    let result = asked(&mut server, &job_id);
    let [text, picture] = result["content"].as_array().unwrap().as_slice() else {
        panic!("{result}");
    };
    assert_eq!(text["type"], "text", "clients that read the first only");
    assert_eq!(
        (&picture["type"], &picture["mimeType"]),
        (&json!("image"), &json!("image/png"))
    );
    let png = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
    assert!(png.starts_with(b"\x89PNG"), "{png:?}");
    let answer = &result["structuredContent"];
    assert_eq!(answer["logs"], "the end");
    let line = answer["sparkline"].as_str().unwrap();
    assert!(line.contains("1.5") && line.contains("4.5"), "{line}");
    assert!(
        !answer
            .to_string()
            .contains(picture["data"].as_str().unwrap()),
        "the picture is given once"
    );
}

#[test]
fn no_loss_says_why_no_picture() {
    let (_home, mut server, job_id) = ended("echo nothing to learn");
    let result = asked(&mut server, &job_id);
    assert_eq!(result["content"].as_array().unwrap().len(), 1, "{result}");
    let answer = &result["structuredContent"];
    assert_eq!(
        (&answer["success"], &answer["logs"]),
        (&json!(true), &json!("nothing to learn"))
    );
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with("No plot: "), "{message}");
}
