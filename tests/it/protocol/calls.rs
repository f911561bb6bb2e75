//! Calls beside each other: slow ones, many, given up, with the same id.

use serde_json::{Value, json};

use super::INVALID_REQUEST;
use crate::raw::{DEADLINE, Raw, request};

#[test]
fn other_calls_are_answered_while_a_slow_one_runs() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    raw.call("slow", "cancel_job", json!({ "job_id": job }));
    raw.request(1, "tools/list", json!({}));
    assert!(raw.next()["result"]["tools"].is_array());
    raw.lives();
    raw.call(2, "poll_status", json!({ "job_id": job }));
    assert_eq!(
        raw.next()["result"]["structuredContent"]["state"],
        "RUNNING"
    );
    raw.call(3, "cancel_job", json!({ "job_id": job, "force": true }));
    assert_eq!(raw.content(3)["state"], "CANCELLED");
    raw.answer("slow");
}

#[test]
fn an_id_in_use_is_refused_and_the_first_call_with_it_is_answered() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    raw.call(7, "cancel_job", json!({ "job_id": job }));
    for line in [
        request(7, "ping", json!({})),
        request(7.0, "tools/list", json!({})),
    ] {
        let (code, id, message) = raw.refused(line);
        assert_eq!((code, id.as_i64()), (INVALID_REQUEST, Some(7)));
        assert!(message.contains("under way"), "{message}");
    }
    // A text is another id.
    raw.request("7", "ping", json!({}));
    assert_eq!(raw.next()["id"], "7");
    raw.call(8, "cancel_job", json!({ "job_id": job, "force": true }));
    raw.answer(8);
    let first = raw.content(7);
    assert_eq!(first["job_id"], job, "{first}");
    // And now it is free.
    raw.request(7, "ping", json!({}));
    assert_eq!(raw.next()["result"], json!({}));
}

#[test]
fn a_call_that_was_given_up_is_not_answered() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    raw.call(7, "cancel_job", json!({ "job_id": job }));
    raw.lives();
    let given_up = json!({ "requestId": 7, "reason": "no longer wanted" });
    raw.say(
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": given_up })
            .to_string(),
    );
    raw.lives();
    // What it set going goes on.
    raw.call(8, "cancel_job", json!({ "job_id": job, "force": true }));
    assert_eq!(raw.content(8)["state"], "CANCELLED");
    raw.lives();
    raw.close_stdin();
    assert_eq!(raw.rest(), [] as [Value; 0]);
}

#[test]
fn many_calls_at_once_are_all_answered() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    for id in 0..1000 {
        raw.call(id, "poll_status", json!({ "job_id": job }));
    }
    for id in 0..1000 {
        assert_eq!(raw.content(id)["state"], "RUNNING");
    }
    raw.call("end", "cancel_job", json!({ "job_id": job, "force": true }));
    raw.content("end");
    raw.stays_under(64);
}

#[test]
fn too_many_waiting_calls_are_refused_and_pings_and_cancels_still_read() {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    let wait = json!({ "job_id": job, "wait_seconds": 55 });
    for id in 0..1026 {
        raw.call(id, "poll_status", wait.clone());
    }
    for _ in 0..2 {
        let refused = raw.next();
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("1024 calls are under way"), "{refused}");
    }
    // A ping needs no place among them.
    raw.request("ping", "ping", json!({}));
    assert_eq!(raw.next()["result"], json!({}));
    raw.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}"#);
    raw.request("ping", "ping", json!({}));
    assert_eq!(raw.next()["id"], "ping");
    // The cancelled call makes room.
    let ended = crate::support::poll_for(DEADLINE, || {
        raw.call("end", "cancel_job", json!({ "job_id": job, "force": true }));
        let answer = raw.answer("end");
        match answer["error"]["message"].as_str() {
            None => Ok(answer),
            Some(refused) => Err(refused.to_owned()),
        }
    });
    let content = &ended["result"]["structuredContent"];
    assert_eq!(content["state"], "CANCELLED", "{ended}");
    raw.stays_under(64);
}
