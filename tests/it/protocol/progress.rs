//! Progress of calls that take long: for who gave a token, increasing, before the answer, and nothing after it.

use serde_json::{Value, json};

use crate::raw::{Raw, meta};

/// A call of a tool with a token for its progress.
fn call_with_token(
    raw: &mut Raw,
    id: &str,
    tool: &str,
    arguments: Value,
    token: &Value,
    mut meta: Value,
) {
    meta["progressToken"] = token.clone();
    let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    raw.request(id, "tools/call", params);
}

/// The messages of progress of a call until it is answered, and the answer.
fn progress_until_answer(raw: &mut Raw, id: &str, token: &Value) -> (Vec<String>, Value) {
    let (mut messages, mut last) = (Vec::new(), 0.0);
    loop {
        let message = raw.next();
        if message["id"] == id {
            return (messages, message);
        }
        assert_eq!(message["method"], "notifications/progress", "{message}");
        let params = &message["params"];
        assert_eq!(params["progressToken"], *token, "{message}");
        let progress = params["progress"].as_f64().unwrap();
        assert!(progress > last, "{progress} after {last}");
        last = progress;
        messages.push(params["message"].as_str().unwrap().to_owned());
    }
}

fn wait(job: &str, seconds: u64) -> Value {
    json!({ "job_id": job, "wait_seconds": seconds })
}

#[test]
fn a_poll_that_waits_tells_how_the_job_is_in_every_version() {
    for (version, token) in [
        ("2024-11-05", json!("a token")),
        ("2025-03-26", json!(7)),
        ("2025-06-18", json!("")),
        ("2025-11-25", json!(0)),
        ("2026-07-28", json!("another")),
    ] {
        let mut raw = Raw::start();
        let with = if version == "2026-07-28" {
            meta(version)
        } else {
            raw.initialize(version);
            json!({})
        };
        let job = raw.stubborn_job_of(&with);
        call_with_token(&mut raw, "wait", "poll_status", wait(&job, 2), &token, with);
        let (messages, answer) = progress_until_answer(&mut raw, "wait", &token);
        assert_eq!(messages[0], "the job is running: ready", "{version}");
        let content = &answer["result"]["structuredContent"];
        assert_eq!(content["state"], "RUNNING", "{version}: {answer}");
        raw.close_stdin();
        assert_eq!(raw.rest(), [] as [Value; 0], "nothing after the answer");
    }
}

#[test]
fn without_a_token_there_is_no_progress() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    raw.call("wait", "poll_status", wait(&job, 2));
    raw.call("cancel", "cancel_job", json!({ "job_id": job }));
    let mut answered = [raw.next(), raw.next()].map(|message| message["id"].clone());
    answered.sort_by_key(ToString::to_string);
    assert_eq!(answered, [json!("cancel"), json!("wait")]);
}

#[test]
fn a_slow_cancel_has_progress() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    let token = json!("cancelling");
    let arguments = json!({ "job_id": job });
    call_with_token(
        &mut raw,
        "cancel",
        "cancel_job",
        arguments,
        &token,
        json!({}),
    );
    let (messages, answer) = progress_until_answer(&mut raw, "cancel", &token);
    assert_eq!(messages[0], "asking the job to end");
    assert!(
        messages[1].starts_with("asking the job to end (for "),
        "{messages:?}"
    );
    assert_eq!(answer["result"]["structuredContent"]["is_done"], false);
}

#[test]
fn cancelled_wait_ends_at_once() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    let token = json!("given up");
    call_with_token(
        &mut raw,
        "wait",
        "poll_status",
        wait(&job, 55),
        &token,
        json!({}),
    );
    let reported = raw.next()["params"]["message"].clone();
    assert_eq!(reported, "the job is running: ready");
    raw.say(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"wait"}}"#,
    );
    // The id is free again once nothing works on the call any more.
    crate::support::wait_until("an answer under the same id", || {
        raw.call("wait", "poll_status", json!({ "job_id": job }));
        raw.answer("wait").get("result").is_some()
    });
    raw.close_stdin();
    let rest = raw.rest();
    assert_eq!(rest, [] as [Value; 0]);
}

#[test]
fn a_poll_that_waits_does_not_keep_the_server() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    let token = json!(1);
    call_with_token(
        &mut raw,
        "wait",
        "poll_status",
        wait(&job, 55),
        &token,
        json!({}),
    );
    raw.next();
    raw.close_stdin();
    raw.ends_well();
}
